//! Mistakes on purpose, to see that the tests catch them. Without the feature
//! `planted` nothing of this is compiled into the log.
//!
//! `DAYBOOK_PLANTED=NAME` plants one for a whole process: `tests/log/planted.rs`
//! starts the suites as processes of their own, which must fail.

/// Each is a mistake that somebody could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted"), allow(dead_code))]
pub enum Bug {
    /// A sync is answered and not done.
    SyncSkipped,
    /// A failed sync is tried again, and its success believed.
    FailedSyncRetried,
    /// The log goes on after a failed write.
    FailureForgotten,
    /// A new segment's name is not synced.
    DirectorySyncSkipped,
    /// A new segment's header is not synced before what follows it.
    HeaderSyncSkipped,
    /// The next segment is begun before the footer of the last is synced.
    FooterSyncSkipped,
    /// The next segment is taken before its zeros are synced.
    SpareSyncSkipped,
    /// A mark is written before what it vouches for is synced.
    MarkBeforeSync,
    /// No mark is ever written.
    MarkSkipped,
    /// Damage before a witness is cut off like a torn tail.
    DamageCutOff,
    /// A footer is no witness.
    FooterIgnored,
    /// A torn tail stays where it is.
    TailLeft,
    /// What was found is served without a sync.
    FoundServedUnsynced,
    /// What was found is synced and not written again.
    FoundNotRewritten,
    /// Of a torn batch the records before the tear are served.
    HalfBatchServed,
    /// A batch need not follow the one before.
    ChainIgnored,
    /// A record's checksum does not say where it lies.
    ChecksumWithoutPlace,
    /// A record is read without its checksum.
    ReadUnchecked,
    /// A segment cut short ends early.
    CutSegmentTaken,
    /// A segment of a newer program was never written.
    NewerSegmentRemoved,
    /// What is found is handed out before it is durable.
    FoundHandedOutEarly,
    /// Batches of a copy that is being written prove each other durable.
    CopyUnmarked,
    /// A copy of a damaged log ends before the damage.
    CopyEndsAtDamage,
}

#[cfg(feature = "planted")]
impl Bug {
    pub const ALL: [Self; 23] = [
        Self::SyncSkipped,
        Self::FailedSyncRetried,
        Self::FailureForgotten,
        Self::DirectorySyncSkipped,
        Self::HeaderSyncSkipped,
        Self::FooterSyncSkipped,
        Self::SpareSyncSkipped,
        Self::MarkBeforeSync,
        Self::MarkSkipped,
        Self::DamageCutOff,
        Self::FooterIgnored,
        Self::TailLeft,
        Self::FoundServedUnsynced,
        Self::FoundNotRewritten,
        Self::HalfBatchServed,
        Self::ChainIgnored,
        Self::ChecksumWithoutPlace,
        Self::ReadUnchecked,
        Self::CutSegmentTaken,
        Self::NewerSegmentRemoved,
        Self::FoundHandedOutEarly,
        Self::CopyUnmarked,
        Self::CopyEndsAtDamage,
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

/// A sync, but for the mistake that leaves it out.
pub(crate) fn sync_unless(bug: Bug, file: &dyn crate::DiskFile) -> std::io::Result<()> {
    if has(bug) { Ok(()) } else { file.sync_data() }
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}
