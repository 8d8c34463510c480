//! JSON that is carried, not taken apart.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::value::RawValue;

/// Well-formed JSON, byte for byte as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(Box<str>);

impl JsonText {
    /// Checks `text`; white space around it is dropped.
    pub fn from_string(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self::from)
    }

    /// Without a check: for text that had one and is known to be unchanged, by
    /// a checksum for instance. Anything else would make frames that are no JSON.
    pub fn known_good(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    pub fn get(&self) -> &str {
        &self.0
    }
}

impl From<Box<RawValue>> for JsonText {
    fn from(raw: Box<RawValue>) -> Self {
        Self(raw.into())
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where speed matters it is written by hand: serde wants it checked again.
impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::from)
    }
}

/// Whether arrays and objects nest deeper than `limit` anywhere in `json`,
/// which must be well-formed.
pub(crate) fn deeper_than(json: &str, limit: usize) -> bool {
    // n levels need n opening brackets, wherever they stand: nearly all data is
    // told by counting, which is much faster than following it.
    // In runs that a byte can count, so that many are compared at once.
    let opening = |run: &[u8]| run.iter().map(|byte| u8::from(matches!(byte, b'[' | b'{'))).sum::<u8>();
    if json.as_bytes().chunks(128).map(|run| usize::from(opening(run))).sum::<usize>() <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::deeper_than;

    #[test]
    fn every_bracket_is_counted_however_many_there_are() {
        for depth in [1, 127, 128, 129, 255, 256, 257, 1_000] {
            let json = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            assert!(deeper_than(&json, depth - 1) && !deeper_than(&json, depth), "{depth}");
        }
    }

    #[test]
    fn brackets_inside_strings_do_not_nest() {
        assert!(!deeper_than(r#"["[[[[\"[[[[", 1]"#, 3));
        assert!(deeper_than("[[[[1]]]]", 3));
        assert!(!deeper_than("[[[[1]]]]", 4));
    }
}
