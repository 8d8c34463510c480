use std::io::{Read, Write};

use daybook_log::fuzz::Fuzz;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error};

use super::*;

const LIMIT: usize = 1_000;
const MASK: [u8; 4] = [0xa5, 0x01, 0xff, 0x3c];
const LAST: u8 = 0x80;

/// A client's frame; `first` is its first byte.
fn sent(first: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match body.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
        longer => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(longer as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(body.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn text(body: &str) -> Vec<u8> {
    sent(LAST | 1, body.as_bytes())
}

/// What is read of bytes that come in such pieces, and how it ends.
fn read(bytes: &[u8], mut piece: impl FnMut() -> usize, limit: usize) -> (Vec<String>, Option<Bad>) {
    let (mut frames, mut said, mut rest) = (Frames::new(limit), Vec::new(), bytes);
    loop {
        match frames.next() {
            Ok(Some(frame)) => said.push(format!("{frame:?}")),
            Ok(None) if rest.is_empty() => return (said, None),
            Ok(None) => {
                let (come, later) = rest.split_at(piece().clamp(1, rest.len()));
                frames.room().extend_from_slice(come);
                rest = later;
            }
            Err(bad) => return (said, Some(bad)),
        }
    }
}

fn said(bytes: &[u8]) -> Vec<String> {
    let (said, bad) = read(bytes, || usize::MAX, LIMIT);
    assert_eq!(bad, None);
    said
}

fn refusal(bytes: &[u8]) -> Bad {
    read(bytes, || usize::MAX, LIMIT).1.expect("it is refused")
}

#[test]
fn several_messages_that_come_at_once_are_read_one_by_one() {
    let bytes = [text("one"), text(""), sent(LAST | 9, b"?"), text("zwei ü")].concat();
    assert_eq!(said(&bytes), [r#"Text("one")"#, r#"Text("")"#, "Ping([63])", r#"Text("zwei ü")"#]);
}

#[test]
fn every_length_is_read_and_written_as_a_client_writes_and_reads_it() {
    for length in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 70_000] {
        let body = "x".repeat(length);
        let (said, bad) = read(&text(&body), || 4_096, 1 << 20);
        assert_eq!((said, bad), (vec![format!("{:?}", Frame::Text(&body))], None));
        let mut out = b"before".to_vec();
        write(&mut out, Opcode::Text, |out| out.extend_from_slice(body.as_bytes()));
        let mut client = WebSocket::from_raw_socket(Bytes(&out[6..]), Role::Client, None);
        assert_eq!(client.read().unwrap(), Message::text(body));
    }
}

#[test]
fn a_control_frame_within_the_pieces_of_a_message_is_read_first() {
    let pieces = [sent(1, "f\u{fc}".as_bytes().split_at(2).0), sent(LAST | 9, b"ping")].concat();
    let bytes = [pieces, sent(0, &[0xbc]), sent(LAST | 10, b""), sent(LAST, b"nf"), text("6")].concat();
    assert_eq!(said(&bytes), ["Ping([112, 105, 110, 103])", "Pong", r#"Text("fünf")"#, r#"Text("6")"#]);
}

#[test]
fn binary_messages_are_told_from_text_in_pieces_too() {
    let bytes = [sent(LAST | 2, &[0xff]), sent(2, &[0xff]), sent(LAST, &[0xfe]), text("t")].concat();
    assert_eq!(said(&bytes), ["Binary", "Binary", r#"Text("t")"#]);
}

#[test]
fn what_a_client_may_not_send_is_refused() {
    let mut unmasked = Vec::new();
    write(&mut unmasked, Opcode::Text, |out| out.push(b'x'));
    let wide = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &MASK].concat();
    let cases = [
        ("masked", unmasked),
        ("reserved", sent(0xc1, b"x")),
        ("reserved", sent(0xa1, b"x")),
        ("reserved", sent(0x91, b"x")),
        ("opcode", sent(LAST | 3, b"")),
        ("opcode", sent(LAST | 11, b"")),
        ("control", sent(9, b"in pieces")),
        ("control", sent(LAST | 9, &[0; 126])),
        ("continuation of nothing", sent(LAST, b"x")),
        ("another one's pieces", [sent(1, b"x"), text("y")].concat()),
        ("63 bits", wide(1 << 63)),
        ("half a close code", sent(LAST | 8, &[3])),
        ("may not be sent", sent(LAST | 8, &1005u16.to_be_bytes())),
        ("may not be sent", sent(LAST | 8, &999u16.to_be_bytes())),
        ("may not be sent", sent(LAST | 8, &5000u16.to_be_bytes())),
    ];
    for (why, bytes) in cases {
        let bad = refusal(&bytes);
        assert!(matches!(bad, Bad::Protocol(said) if said.contains(why)), "{why}: {bad:?}");
        assert_eq!(bad.close().0, close::PROTOCOL);
    }
}

#[test]
fn a_length_may_be_written_longer_than_need_be() {
    let two = [&[0x81, 0xfe, 0, 1][..], &[0; 4], b"a"].concat();
    let eight = [&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 4], b"b"].concat();
    assert_eq!(said(&[two, eight].concat()), [r#"Text("a")"#, r#"Text("b")"#]);
}

#[test]
fn text_that_is_not_utf8_is_refused_in_pieces_and_as_a_reason_too() {
    assert_eq!(refusal(&sent(LAST | 1, &[0xc3])), Bad::NotUtf8);
    assert_eq!(refusal(&[sent(1, &[0xc3]), sent(LAST, b"x")].concat()), Bad::NotUtf8);
    assert_eq!(refusal(&sent(LAST | 8, &[3, 0xe8, 0xff])), Bad::NotUtf8);
}

#[test]
fn a_message_beyond_the_limit_is_refused_before_it_has_come() {
    let whole = sent(LAST | 1, &[b'x'; LIMIT]);
    assert_eq!(said(&whole).len(), 1);
    let one_more = sent(LAST | 1, &[b'x'; LIMIT + 1]);
    assert_eq!(refusal(&one_more[..8]), Bad::TooLarge);
    let pieces = [sent(1, &[b'x'; LIMIT - 1]), sent(LAST, b"yz")].concat();
    assert_eq!(refusal(&pieces[..pieces.len() - 2]), Bad::TooLarge);
    let huge = [&[0x81, 0xff][..], &(i64::MAX as u64).to_be_bytes(), &MASK].concat();
    assert_eq!(refusal(&huge), Bad::TooLarge);
}

#[test]
fn a_goodbye_is_read_with_and_without_a_code() {
    assert_eq!(said(&sent(LAST | 8, b"")), ["Close(None)"]);
    assert_eq!(said(&sent(LAST | 8, b"\x03\xe9bye")), ["Close(Some(1001))"]);
    assert_eq!(said(&sent(LAST | 8, &4999u16.to_be_bytes())), ["Close(Some(4999))"]);
}

#[test]
fn a_goodbye_is_written_with_as_much_of_the_reason_as_fits() {
    let mut out = Vec::new();
    write_close(&mut out, close::POLICY, &"ü".repeat(100));
    assert_eq!(out[..4], [0x88, 124, 0x03, 0xf0]);
    assert_eq!(std::str::from_utf8(&out[4..]).unwrap(), "ü".repeat(61));
}

#[test]
fn memory_is_taken_for_what_has_come_and_given_back() {
    let mut frames = Frames::new(64 << 20);
    let header = [&[0x81, 0xff][..], &(64u64 << 20).to_be_bytes(), &MASK].concat();
    frames.room().extend_from_slice(&header);
    assert_eq!(frames.next(), Ok(None));
    assert!(frames.room().capacity() < 3 * KEPT_BYTES);
    let mut frames = Frames::new(64 << 20);
    for piece in text(&"x".repeat(1 << 20)).chunks(READ_BYTES) {
        frames.room().extend_from_slice(piece);
        let _ = frames.next();
    }
    assert!(frames.room().capacity() <= KEPT_BYTES);
    assert_eq!(frames.next(), Ok(None));
}

/// Bytes for the library that reads them in its own way.
struct Bytes<'a>(&'a [u8]);

impl Read for Bytes<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Bytes<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The messages that the library finds, pings and pongs left out, and its error.
fn by_the_library(bytes: &[u8]) -> (Vec<String>, Option<Error>) {
    let config = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let mut server = WebSocket::from_raw_socket(Bytes(bytes), Role::Server, Some(config));
    let mut said = Vec::new();
    loop {
        match server.read() {
            Ok(Message::Text(text)) => said.push(format!("{:?}", Frame::Text(text.as_str()))),
            Ok(Message::Binary(_)) => said.push("Binary".into()),
            Ok(Message::Close(_)) => return (said, None),
            Ok(_) => {}
            // The end of the bytes.
            Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return (said, None);
            }
            Err(error) => return (said, Some(error)),
        }
    }
}

#[test]
fn any_bytes_are_read_alike_in_any_pieces_and_as_the_library_reads_them() {
    let corpus = [
        text(r#"{"op":"hello"}"#),
        [sent(1, b"a"), sent(LAST | 9, b"p"), sent(0, b"b"), sent(LAST, b"c"), text("d")].concat(),
        [text("x"), sent(LAST | 8, b"\x03\xe8bye"), text("y")].concat(),
        [sent(LAST | 2, &[0xff; 130]), sent(LAST | 10, b""), sent(LAST | 1, "ü".as_bytes())].concat(),
        [sent(1, &[0xc3]), sent(LAST, &[0xbc]), sent(LAST | 1, &[b'x'; LIMIT])].concat(),
        [&[0x81, 0xff][..], &66_000u64.to_be_bytes(), &MASK].concat(),
    ];
    let fuzz = corpus.into_iter().fold(Fuzz::new("fuzz frames"), Fuzz::input);
    fuzz.run(20_000, |input| {
        let (all, bad) = read(input, || usize::MAX, LIMIT);
        assert_eq!((&all, &bad), (&read(input, || 1, LIMIT).0, &read(input, || 1, LIMIT).1));
        let mut pieces = input.iter().rev().cycle();
        let any = read(input, || usize::from(*pieces.next().expect("it has bytes")), LIMIT);
        assert_eq!((&all, &bad), (&any.0, &any.1));
        // After a goodbye nothing counts.
        let end = all.iter().position(|said| said.starts_with("Close")).unwrap_or(all.len());
        let messages: Vec<_> = all[..end].iter().filter(|said| !said.starts_with('P')).cloned().collect();
        let (theirs, error) = by_the_library(input);
        assert!(theirs.starts_with(&messages), "{messages:?} and not {theirs:?} ({error:?})");
        // It is less strict, and never the other way round.
        if bad.is_none() || end < all.len() {
            assert_eq!(messages, theirs, "{error:?}");
        }
        bad.map_or(Ok(()), |bad| Err(bad.close().1.into()))
    });
}
