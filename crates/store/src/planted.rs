//! Mistakes on purpose, to see that the tests catch them; see the log's list,
//! which this is like. Without the feature `planted` nothing of it is compiled in.

/// Each is a mistake that somebody could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted"), allow(dead_code))]
pub enum Bug {
    /// A receipt is given before the sync.
    AnsweredBeforeDurable,
    /// A receipt is given although the sync failed.
    FailureAnswered,
    /// A key that is not in memory is a new key.
    KeyOnlyInMemory,
    /// An id that is not in memory is a new id.
    IdOnlyInMemory,
    /// An id of a batch that is being written is a new id.
    FlightForgotten,
    /// The wall clock is believed.
    ClockBelieved,
    /// The last time in the log is forgotten when it is opened.
    TimeForgotten,
    /// A raised fence stops nobody.
    FenceIgnored,
    /// Of a batch in conflict the events before the conflict are stored.
    HalfBatchStored,
    /// What was refused for want of room keeps its places.
    PlacesKept,
    /// A torn checkpoint is loaded.
    TornCheckpointTaken,
    /// A checkpoint that was found is used without being made durable.
    FoundCheckpointUnsynced,
    /// The name of a new checkpoint is not synced.
    CheckpointNameUnsynced,
    /// A block of the index is read without its checksum.
    IndexUnchecked,
}

#[cfg(feature = "planted")]
impl Bug {
    pub const ALL: [Self; 14] = [
        Self::AnsweredBeforeDurable,
        Self::FailureAnswered,
        Self::KeyOnlyInMemory,
        Self::IdOnlyInMemory,
        Self::FlightForgotten,
        Self::ClockBelieved,
        Self::TimeForgotten,
        Self::FenceIgnored,
        Self::HalfBatchStored,
        Self::PlacesKept,
        Self::TornCheckpointTaken,
        Self::FoundCheckpointUnsynced,
        Self::CheckpointNameUnsynced,
        Self::IndexUnchecked,
    ];
}

#[cfg(feature = "planted")]
pub(crate) fn has(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var("DAYBOOK_PLANTED").ok()?;
        Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
    });
    *planted == Some(bug)
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}
