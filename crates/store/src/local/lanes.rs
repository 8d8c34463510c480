//! Batches whose ids or keys are being looked up, and what their session sent
//! after them: its order is kept, and nobody else waits.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;

use super::lookup::{Lookups, Returned};
use super::queue::{Append, BarrierShare};
use crate::Fence;

/// In the order the session sent them.
enum Slot {
    Away { ticket: u64, fence: Option<Fence> },
    Back(Append),
    Barrier { fences: Vec<Fence>, share: BarrierShare },
}

pub(super) enum Next {
    Append(Append),
    Barrier { fences: Vec<Fence>, share: BarrierShare },
}

pub(super) struct Lanes {
    lookups: Lookups,
    by_session: HashMap<Arc<str>, VecDeque<Slot>>,
    last_ticket: u64,
}

impl Lanes {
    pub fn new(lookups: Lookups) -> Self {
        Self { lookups, by_session: HashMap::default(), last_ticket: 0 }
    }

    /// Whether something of this session is not in its place yet.
    pub fn holds(&self, session: &Arc<str>) -> bool {
        !self.by_session.is_empty() && self.by_session.contains_key(session)
    }

    /// Last of its session.
    pub fn hold(&mut self, append: Append) {
        let session = append.batch.session.clone();
        let slot = self.send_away(append);
        self.by_session.entry(session).or_default().push_back(slot);
    }

    /// First of its session: what was found out is not enough any more.
    pub fn hold_again(&mut self, append: Append) {
        let session = append.batch.session.clone();
        let slot = self.send_away(append);
        self.by_session.entry(session).or_default().push_front(slot);
    }

    fn send_away(&mut self, append: Append) -> Slot {
        self.last_ticket += 1;
        let slot = Slot::Away { ticket: self.last_ticket, fence: append.batch.fence.clone() };
        self.lookups.ask(self.last_ticket, append);
        slot
    }

    /// A barrier comes after everything held: each lane gets a share of it, with
    /// those fences that its batches carry. Returns the fences that nobody's do.
    pub fn barrier(&mut self, mut fences: Vec<Fence>, share: &BarrierShare) -> Vec<Fence> {
        for lane in self.by_session.values_mut() {
            let carried = |fence: &Fence| {
                lane.iter().any(|slot| match slot {
                    Slot::Away { fence: Some(carried), .. } => carried.is(fence),
                    Slot::Back(append) => append.batch.fence.as_ref().is_some_and(|f| f.is(fence)),
                    _ => false,
                })
            };
            let (here, elsewhere) = fences.into_iter().partition(carried);
            lane.push_back(Slot::Barrier { fences: here, share: share.clone() });
            fences = elsewhere;
        }
        fences
    }

    pub fn returned(&mut self, returned: Returned) {
        let lane = self.by_session.get_mut(&returned.append.batch.session);
        let mine = |slot: &&mut Slot| matches!(slot, Slot::Away { ticket, .. } if *ticket == returned.ticket);
        if let Some(slot) = lane.and_then(|lane| lane.iter_mut().find(mine)) {
            *slot = Slot::Back(returned.append);
        }
    }

    /// What of this session can take its place now.
    pub fn next(&mut self, session: &Arc<str>) -> Option<Next> {
        let lane = self.by_session.get_mut(session)?;
        let next = match lane.pop_front() {
            None => {
                self.by_session.remove(session);
                return None;
            }
            Some(away @ Slot::Away { .. }) => {
                lane.push_front(away);
                return None;
            }
            Some(Slot::Back(append)) => Next::Append(append),
            Some(Slot::Barrier { fences, share }) => Next::Barrier { fences, share },
        };
        Some(next)
    }
}
