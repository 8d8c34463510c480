//! Looking at a group without changing it.

use crate::detached::Detached;
use crate::lane::LaneState;
use crate::report::{GroupReport, KeyReport, KeyState, MemberReport, ParkedReport, Settled};
use crate::{Group, LaneKey, Millis};
use daybook_model::Position;

impl Group {
    /// The earliest event not known settled: where a restart would read on.
    pub fn low(&self) -> Position {
        self.cursor.low()
    }

    /// The earliest event that is neither settled nor behind one that waits for an
    /// operator: how far behind the group is.
    fn earliest(&self) -> Position {
        let going_on = self.detached.iter().filter(|(_, record)| record.parked.is_none());
        let next = going_on.map(|(_, record)| record.next).min();
        next.map_or(self.cursor.low(), |next| next.min(self.cursor.low()))
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
        let by_session = |record: &Detached| record.parked.as_ref().is_some_and(|parked| parked.by_session);
        let parked = self.detached.iter().filter(|(_, record)| record.parked.is_some()).count();
        GroupReport {
            options: self.options.clone(),
            low: self.cursor.low(),
            earliest: self.earliest(),
            read: self.cursor.read,
            members: members.collect(),
            in_flight,
            waiting: self.lanes.events - in_flight,
            parked,
            parked_by_session: self.detached.iter().filter(|(_, record)| by_session(record)).count(),
            behind: self.detached.len() - parked,
            stopped: self.stopped.is_some(),
        }
    }

    /// Why the key of this name is where it is.
    pub fn explain(&self, now: Millis, name: &str) -> KeyReport {
        let key = self.key_named(name);
        let lane = self.lanes.get(&key);
        let record = self.detached.get(&key);
        let slot = key.slot();
        let owner = self.slots.owner(slot).and_then(|owner| self.members.seat(owner));
        let next = lane.map(|lane| lane.head().position).or(record.map(|record| record.next));
        let attempts = next.and_then(|next| self.failed.get(&next)).cloned().unwrap_or_default();
        let parked = record.and_then(|record| record.parked.as_ref());
        let state = match (lane, parked, record) {
            (_, Some(parked), _) => {
                KeyState::Parked { attempts: parked.attempts, reason: parked.reason.to_string() }
            }
            (Some(lane), ..) => self.lane_state(now, lane),
            (None, None, Some(_)) => KeyState::Behind,
            // Stopped before a restart, and not read again yet.
            (None, None, None) if self.stopped.as_ref().is_some_and(|stopped| stopped.key == key) => {
                self.stopped_state()
            }
            (None, None, None) => KeyState::Absent,
        };
        KeyReport {
            subject: key.name(),
            slot: slot.0,
            owner: owner.map(|seat| seat.instance.clone()),
            owner_connected: owner.is_some_and(|seat| seat.member().is_some()),
            state,
            waiting: lane.map_or(0, |lane| lane.queue.len()),
            next,
            failed_attempts: attempts.failed,
            suspect: attempts.suspect,
            last_error: attempts.reason.map(|reason| reason.to_string()),
            read: self.cursor.read,
            members: self.members.present(),
            stopped_at: self.stopped.as_ref().map(|stopped| stopped.position),
        }
    }

    fn stopped_state(&self) -> KeyState {
        let (attempts, reason) =
            self.stopped.as_ref().map_or((0, String::new()), |s| (s.attempts, s.reason.to_string()));
        KeyState::Stopped { attempts, reason }
    }

    fn lane_state(&self, now: Millis, lane: &crate::lane::Lane) -> KeyState {
        match &lane.state {
            LaneState::Queued => KeyState::Ready,
            LaneState::InFlight(flight) => {
                let delivery = &flight[0];
                let seat = self.members.seat_of(delivery.token.member);
                KeyState::InFlight {
                    instance: seat.and_then(|id| self.members.seat(id)).map(|seat| seat.instance.clone()),
                    for_ms: now.0.saturating_sub(delivery.since.0),
                    due_in_ms: delivery.due.0.saturating_sub(now.0),
                    asked: delivery.asked,
                }
            }
            LaneState::Held { until } if *until > now => KeyState::Backoff { next_in_ms: until.0 - now.0 },
            LaneState::Held { .. } if lane.fence.is_some() => KeyState::Fencing,
            LaneState::Held { .. } => KeyState::Saving,
            LaneState::Reserved => KeyState::Reserved,
            LaneState::Stopped => self.stopped_state(),
        }
    }

    /// A key goes before an event without key whose position reads the same.
    pub fn key_named(&self, name: &str) -> LaneKey {
        if self.options.mode == daybook_model::wire::Mode::Exclusive {
            return LaneKey::All;
        }
        let text = LaneKey::Text(name.into());
        let known = |key: &LaneKey| self.lanes.get(key).is_some() || self.detached.get(key).is_some();
        match name.parse() {
            Ok(position) if !known(&text) && known(&LaneKey::Event(position)) => LaneKey::Event(position),
            _ => text,
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
