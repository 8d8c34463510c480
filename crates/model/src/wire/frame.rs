//! Taking frames apart and putting them together.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::write::{Written, list};
use crate::Invalid;

/// A message that cannot be read, with the request number if it has one, so
/// that the answer finds its way.
#[derive(Debug)]
pub struct Malformed {
    pub id: Option<u64>,
    pub invalid: Invalid,
}

/// What decides how the rest is read.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    op: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

/// Reads all messages of a frame with `parse`, one verdict each.
pub fn messages<'a, T>(frame: &'a str, mut each: impl FnMut(Result<T, Malformed>))
where
    T: Message<'a>,
{
    if frame.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('[') {
        match serde_json::from_str::<Vec<&'a RawValue>>(frame) {
            Ok(list) => list.iter().for_each(|raw| each(message(raw.get()))),
            Err(error) => {
                each(Err(Malformed { id: None, invalid: Invalid::new("", format!("no JSON: {error}")) }))
            }
        }
    } else {
        each(message(frame));
    }
}

/// One direction's messages.
pub trait Message<'a>: Sized {
    /// Reads the message whose `op` is `op`; `None` if there is no such op.
    fn parse(op: &str, json: &'a str) -> Option<Result<Self, Invalid>>;
}

fn message<'a, T: Message<'a>>(json: &'a str) -> Result<T, Malformed> {
    // Nearly everybody begins with `op`: then one reading is enough. What does
    // not fit is read again below, to tell why.
    if let Some((op, _)) = json.strip_prefix("{\"op\":\"").and_then(|rest| rest.split_once('"'))
        && let Some(Ok(message)) = T::parse(op, json)
    {
        return Ok(message);
    }
    let probe: Probe<'_> = serde_json::from_str(json).map_err(|error| {
        let reason =
            if error.is_data() { "expected a JSON object".into() } else { format!("no JSON: {error}") };
        Malformed { id: None, invalid: Invalid::new("", reason) }
    })?;
    let id = probe.id.and_then(|raw| raw.get().parse().ok());
    let refuse = |member: &str, reason: String| Malformed { id, invalid: Invalid::new(member, reason) };
    let op: Cow<'_, str> = match probe.op.map(|raw| Text::from_json(raw.get())) {
        Some(Some(op)) => op,
        Some(None) => return Err(refuse("op", "expected a string".into())),
        None => return Err(refuse("op", "is missing".into())),
    };
    match T::parse(&op, json) {
        Some(Ok(message)) => Ok(message),
        Some(Err(invalid)) => Err(Malformed { id, invalid }),
        None => {
            let shown: String = op.chars().take(40).collect();
            Err(refuse("op", format!("there is no operation `{shown}`")))
        }
    }
}

struct Text;

impl Text {
    fn from_json(json: &str) -> Option<Cow<'_, str>> {
        match serde_json::from_str::<&str>(json) {
            Ok(text) => Some(Cow::Borrowed(text)),
            Err(_) => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
        }
    }
}

/// Reads one JSON value; a failure is read again, slower, to name the member.
pub fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Invalid> {
    serde_json::from_str(json).map_err(|_| diagnose::<T>(json))
}

#[cold]
fn diagnose<'a, T: Deserialize<'a>>(json: &'a str) -> Invalid {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => {
            let path = error.path().to_string();
            // `?` is where the text ends before its member does.
            let member = if path == "." || path == "?" { String::new() } else { path };
            let mut reason = error.inner().to_string();
            if let Some(at) = reason.rfind(" at line ") {
                reason.truncate(at);
            }
            Invalid::new(member, reason)
        }
        Ok(_) => Invalid::new("", "trailing characters"),
    }
}

/// Appends messages as one frame: an object alone, an array of several.
pub fn write_frame<T: Written>(messages: &[T], out: &mut Vec<u8>) {
    match messages {
        [one] => one.write(out),
        many => list(out, many, |out, message| message.write(out)),
    }
}

/// Declares one direction's messages: the enum, its `op` names, its reading.
macro_rules! directed {
    ($(#[$doc:meta])* $name:ident { $($op:literal => $variant:ident($body:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(tag = "op")]
        pub enum $name {
            $(#[serde(rename = $op)] $variant($body),)*
        }

        impl $name {
            /// Every operation of this direction.
            pub const OPS: &'static [&'static str] = &[$($op),*];
        }

        impl $crate::wire::frame::Message<'_> for $name {
            fn parse(op: &str, json: &str) -> Option<Result<Self, $crate::Invalid>> {
                if let Some(message) = $crate::wire::expected::Expected::expected(op, json) {
                    return Some(Ok(message));
                }
                match op {
                    $($op => Some($crate::wire::frame::read(json).map(Self::$variant)),)*
                    _ => None,
                }
            }
        }

        $(impl From<$body> for $name {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        })*
    };
}
pub(super) use directed;
