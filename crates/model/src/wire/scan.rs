//! JSON taken apart by somebody who knows what comes: no member is looked up,
//! texts stay where they are.
//!
//! # Promises
//! Whatever is taken is well-formed and means what serde would have read. `None`
//! says nothing about the input but that it is not what was expected: then it is
//! for serde, which also finds out what is wrong.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::event::Place;

pub(super) struct Scan<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    pub fn new(json: &'a str) -> Self {
        Self { json, at: 0 }
    }

    pub fn is_over(&self) -> bool {
        self.at == self.json.len()
    }

    pub fn rest(&self) -> &'a str {
        &self.json[self.at..]
    }

    pub fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    #[inline(always)]
    pub fn has(&mut self, expected: &str) -> bool {
        let has = self.bytes().starts_with(expected.as_bytes());
        if has {
            self.at += expected.len();
        }
        has
    }

    #[inline(always)]
    pub fn literal(&mut self, expected: &str) -> Option<()> {
        self.has(expected).then_some(())
    }

    /// A text whose opening quote is taken already.
    #[inline]
    pub fn text(&mut self) -> Option<Cow<'a, str>> {
        let (start, end) = (self.at, self.at + stop(self.bytes()));
        match self.json.as_bytes().get(end)? {
            b'"' => {
                self.at = end + 1;
                Some(Cow::Borrowed(&self.json[start..end]))
            }
            b'\\' => {
                self.at = start - 1;
                self.owned().map(Cow::Owned)
            }
            _ => None,
        }
    }

    /// Where a text lies whose opening quote is taken already, if it has no escapes.
    #[inline]
    pub fn place(&mut self) -> Option<Place> {
        let (start, end) = (self.at, self.at + stop(self.bytes()));
        self.at = end;
        self.literal("\"")?;
        Place::new(start, end)
    }

    /// Where a text lies after `name`, if that comes next.
    #[inline(always)]
    pub fn optional_place(&mut self, name: &str) -> Option<Option<Place>> {
        if self.has(name) { self.place().map(Some) } else { Some(None) }
    }

    /// Where any value lies, as it is written.
    pub fn value_place(&mut self) -> Option<Place> {
        let start = self.at;
        self.value()?;
        Place::new(start, self.at)
    }

    /// A text after `name`, if that comes next.
    #[inline(always)]
    pub fn optional(&mut self, name: &str) -> Option<Option<Cow<'a, str>>> {
        if self.has(name) { self.text().map(Some) } else { Some(None) }
    }

    /// A number as a text whose opening quote is taken already.
    pub fn decimal(&mut self) -> Option<u64> {
        let number = self.integer()?;
        self.literal("\"").map(|()| number)
    }

    /// A whole number without sign or leading zero.
    pub fn integer(&mut self) -> Option<u64> {
        let bytes = self.bytes();
        let mut number: u64 = 0;
        let mut digits = 0;
        while let Some(digit @ b'0'..=b'9') = bytes.get(digits) {
            number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            digits += 1;
        }
        self.at += digits;
        (digits == 1 || digits > 1 && bytes[0] != b'0').then_some(number)
    }

    /// Any value, as it is written.
    pub fn value(&mut self) -> Option<&'a str> {
        let start = self.at;
        if is_space(self.peek()?) {
            return None;
        }
        // A bit for every bracket that is open, set for an object's.
        let (mut objects, mut depth) = (0_u128, 0);
        loop {
            self.space();
            let opened = match self.peek()? {
                b'"' => {
                    self.at += 1;
                    self.pass_text()?;
                    false
                }
                b'{' => {
                    self.at += 1;
                    self.space();
                    let any = !self.has("}");
                    if any {
                        self.pass_name()?;
                        objects = objects << 1 | 1;
                    }
                    any
                }
                b'[' => {
                    self.at += 1;
                    self.space();
                    let any = !self.has("]");
                    if any {
                        objects <<= 1;
                    }
                    any
                }
                b't' => self.literal("true").map(|()| false)?,
                b'f' => self.literal("false").map(|()| false)?,
                b'n' => self.literal("null").map(|()| false)?,
                _ => self.pass_number().map(|()| false)?,
            };
            if opened {
                depth += 1;
                if depth > DEPTH_MAX {
                    return None;
                }
                continue;
            }
            loop {
                if depth == 0 {
                    return Some(&self.json[start..self.at]);
                }
                self.space();
                let in_object = objects & 1 == 1;
                let next = self.peek()?;
                self.at += 1;
                match (next, in_object) {
                    (b',', true) => {
                        self.space();
                        self.pass_name()?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => {
                        objects >>= 1;
                        depth -= 1;
                    }
                    _ => return None,
                }
            }
        }
    }

    /// What `take` takes, or else what serde reads here.
    pub fn or_by_serde<T: Deserialize<'a>>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let start = self.at;
        take(self).or_else(|| {
            self.at = start;
            self.by_serde()
        })
    }

    fn by_serde<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }

    #[cold]
    fn owned<T: DeserializeOwned>(&mut self) -> Option<T> {
        self.by_serde()
    }

    #[inline(always)]
    fn bytes(&self) -> &'a [u8] {
        &self.json.as_bytes()[self.at..]
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    #[inline(always)]
    fn space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    /// A member's name and the colon behind it.
    fn pass_name(&mut self) -> Option<()> {
        self.literal("\"")?;
        self.pass_text()?;
        self.space();
        self.literal(":")
    }

    fn pass_text(&mut self) -> Option<()> {
        loop {
            self.at += stop(self.bytes());
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {}
                _ => return None,
            }
            let escaped = self.peek()?;
            self.at += 1;
            match escaped {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let digits: &[u8; 4] = self.bytes().first_chunk()?;
                    digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                    self.at += digits.len();
                }
                _ => return None,
            }
        }
    }

    fn pass_number(&mut self) -> Option<()> {
        self.has("-");
        match self.pass_digits()? {
            b'0' => {}
            b'1'..=b'9' => while self.pass_digits().is_some() {},
            _ => return None,
        }
        if self.has(".") {
            self.pass_digits()?;
            while self.pass_digits().is_some() {}
        }
        if self.has("e") || self.has("E") {
            if !self.has("-") {
                self.has("+");
            }
            self.pass_digits()?;
            while self.pass_digits().is_some() {}
        }
        Some(())
    }

    /// One of them.
    #[inline(always)]
    fn pass_digits(&mut self) -> Option<u8> {
        let digit = self.peek().filter(u8::is_ascii_digit)?;
        self.at += 1;
        Some(digit)
    }
}

