//! RFC 6455 over a real socket: the handshake, pings, goodbyes, and clients that
//! break the rules. What a frame may look like is tested where it is read.

use std::time::Duration;

use daybook_server::{Config, Server};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const HELLO: &str = r#"{"op":"hello","id":1,"service":"test"}"#;
const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";

async fn server() -> (Server, tempfile::TempDir) {
    server_with(1).await
}

async fn server_with(session_threads: usize) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path().join("log")).listen("127.0.0.1:0".parse().unwrap());
    (daybook_server::start(Config { session_threads, ..config }).await.unwrap(), dir)
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(server: &Server) -> Socket {
    connect_async(format!("ws://{}/v1/ws", server.local_addr())).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(20), socket.next()).await;
    next.expect("no answer").expect("the end").unwrap()
}

/// Everything that is answered to these bytes until the server hangs up.
async fn exchange(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer));
    end.await.expect("the connection does not end").unwrap();
    answer
}

fn upgrade(headers: &[&str]) -> Vec<u8> {
    format!("GET /v1/ws HTTP/1.1\r\nhost: d\r\n{}\r\n\r\n", headers.join("\r\n")).into_bytes()
}

const RIGHT: [&str; 4] =
    ["connection: keep-alive, Upgrade", "upgrade: WebSocket", "sec-websocket-version: 13", KEY];

#[tokio::test]
async fn what_comes_together_with_the_handshake_is_read() {
    for session_threads in [0, 1] {
        let (server, _dir) = server_with(session_threads).await;
        let mut bytes = upgrade(&RIGHT);
        bytes.extend([0x81, 0x80 | HELLO.len() as u8, 0, 0, 0, 0]);
        bytes.extend(HELLO.as_bytes());
        let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
        socket.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains(r#""op":"welcome""#) {
            let more = tokio::time::timeout(Duration::from_secs(20), socket.read_buf(&mut answer));
            let bytes = more.await.expect("no welcome").unwrap();
            assert!(bytes > 0, "{session_threads} threads: {}", String::from_utf8_lossy(&answer));
        }
    }
}

#[tokio::test]
async fn a_request_that_asks_for_no_websocket_is_told_what_is_wrong() {
    let (server, _dir) = server().await;
    let wrong = [
        (0, "connection: close", "Connection: upgrade"),
        (1, "upgrade: h2c", "Upgrade: websocket"),
        (2, "sec-websocket-version: 8", "version here is 13"),
        (3, "sec-websocket-key: c2hvcnQ=", "16 bytes"),
        (3, "sec-websocket-key: ?", "16 bytes"),
    ];
    for (at, header, why) in wrong {
        let mut headers = RIGHT.to_vec();
        headers[at] = header;
        headers.push("connection: close");
        let answer = exchange(&server, &upgrade(&headers)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains(why) && answer.contains("sec-websocket-version: 13"), "{answer}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn the_handshake_proves_that_the_key_was_read_and_frames_may_come_with_it() {
    let (server, _dir) = server().await;
    // A goodbye in the same bytes, masked with nothing.
    let bytes = [upgrade(&RIGHT), vec![0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]].concat();
    let answer = exchange(&server, &bytes).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    // The example of RFC 6455.
    assert!(text.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
    assert!(!text.contains("sec-websocket-protocol"), "{text}");
    assert_eq!(answer[answer.len() - 4..], [0x88, 2, 0x03, 0xe9]);
    server.shutdown().await;
}

#[tokio::test]
async fn a_ping_gets_back_what_it_brought_before_and_after_the_hello() {
    let (server, _dir) = server().await;
    let mut socket = open(&server).await;
    for body in ["before", "after"] {
        socket.send(Message::Ping(body.into())).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::Pong(body.into()));
        if body == "before" {
            socket.send(Message::text(HELLO)).await.unwrap();
            assert!(next(&mut socket).await.into_text().unwrap().contains("welcome"));
        }
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_message_in_pieces_with_a_ping_between_them_is_one_message() {
    let (server, _dir) = server().await;
    let mut socket = open(&server).await;
    let piece =
        |text: &'static str, opcode, last| Message::Frame(Frame::message(text, OpCode::Data(opcode), last));
    let (first, last) = HELLO.split_at(20);
    socket.send(piece(first, Data::Text, false)).await.unwrap();
    socket.send(Message::Ping("?".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("?".into()));
    socket.send(piece(last, Data::Continue, true)).await.unwrap();
    assert!(next(&mut socket).await.into_text().unwrap().contains("welcome"));
    server.shutdown().await;
}

#[tokio::test]
async fn a_goodbye_is_answered_with_its_code() {
    let (server, _dir) = server().await;
    for said_hello in [false, true] {
        let mut socket = open(&server).await;
        if said_hello {
            socket.send(Message::text(HELLO)).await.unwrap();
            next(&mut socket).await;
        }
        let bye = CloseFrame { code: 3_456.into(), reason: "that is all".into() };
        socket.close(Some(bye)).await.unwrap();
        match next(&mut socket).await {
            Message::Close(Some(answer)) => assert_eq!(u16::from(answer.code), 3_456),
            other => panic!("{other:?}"),
        }
        assert!(socket.next().await.is_none());
    }
    server.shutdown().await;
}

#[tokio::test]
async fn whoever_breaks_the_rules_is_told_which_and_the_others_are_served_on() {
    let (server, _dir) = server().await;
    let mut other = open(&server).await;
    let unmasked = b"\x81\x02{}".to_vec();
    let no_text = vec![0x81, 0x81, 0, 0, 0, 0, 0xff];
    for (bytes, code, why) in [(unmasked, 1002, "masked"), (no_text, 1007, "UTF-8")] {
        let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
        socket.write_all(&[upgrade(&RIGHT), bytes].concat()).await.unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains(why) {
            let read = tokio::time::timeout(Duration::from_secs(20), socket.read_buf(&mut answer));
            assert_ne!(read.await.expect("no goodbye").unwrap(), 0, "{}", answer.escape_ascii());
        }
        let head = answer.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
        let goodbye = &answer[head..];
        assert_eq!((goodbye[0], &goodbye[2..4]), (0x88, &u16::to_be_bytes(code)[..]));
    }
    other.send(Message::text(HELLO)).await.unwrap();
    assert!(next(&mut other).await.into_text().unwrap().contains("welcome"));
    server.shutdown().await;
}
