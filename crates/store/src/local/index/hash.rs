//! What an attribute's text is filed under.

use daybook_log::LogId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Id = 0,
    Subject = 1,
    Type = 2,
    Correlation = 3,
    Session = 4,
}

impl Kind {
    /// That of a hash; `None` if nothing is filed under such.
    pub fn of(hash: u64) -> Option<Self> {
        let all = [Self::Id, Self::Subject, Self::Type, Self::Correlation, Self::Session];
        all.into_iter().find(|kind| kind.is_of(hash))
    }

    /// Whether `hash` is of a text of this kind.
    pub fn is_of(self, hash: u64) -> bool {
        hash & KIND_MASK == self as u64
    }

    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Subject => "key",
            Self::Type => "type",
            Self::Correlation => "correlationid",
            Self::Session => "session",
        }
    }
}

const KIND_BITS: u32 = 3;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;

/// 61 bits of hash, 3 of kind. The seed comes from the log's random id, so that
/// nobody outside can choose texts that collide.
#[derive(Clone, Copy)]
pub(crate) struct Hasher(u64);

impl Hasher {
    pub fn new(log: LogId) -> Self {
        let (low, high) = (u64::from_le_bytes(half(&log, 0)), u64::from_le_bytes(half(&log, 8)));
        Self(low ^ high.rotate_left(17))
    }

    pub fn hash(self, kind: Kind, text: &str) -> u64 {
        self.whole(text) << KIND_BITS | u64::from(kind as u8)
    }

    /// 64 bits of hash, of whatever kind.
    pub fn whole(self, text: &str) -> u64 {
        xxh3_64_with_seed(text.as_bytes(), self.0)
    }
}

/// The service and the instance of a session's id, each with its slash: events
/// are filed under these too, because prefixes name them.
pub(crate) fn session_levels(id: &str) -> impl Iterator<Item = &str> {
    id.match_indices('/').take(2).map(|(at, _)| &id[..=at])
}

/// Whether look-ups for this are frequent and mostly in vain.
pub(super) fn is_filtered(hash: u64) -> bool {
    Kind::Id.is_of(hash) || Kind::Subject.is_of(hash)
}

fn half(log: &LogId, at: usize) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&log.0[at..at + 8]);
    half
}