/// Brackets that one number has bits for: what nests deeper is for serde.
const DEPTH_MAX: u32 = u128::BITS;

#[inline(always)]
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
}

/// How many bytes of a text come before its end, an escape or what must not be
/// in it: eight at a time.
#[inline(always)]
fn stop(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // The lowest byte that is marked is one indeed; a borrow may mark those above it.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk().map(|word| u64::from_le_bytes(*word)) {
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let escape = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = (below(word, b' ') | quote | escape) & TOPS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let ends = |byte: &u8| matches!(byte, 0..b' ' | b'"' | b'\\');
    at + bytes[at..].iter().position(ends).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    /// As serde would take the beginning of it; a value that goes on is none.
    fn by_serde(json: &str) -> Option<&str> {
        serde_json::from_str::<&RawValue>(json).ok().map(RawValue::get)
    }

    fn by_hand(json: &str) -> Option<&str> {
        let mut scan = Scan::new(json);
        scan.value().filter(|_| scan.is_over())
    }

    #[test]
    fn a_value_is_taken_if_and_only_if_it_is_json() {
        let whole = r#"{"a":[1,-0.5e+3,true,null,{}, [ ] ,"\u00e9\"\\\/\b\f\n\r\tl\u00c4ufer ☃ 12345678"],"":{"x":0}}"#;
        assert_eq!(by_hand(whole), Some(whole));
        // Every byte of it left out, cut off before, and replaced by others.
        for at in (0..whole.len()).filter(|at| whole.is_char_boundary(*at)) {
            let (before, after) = whole.split_at(at);
            let mut rest = after.chars();
            rest.next();
            let mut inputs = vec![before.to_owned(), format!("{before}{}", rest.as_str())];
            for other in [
                '"', '\\', '0', '9', '-', '.', 'e', '+', ',', ':', '{', '}', '[', ']', ' ', '\n', '\u{1}',
                'u', 'ä',
            ] {
                inputs.push(format!("{before}{other}{}", rest.as_str()));
                inputs.push(format!("{before}{other}{after}"));
            }
            for input in inputs {
                let expected = by_serde(&input).filter(|taken| *taken == input);
                assert_eq!(by_hand(&input), expected, "{input}");
            }
        }
    }

    #[test]
    fn numbers_are_what_json_says_they_are() {
        for number in [
            "0",
            "-0",
            "01",
            "-",
            "1.",
            ".1",
            "1e",
            "1e+",
            "1e5",
            "1E-05",
            "0.0",
            "00",
            "1.5.2",
            "+1",
            "1e999999",
            "12345678901234567890123",
        ] {
            assert_eq!(by_hand(number), by_serde(number), "{number}");
        }
    }

    #[test]
    fn what_nests_too_deeply_is_left_to_serde() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(by_hand(&nested(129)).is_some() && by_hand(&nested(130)).is_none());
    }

    #[test]
    fn a_text_ends_where_it_ends_at_every_length() {
        for len in 0..40 {
            for (inside, text) in [("", "x".repeat(len)), ("\\n", format!("{}\n", "ä".repeat(len)))] {
                let json = format!("\"{}{inside}\" and more", text.trim_end_matches('\n'));
                let mut scan = Scan::new(&json);
                assert!(scan.has("\""));
                assert_eq!(scan.text().as_deref(), Some(text.as_str()));
                assert_eq!(scan.rest(), " and more");
            }
            let mut scan = Scan::new("\"");
            assert!(scan.has("\"") && scan.text().is_none());
            let broken = format!("\"{}\u{1f}\"", "x".repeat(len));
            let mut scan = Scan::new(&broken);
            assert!(scan.has("\"") && scan.text().is_none());
        }
    }

    #[test]
    fn only_canonical_numbers_are_taken() {
        for (json, number) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("01", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(Scan::new(json).integer(), number, "{json}");
        }
    }
}
