//! Query parameters: each is known, well-formed, or refused by its name.

use daybook_model::wire::Edge;
use daybook_model::{Filter, Invalid, Pattern, Position};
use daybook_store::{EventStore, ReadError};

/// All of `GET /v1/events`.
#[derive(Default)]
pub(super) struct EventsQuery {
    pub from: Option<Edge>,
    pub until: Option<Edge>,
    pub filter: Filter,
    pub limit: Option<u64>,
    pub reverse: bool,
}

impl EventsQuery {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut query = Self::default();
        for (name, value) in pairs(text)? {
            let pattern = || Some(Pattern(value.clone()));
            match name.as_str() {
                "from" => query.from = Some(edge("from", &value)?),
                "until" => query.until = Some(edge("until", &value)?),
                "type" => query.filter.types.get_or_insert_default().extend(pattern()),
                "subject" => query.filter.subjects.get_or_insert_default().extend(pattern()),
                "correlationid" => query.filter.correlationid = pattern(),
                "sessionid" => query.filter.sessionid = pattern(),
                "limit" => query.limit = Some(limit(&value)?),
                "reverse" => query.reverse = flag("reverse", &value)?,
                _ => return Err(unknown(&name)),
            }
        }
        query.filter.validate()?;
        Ok(query)
    }
}

pub(super) fn unknown(name: &str) -> Invalid {
    Invalid::new(name, "there is no such query parameter")
}

pub(super) fn limit(value: &str) -> Result<u64, Invalid> {
    match value.parse::<Position>() {
        Ok(limit) if limit.0 > 0 => Ok(limit.0),
        _ => Err(Invalid::new("limit", "expected a whole number above 0")),
    }
}

pub(super) fn flag(name: &str, value: &str) -> Result<bool, Invalid> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Invalid::new(name, "expected true or false")),
    }
}

pub(super) fn edge(name: &str, value: &str) -> Result<Edge, Invalid> {
    if let Ok(position) = value.parse() {
        return Ok(Edge::Position(position));
    }
    // A plus that was not encoded arrives as a space: +01:00.
    match value.replace(' ', "+").parse() {
        Ok(time) => Ok(Edge::Time { time }),
        Err(_) => {
            Err(Invalid::new(name, "expected a position such as 42 or a time such as 2026-11-24T09:30:00Z"))
        }
    }
}

pub(super) async fn resolve(
    store: &dyn EventStore,
    edge: Option<Edge>,
) -> Result<Option<Position>, ReadError> {
    match edge {
        None => Ok(None),
        Some(Edge::Position(position)) => Ok(Some(position)),
        Some(Edge::Time { time }) => store.position_at(time).await.map(Some),
    }
}

/// Decoded name–value pairs in order.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, Invalid> {
    let mut pairs = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        let name = decode(name).ok_or_else(|| Invalid::new(name, "is not percent-encoded UTF-8"))?;
        let value =
            decode(value).ok_or_else(|| Invalid::new(name.as_str(), "is not percent-encoded UTF-8"))?;
        pairs.push((name, value));
    }
    Ok(pairs)
}

pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let (&[high, low], after) = rest.split_first_chunk()?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        out.push((digit(high)? << 4 | digit(low)?) as u8);
        rest = after;
    }
    String::from_utf8(out).ok()
}

/// For `Link`: everything but unreserved characters is encoded.
pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use daybook_log::fuzz::Fuzz;

    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let odd = "läufer/☃ &=%+";
        assert_eq!(percent_decode(&percent_encode(odd)).unwrap(), odd);
        assert_eq!(percent_decode("%zz"), None);
        assert_eq!(percent_decode("%4"), None);
        assert_eq!(percent_decode("%+4"), None);
    }

    #[test]
    fn a_query_of_any_bytes_is_refused_by_name_or_taken_apart() {
        let all = "from=0&until=2026-11-24T09%3A30%3A00%2B01:00&type=H*&subject=k%2F1&correlationid=c&sessionid=s&limit=10&reverse=true";
        Fuzz::new("fuzz queries").input(all).input("limit=1&&=&reverse").input("type=a+b%20%C3%BC").run(
            3_000,
            |input| {
                let text = str::from_utf8(input).map_err(|error| error.to_string())?;
                for (name, value) in pairs(text).unwrap_or_default() {
                    assert_eq!(percent_decode(&percent_encode(&name)), Some(name));
                    assert_eq!(percent_decode(&percent_encode(&value)), Some(value));
                }
                EventsQuery::parse(text).map(drop).map_err(|invalid| invalid.reason)
            },
        );
    }

    #[test]
    fn unknown_and_malformed_parameters_are_named() {
        for (text, member) in
            [("frm=1", "frm"), ("limit=0", "limit"), ("from=-1", "from"), ("reverse=perhaps", "reverse")]
        {
            assert_eq!(EventsQuery::parse(text).err().unwrap().member, member);
        }
    }
}
