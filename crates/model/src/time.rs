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

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.6}"),
            // Out of the calendar's range: only a damaged clock makes this.
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// The text is no RFC 3339 time with an offset.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected an RFC 3339 time such as 2026-11-24T09:30:00Z")]
pub struct NotATime;

impl FromStr for Timestamp {
    type Err = NotATime;
    fn from_str(text: &str) -> Result<Self, NotATime> {
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
}
