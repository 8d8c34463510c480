//! Mistakes planted into the whole system, to see that the checker finds them.
//! Those of the group machine are its own: `daybook_bus::Bug`.

use daybook_bus::Bug;
use daybook_server::planted::Bug as ServerBug;

/// A mistake on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    Store(Mistake),
    Group(Bug),
    /// The group's task, around the machine.
    Server(ServerBug),
}

impl Planted {
    pub fn all() -> impl Iterator<Item = Self> {
        Mistake::ALL
            .into_iter()
            .map(Self::Store)
            .chain(Bug::ALL.into_iter().map(Self::Group))
            .chain(ServerBug::ALL.into_iter().map(Self::Server))
    }

    pub fn name(self) -> String {
        match self {
            Self::Store(mistake) => format!("{mistake:?}"),
            Self::Group(bug) => format!("{bug:?}"),
            Self::Server(bug) => format!("{bug:?}"),
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|planted| planted.name() == name)
    }
}

/// Each is a mistake that somebody could make in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A receipt is sent before the sync.
    AnsweredBeforeDurable,
    /// Readers see an event before the sync.
    ReadBeforeDurable,
    /// A lost claim may publish.
    FencesIgnored,
    /// A checkpoint is confirmed before the sync.
    CheckpointBeforeDurable,
    /// A crash brings an older checkpoint back.
    CheckpointFromBefore,
    /// The time of an event is whatever the clock says.
    ClockBelieved,
}

impl Mistake {
    pub const ALL: [Self; 6] = [
        Self::AnsweredBeforeDurable,
        Self::ReadBeforeDurable,
        Self::FencesIgnored,
        Self::CheckpointBeforeDurable,
        Self::CheckpointFromBefore,
        Self::ClockBelieved,
    ];
}
