//! From an HTTP request to a socket: who may have one, and RFC 6455's handshake.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use daybook_model::wire::SUBPROTOCOL;
use daybook_model::{Code, Problem};
use hyper::upgrade::OnUpgrade;
use sha1::{Digest, Sha1};

use super::session;
use super::socket::Socket;
use crate::error::Refused;
use crate::state::Shared;

const VERSION: &str = "13";
/// What RFC 6455 has a server add to the key.
const ACCEPTED: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(crate) async fn upgrade(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let headers = request.headers();
    let checked = handshake(headers).and_then(|accept| {
        permitted(headers)?;
        Ok((accept, headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL)))
    });
    let (accept, protocol) = match checked {
        Ok(accepted) => accepted,
        Err(problem) => return refused(problem),
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return refused(invalid("this connection cannot become a WebSocket"));
    };
    tokio::spawn(async move {
        // Whoever hangs up before never had a session.
        let Ok(upgraded) = upgrade.await else { return };
        let Ok(socket) = Socket::new(upgraded) else { return };
        let lane = shared.lanes.next().filter(|_| socket.can_move()).cloned();
        let session = session::run(shared, socket);
        match lane {
            Some(lane) => drop(lane.spawn(session)),
            None => session.await,
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    *response.body_mut() = Body::empty();
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if protocol {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

/// What the client is to see as a proof that it was understood.
fn handshake(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let lists = |name: HeaderName, word: &str| {
        let values = headers.get_all(name);
        let mut words = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        words.any(|listed| listed.trim().eq_ignore_ascii_case(word))
    };
    if !lists(header::CONNECTION, "upgrade") || !lists(header::UPGRADE, "websocket") {
        return Err(invalid("this is a WebSocket: it takes `Connection: upgrade`, `Upgrade: websocket`"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(invalid("the WebSocket version here is 13 (`Sec-WebSocket-Version`)"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(invalid("`Sec-WebSocket-Key` must be 16 bytes in base64"));
    }
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPTED).finalize());
    Ok(HeaderValue::from_str(&accept).expect("base64 is ASCII"))
}

fn permitted(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(offered) = headers.get(header::SEC_WEBSOCKET_PROTOCOL) {
        let known = offered.to_str().is_ok_and(|list| list.split(',').any(|p| p.trim() == SUBPROTOCOL));
        if !known {
            return Err(invalid(format!("the subprotocol here is {SUBPROTOCOL}")));
        }
    }
    if foreign_origin(headers) {
        return Err(Problem::new(Code::Forbidden, "a page of another origin may not open this socket"));
    }
    Ok(())
}

/// Browsers name the page's origin; programs do not. A page from elsewhere must
/// not reach a bus that listens on loopback without a password.
fn foreign_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let origin_host = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, host)| host);
    host.is_none() || origin_host != host
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Invalid, detail)
}

/// Tells the version too, as RFC 6455 wants it told to whoever speaks another.
fn refused(problem: Problem) -> Response {
    let mut response = Refused(problem).into_response();
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
    response
}
