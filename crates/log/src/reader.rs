//! Reading records back, checksum checked every time.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use crate::format::{RECORD_HEADER_BYTES, record_crc, segment_name, u32_at};
use crate::{Disk, DiskFile, Error, Place};

/// Open segments by id, shared between the writer, who adds, and readers.
pub(crate) type Segments = Arc<RwLock<BTreeMap<u32, Arc<dyn DiskFile>>>>;

/// Reads records of a log that is being written. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) segments: Segments,
}

impl Reader {
    /// The body of the record at `place`.
    pub fn read(&self, place: Place) -> Result<Vec<u8>, Error> {
        let path = || self.disk.path(&segment_name(place.segment));
        let damaged = |reason: &str| Error::Damaged {
            path: path(),
            offset: u64::from(place.offset),
            reason: reason.into(),
        };
        let file = {
            let segments = self.segments.read().expect("no code panics while it holds this lock");
            segments.get(&place.segment).cloned()
        };
        let Some(file) = file else { return Err(damaged("the segment is missing")) };
        let mut bytes = vec![0; RECORD_HEADER_BYTES + place.len as usize];
        file.read_exact_at(&mut bytes, u64::from(place.offset)).map_err(|e| Error::Io {
            what: "read",
            path: path(),
            reason: e.to_string(),
        })?;
        let body = &bytes[RECORD_HEADER_BYTES..];
        if u32_at(&bytes, 0) != place.len
            || u32_at(&bytes, 4) != record_crc(place.segment, place.offset, body)
        {
            return Err(damaged("the record's checksum is wrong"));
        }
        bytes.drain(..RECORD_HEADER_BYTES);
        Ok(bytes)
    }
}
