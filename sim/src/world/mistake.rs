//! Mistakes planted into the whole system, to see that the checker finds them.
//! Those of the group machine are its own: `daybook_bus::Bug`.

use daybook_bus::Bug;

/// A mistake on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    Store(Mistake),
    Group(Bug),
}

impl Planted {
    pub fn all() -> impl Iterator<Item = Self> {
        Mistake::ALL.into_iter().map(Self::Store).chain(Bug::ALL.into_iter().map(Self::Group))
    }

    pub fn name(self) -> String {
        match self {
            Self::Store(mistake) => format!("{mistake:?}"),
            Self::Group(bug) => format!("{bug:?}"),
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
}

impl Mistake {
    pub const ALL: [Self; 5] = [
        Self::AnsweredBeforeDurable,
        Self::ReadBeforeDurable,
        Self::FencesIgnored,
        Self::CheckpointBeforeDurable,
        Self::CheckpointFromBefore,
    ];
}
