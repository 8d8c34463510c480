//! Looking at a group without changing it.

use crate::report::{GroupReport, MemberReport, ParkedReport, Settled};
use crate::{Group, LaneKey};
use daybook_model::Position;

impl Group {
    /// The earliest event not known settled: where a restart would read on.
    pub fn low(&self) -> Position {
        self.cursor.low()
    }

    pub fn report(&self) -> GroupReport {
        let members = self.members.instances().map(|(_, seat)| MemberReport {
            instance: seat.instance.clone(),
            connected: seat.member().is_some(),
            slots: seat.slots,
            in_flight: seat.in_flight.len(),
            credit: seat.credit,
        });
        let in_flight = self.deliveries.len();
        let parked = self.detached.iter().filter(|(_, record)| record.parked.is_some()).count();
        GroupReport {
            options: self.options.clone(),
            low: self.cursor.low(),
            read: self.cursor.read,
            members: members.collect(),
            in_flight,
            waiting: self.lanes.events - in_flight,
            parked,
            behind: self.detached.len() - parked,
            stopped: self.stopped.is_some(),
        }
    }

    /// What waits for an operator.
    pub fn parked(&self) -> Vec<ParkedReport> {
        let stopped = self.stopped.iter().map(|stopped| ParkedReport {
            key: stopped.key.clone(),
            subject: stopped.key.name(),
            position: stopped.position,
            attempts: stopped.attempts,
            reason: stopped.reason.to_string(),
            stopped: true,
        });
        let parked = self.detached.iter().filter_map(|(key, record)| {
            let parked = record.parked.as_ref()?;
            Some(ParkedReport {
                key: key.clone(),
                subject: key.name(),
                position: record.next,
                attempts: parked.attempts,
                reason: parked.reason.to_string(),
                stopped: false,
            })
        });
        stopped.chain(parked).collect()
    }

    /// The parked key that an operator means; a key goes before an event
    /// without key whose position reads the same.
    pub fn find_parked(&self, name: &str) -> Option<LaneKey> {
        let mut found: Vec<_> = self.parked().into_iter().filter(|parked| parked.subject == name).collect();
        found.sort_by_key(|parked| matches!(parked.key, LaneKey::Event(_)));
        found.into_iter().next().map(|parked| parked.key)
    }

    pub fn settled(&self) -> Settled {
        let (top, unsettled) = self.cursor.snapshot();
        let detached = self.detached.iter().map(|(key, record)| (key.clone(), record.next)).collect();
        Settled { options: self.options.clone(), top, unsettled, detached }
    }
}
