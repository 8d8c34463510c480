//! Reading records back, checksum checked every time.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, RwLock};

use crate::format::{MAX_BATCH_BYTES, RECORD_HEADER_BYTES, record_crc, segment_name, segment_of, u32_at};
use crate::planted::{Bug, has};
use crate::{Disk, DiskFile, Error, Place};

/// Open segments by id, shared between the writer, who adds, and readers.
pub(crate) type Segments = Arc<RwLock<BTreeMap<u32, Arc<dyn DiskFile>>>>;

/// Records that lie closer than this are read together: a batch header is between them.
const GAP_BYTES: u64 = 512;
/// No more is read at once, unless one record is larger.
const SPAN_BYTES: u64 = 256 << 10;

/// Reads records of a log that is being written. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segments: Segments,
}

impl Reader {
    /// Of a log that nobody has open.
    pub fn over(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let names = disk.list()?;
        let ids = names.iter().filter_map(|name| segment_of(name));
        let open = |id| Ok((id, disk.open(&segment_name(id), false)?));
        let segments = ids.map(open).collect::<io::Result<_>>()?;
        Ok(Self { disk, segments: Arc::new(RwLock::new(segments)) })
    }

    /// Of all segments' files, the space made ready for what comes included.
    pub fn size_bytes(&self) -> u64 {
        let segments = self.segments.read().expect("no code panics while it holds this lock");
        segments.values().map(|file| file.len().unwrap_or(0)).sum()
    }

    /// The body of the record at `place`.
    pub fn read(&self, place: Place) -> Result<Vec<u8>, Error> {
        let bytes =
            self.bytes(place.segment, u64::from(place.offset), RECORD_HEADER_BYTES + place.len as usize)?;
        self.body(&bytes, place).map(<[u8]>::to_vec)
    }

    /// The bodies of records in ascending order; neighbours share a system call.
    /// `wanted` is told of each, and ends it by `false`.
    pub fn read_each(
        &self,
        places: &[Place],
        mut wanted: impl FnMut(usize, &[u8]) -> bool,
    ) -> Result<(), Error> {
        let mut at = 0;
        while at < places.len() {
            let (first, mut last) = (places[at], at);
            let end =
                |place: Place| u64::from(place.offset) + (RECORD_HEADER_BYTES + place.len as usize) as u64;
            while let Some(next) = places.get(last + 1)
                && next.segment == first.segment
                && next.offset >= places[last].offset
                && u64::from(next.offset) <= end(places[last]) + GAP_BYTES
                && end(*next) - u64::from(first.offset) <= SPAN_BYTES
            {
                last += 1;
            }
            let len = end(places[last]) - u64::from(first.offset);
            let bytes = self.bytes(first.segment, u64::from(first.offset), len as usize)?;
            for (i, place) in places.iter().enumerate().take(last + 1).skip(at) {
                let from = (place.offset - first.offset) as usize;
                let record = &bytes[from..from + RECORD_HEADER_BYTES + place.len as usize];
                if !wanted(i, self.body(record, *place)?) {
                    return Ok(());
                }
            }
            at = last + 1;
        }
        Ok(())
    }

    fn bytes(&self, segment: u32, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let path = || self.disk.path(&segment_name(segment));
        let file = {
            let segments = self.segments.read().expect("no code panics while it holds this lock");
            segments.get(&segment).cloned()
        };
        let Some(file) = file else {
            return Err(Error::Damaged { path: path(), offset, reason: "the segment is missing".into() });
        };
        // Places come from an index on disk too: no length is believed.
        if len > MAX_BATCH_BYTES as usize + RECORD_HEADER_BYTES {
            let reason = format!("no record has the {len} bytes that the index tells of");
            return Err(Error::Damaged { path: path(), offset, reason });
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let reason = "the file ends before the record does".into();
                Error::Damaged { path: path(), offset, reason }
            }
            _ => Error::Io { what: "read", path: path(), reason: e.to_string() },
        })?;
        Ok(bytes)
    }

    /// The body of a whole record, if it is the one of `place`.
    fn body<'a>(&self, record: &'a [u8], place: Place) -> Result<&'a [u8], Error> {
        let body = &record[RECORD_HEADER_BYTES..];
        if u32_at(record, 0) != place.len
            || u32_at(record, 4) != record_crc(place.segment, place.offset, body) && !has(Bug::ReadUnchecked)
        {
            return Err(Error::Damaged {
                path: self.disk.path(&segment_name(place.segment)),
                offset: u64::from(place.offset),
                reason: "the record's checksum is wrong".into(),
            });
        }
        Ok(body)
    }
}
