//! Mistakes on purpose, to see that the simulation catches them; see the list of
//! `bus`, which this is like. Without the feature `planted` nothing of it is
//! compiled in.

/// Each is a mistake that somebody could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted"), allow(dead_code))]
pub enum Bug {
    /// Deadlines are looked up on the wall clock.
    WallClockDeadlines,
    /// After a nack the session may still publish under what it had behind it.
    ClaimsOutliveNack,
    /// What is settled while the past is read is not told to who rebuilds.
    RebuildMissesLive,
    /// Who rebuilds is told all that was read as settled.
    RebuildTellsUnsettled,
    /// The tokens of one process are those of the process before.
    RunsRepeat,
}

#[cfg(feature = "planted")]
impl Bug {
    pub const ALL: [Self; 5] = [
        Self::WallClockDeadlines,
        Self::ClaimsOutliveNack,
        Self::RebuildMissesLive,
        Self::RebuildTellsUnsettled,
        Self::RunsRepeat,
    ];
}

daybook_bus::planted_switch!();
