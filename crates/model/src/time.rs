//! Bus time: microseconds since 1970, written as RFC 3339 in UTC.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds since the Unix epoch. Never read from a clock here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Whether `text` is an RFC 3339 time with an offset, as CloudEvents asks.
    pub fn is_rfc3339(text: &str) -> bool {
        text.parse::<Self>().is_ok()
    }
}

impl Timestamp {
    /// As it is written; `None` out of the calendar's range.
    pub(crate) fn digits(self) -> Option<[u8; 27]> {
        let days = self.0.div_euclid(DAY);
        if !(FIRST_DAY..=LAST_DAY).contains(&days) {
            return None;
        }
        let (year, month, day) = date(days);
        let micros = self.0.rem_euclid(DAY);
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let pairs = [
            (0, year / 100),
            (2, year % 100),
            (5, month),
            (8, day),
            (11, seconds / 3_600),
            (14, seconds / 60 % 60),
            (17, seconds % 60),
            (20, fraction / 10_000),
            (22, fraction / 100 % 100),
            (24, fraction % 100),
        ];
        for (at, pair) in pairs {
            text[at] = b'0' + (pair / 10) as u8;
            text[at + 1] = b'0' + (pair % 10) as u8;
        }
        Some(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digits() {
            Some(text) => f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?),
            // Only a damaged clock makes this.
            None => write!(f, "{}us", self.0),
        }
    }
}

/// Microseconds of one.
const DAY: i64 = 24 * 60 * 60 * 1_000_000;
/// Days since 1970 of 0000-01-01 and 9999-12-30, the last that is whole in every zone.
const FIRST_DAY: i64 = -719_528;
const LAST_DAY: i64 = 2_932_895;

/// Year, month and day of a day since 1970, in the Gregorian calendar: counted
/// from 1 March, so that the leap day is a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970 of a date: [`date`] the other way.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

/// A time exactly as [`Timestamp`] is written; anything else is for the calendar library.
fn as_written(text: &[u8]) -> Option<i64> {
    let text: &[u8; 27] = text.try_into().ok()?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
    if separators.iter().any(|(at, byte)| text[*at] != *byte) {
        return None;
    }
    let number = |at: std::ops::Range<usize>| {
        text[at]
            .iter()
            .try_fold(0, |n, digit| digit.is_ascii_digit().then(|| n * 10 + i64::from(digit - b'0')))
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let days = days(year, month, day);
    let real = (1..=12).contains(&month) && date(days) == (year, month, day) && days <= LAST_DAY;
    let seconds = (hour < 24 && minute < 60 && second < 60).then_some(hour * 3_600 + minute * 60 + second)?;
    real.then_some(days * DAY + seconds * 1_000_000 + number(20..26)?)
}

/// The text is no RFC 3339 time with an offset.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected an RFC 3339 time such as 2026-11-24T09:30:00Z")]
pub struct NotATime;

impl FromStr for Timestamp {
    type Err = NotATime;
    fn from_str(text: &str) -> Result<Self, NotATime> {
        if let Some(micros) = as_written(text.as_bytes()) {
            return Ok(Self(micros));
        }
        // jiff accepts more than RFC 3339 (bracketed zones, week dates).
        let date = text.as_bytes();
        let shaped =
            date.len() >= 20 && date[4] == b'-' && date[7] == b'-' && matches!(date[10], b'T' | b't');
        if !shaped || text.contains('[') {
            return Err(NotATime);
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        Ok(Self(time.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_with_microseconds_and_read_back() {
        let time: Timestamp = "2026-11-24T09:30:00.123456Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-24T09:30:00.123456Z");
        assert_eq!("2026-11-24T10:30:00.123456+01:00".parse::<Timestamp>().unwrap(), time);
        for wrong in
            ["yesterday", "2026-11-24", "2026-11-24T09:30:00", "2026-11-24T09:30:00+01[Europe/Paris]"]
        {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_day_is_written_and_read_as_the_calendar_library_does() {
        let jiff = |micros| format!("{:.6}", jiff::Timestamp::from_microsecond(micros).unwrap());
        for day in (FIRST_DAY..=LAST_DAY).step_by(13).chain([FIRST_DAY, LAST_DAY, -1, 0, 59, 11_016, 19_782])
        {
            let micros = day * DAY + (day * 7_919_000_003).rem_euclid(DAY);
            let text = Timestamp(micros).to_string();
            assert_eq!(text, jiff(micros));
            assert_eq!(as_written(text.as_bytes()), Some(micros), "{text}");
        }
        for wrong in ["2026-02-29", "2026-13-01", "2026-00-10", "2026-04-31", "2026-04-00"] {
            let text = format!("{wrong}T00:00:00.000000Z");
            assert!(as_written(text.as_bytes()).is_none() && text.parse::<Timestamp>().is_err(), "{text}");
        }
        for wrong in ["24:00:00", "23:60:00"] {
            assert!(format!("2026-04-01T{wrong}.000000Z").parse::<Timestamp>().is_err(), "{wrong}");
        }
    }
}
