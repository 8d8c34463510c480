//! Which times the ids of a run name: most ids are UUIDs that begin with the
//! millisecond of their making, so a fresh one is surely not in an old run.

/// Milliseconds in the first 48 bits of a canonical UUID of version 7; `None`
/// for every other text.
pub(super) fn time_of(id: &str) -> Option<u64> {
    let id: &[u8; 36] = id.as_bytes().try_into().ok()?;
    if id[8] != b'-' || id[13] != b'-' || id[14] != b'7' {
        return None;
    }
    let digit = |time: u64, byte: u8| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(time << 4 | u64::from(digit))
    };
    id[..8].iter().chain(&id[9..13]).try_fold(0, |time, byte| digit(time, *byte))
}

/// From the first to the last such time of some ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdTimes {
    first: u64,
    last: u64,
}

impl IdTimes {
    pub const NONE: Self = Self { first: u64::MAX, last: 0 };
    /// Nobody knows.
    pub const ANY: Self = Self { first: 0, last: u64::MAX };
    const BYTES_EACH: usize = 6;

    /// What [`time_of`] an id tells.
    pub fn add(&mut self, time: Option<u64>) {
        if let Some(time) = time {
            *self = self.and(Self { first: time, last: time });
        }
    }

    pub fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// False if an id of this time is surely not among them.
    pub fn may_hold(self, time: Option<u64>) -> bool {
        time.is_none_or(|time| (self.first..=self.last).contains(&time))
    }

    /// What is more than 48 bits becomes the largest of them.
    pub fn encode(self, out: &mut Vec<u8>) {
        for time in [self.first, self.last] {
            out.extend_from_slice(&time.min(TIME_MAX).to_le_bytes()[..Self::BYTES_EACH]);
        }
    }

    pub fn decode(bytes: &[u8; 2 * Self::BYTES_EACH]) -> Self {
        let time = |at: usize| {
            let mut time = [0; 8];
            time[..Self::BYTES_EACH].copy_from_slice(&bytes[at..at + Self::BYTES_EACH]);
            u64::from_le_bytes(time)
        };
        Self { first: time(0), last: time(Self::BYTES_EACH) }
    }
}

const TIME_MAX: u64 = (1 << 48) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_ids_name_a_time() {
        assert_eq!(time_of("01234567-89ab-7000-8000-000000000000"), Some(0x0123_4567_89ab));
        assert_eq!(time_of("ffffffff-ffff-7000-8000-000000000000"), Some(TIME_MAX));
        for other in [
            "",
            "order-1",
            "01234567-89AB-7000-8000-000000000000",
            "01234567-89ab-4000-8000-000000000000",
            "01234567089ab-7000-8000-00000000000",
            "+1234567-89ab-7000-8000-000000000000",
        ] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }

    #[test]
    fn times_that_were_added_are_held_before_and_after_the_disk() {
        let at = |ms: u64| format!("{:08x}-{:04x}-7000-8000-000000000000", ms >> 16, ms & 0xffff);
        let mut times = IdTimes::NONE;
        assert!(!times.may_hold(time_of(&at(0))) && times.may_hold(None));
        for ms in [70_000, 5, TIME_MAX] {
            times.add(time_of(&at(ms)));
            times.add(time_of("order-1"));
            let mut bytes = Vec::new();
            times.encode(&mut bytes);
            assert_eq!(IdTimes::decode(bytes.as_slice().try_into().unwrap()), times);
            assert!(times.may_hold(Some(ms)) && times.may_hold(Some(70_000)));
        }
        assert!(!times.may_hold(Some(4)));
        let mut bytes = Vec::new();
        IdTimes::NONE.encode(&mut bytes);
        let none = IdTimes::decode(bytes.as_slice().try_into().unwrap());
        assert!(!none.may_hold(Some(0)) && !none.may_hold(Some(TIME_MAX - 1)));
    }
}
