//! Mistakes on purpose, to see that the tests catch them. Without the feature
//! `planted` nothing of this is compiled into the machine.

/// Each is a mistake that somebody could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted"), allow(dead_code))]
pub enum Bug {
    /// Whoever names a delivery's number may settle it.
    AckOfOthersAccepted,
    /// A key goes on before its old claim is fenced.
    NoFence,
    /// The checkpoint says that everything read is settled.
    CursorPastUnsettled,
    /// A session's crash is nobody's attempt.
    CrashCountsNothing,
    /// The group's own reading takes a key back while some of it is unread.
    ReattachTooEarly,
    /// A retry settles the event.
    RetrySettles,
    /// An ack settles the next event too.
    AckSettlesTwo,
    /// Parked keys are forgotten by a restart.
    ParkedForgotten,
    /// An ack is answered before it is on disk.
    AnswerBeforeDurable,
    /// A record does not follow what is settled of its key.
    RecordStandsStill,
    /// What was settled before a restart comes again.
    SettledComesAgain,
    /// One attempt too many.
    OneAttemptTooMany,
    /// An operator's skip leaves the event unsettled.
    SkipDoesNotSettle,
    /// A page of a key may begin before what is settled.
    KeyPageFromTheStart,
    /// Attempts are forgotten by a restart.
    AttemptsForgotten,
    /// A session that left keeps its keys.
    LeaverKeepsKeys,
    /// A failed save counts as done.
    FailedSaveCounts,
    /// A key with a backlog is not read on.
    BacklogForgotten,
    /// With a window, what has failed before is sent among others.
    FailedInCompany,
    /// With a window, an ack settles what was delivered before it too.
    AckSettlesEarlier,
    /// With a window, only the first claim that a failure ends is fenced.
    LaterNotFenced,
    /// A restart reads again what a record answers for.
    CoveredIsReadAgain,
    /// What follows a skipped event goes out before the skip is on disk.
    SkipGoesOnAtOnce,
    /// With a window, what was delivered behind a skipped event stays with its session.
    WindowOutlivesSkip,
}

#[cfg(feature = "planted")]
impl Bug {
    pub const ALL: [Self; 24] = [
        Self::AckOfOthersAccepted,
        Self::NoFence,
        Self::CursorPastUnsettled,
        Self::CrashCountsNothing,
        Self::ReattachTooEarly,
        Self::RetrySettles,
        Self::AckSettlesTwo,
        Self::ParkedForgotten,
        Self::AnswerBeforeDurable,
        Self::RecordStandsStill,
        Self::SettledComesAgain,
        Self::OneAttemptTooMany,
        Self::SkipDoesNotSettle,
        Self::KeyPageFromTheStart,
        Self::AttemptsForgotten,
        Self::LeaverKeepsKeys,
        Self::FailedSaveCounts,
        Self::BacklogForgotten,
        Self::CoveredIsReadAgain,
        Self::FailedInCompany,
        Self::AckSettlesEarlier,
        Self::LaterNotFenced,
        Self::SkipGoesOnAtOnce,
        Self::WindowOutlivesSkip,
    ];
}

/// The switch of a list of mistakes called `Bug`: `plant`, and `has` for whoever
/// may make one. The list's own crate decides whether there is one.
#[macro_export]
macro_rules! planted_switch {
    () => {
        #[cfg(feature = "planted")]
        std::thread_local! {
            static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
        }

        /// From now on what runs on this thread makes this mistake, or none.
        #[cfg(feature = "planted")]
        pub fn plant(bug: Option<Bug>) {
            PLANTED.set(bug);
        }

        #[cfg(feature = "planted")]
        pub(crate) fn has(bug: Bug) -> bool {
            PLANTED.get() == Some(bug)
        }

        #[cfg(not(feature = "planted"))]
        pub(crate) const fn has(_: Bug) -> bool {
            false
        }
    };
}

planted_switch!();
