//! The web server in front of the scripts' routes.

mod admin;
pub(crate) mod outgoing;
pub(crate) mod routes;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use daybook_client::Item;
use daybook_model::wire::Start;
use daybook_model::{Filter, Position};
use futures_util::stream;
use tokio::sync::oneshot;

use crate::StartError;
use crate::engine::instance::Job;
use crate::host::Directory;
use crate::machine::{Route, RouteKey};

/// Larger bodies are refused.
const BODY_BYTES_MAX: usize = 1 << 20;
/// A route that does not answer by then has lost its caller.
const ROUTE_DEADLINE: Duration = Duration::from_secs(30);

/// Names the unit of work of which a request is part.
const CORRELATION: &str = "daybook-correlationid";
/// How many services wait for this one's answer, one for another.
const DEPTH: &str = "daybook-depth";

/// Paths of the host itself; no script has such a route.
const ADMIN: &str = "/-/";
const RELOAD: &str = "daybook-reload";

/// A request on its way to a script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Incoming {
    pub method: String,
    pub path: String,
    pub params: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub json: Option<serde_json::Value>,
    pub correlation: Option<String>,
    /// Services that wait for this answer, one for another.
    pub depth: u32,
}

/// What a script answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    /// `None`: nothing, as a stream skips an event.
    pub body: Option<serde_json::Value>,
    pub is_problem: bool,
    pub headers: Vec<(String, String)>,
}

impl Answer {
    pub fn problem(status: u16, code: &str, detail: &str) -> Self {
        let body = serde_json::json!({ "type": "about:blank", "title": code, "status": status, "code": code, "detail": detail });
        Self { status, body: Some(body), is_problem: true, headers: Vec::new() }
    }

    /// Says more about a problem.
    fn add(&mut self, why: &str) {
        if let Some(detail) = self.body.as_mut().and_then(|body| body.get_mut("detail")) {
            *detail = format!("{}; {why}", detail.as_str().unwrap_or_default()).into();
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = if self.is_problem { "application/problem+json" } else { "application/json" };
        let body = self.body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        for (name, value) in self.headers {
            // They were looked at when the script gave them.
            if let (Ok(name), Ok(value)) =
                (header::HeaderName::try_from(name), header::HeaderValue::try_from(value))
            {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// All routes of all services.
#[derive(Default)]
pub(crate) struct Table(Vec<Entry>);

struct Entry {
    service: String,
    /// Finds the route in whatever machine runs it: a script may be swapped meanwhile.
    key: RouteKey,
    method: String,
    segments: Vec<Segment>,
    stream: Option<Vec<String>>,
}

enum Segment {
    Fixed(String),
    Named(String),
}

impl Table {
    pub fn add(&mut self, service: &str, route: &Route) -> Result<(), StartError> {
        let segments: Vec<Segment> = route
            .path
            .split('/')
            .skip(1)
            .map(|segment| match segment.strip_prefix(':') {
                Some(name) => Segment::Named(name.to_owned()),
                None => Segment::Fixed(segment.to_owned()),
            })
            .collect();
        let shape = |segments: &[Segment]| -> Vec<Option<String>> {
            let name = |segment: &Segment| match segment {
                Segment::Fixed(text) => Some(text.clone()),
                Segment::Named(_) => None,
            };
            segments.iter().map(name).collect()
        };
        let twin = self
            .0
            .iter()
            .find(|known| known.method == route.method && shape(&known.segments) == shape(&segments));
        if let Some(twin) = twin {
            return Err(StartError::Route {
                route: format!("{} {}", route.method, route.path),
                first: twin.service.clone(),
                second: service.to_owned(),
            });
        }
        self.0.push(Entry {
            service: service.to_owned(),
            key: route.key(),
            method: route.method.clone(),
            segments,
            stream: route.stream.clone(),
        });
        Ok(())
    }

    /// A request that comes from inside, and the route it is for.
    pub fn incoming(
        &self,
        method: &str,
        path: &str,
        json: Option<serde_json::Value>,
    ) -> Result<(RouteKey, Incoming), Answer> {
        let (path, text) = path.split_once('?').unwrap_or((path, ""));
        let (entry, params) = self.find(None, method, path)?;
        let request = Incoming {
            method: method.to_owned(),
            path: path.to_owned(),
            params,
            query: query(text),
            json,
            ..Incoming::default()
        };
        Ok((entry.key.clone(), request))
    }

    /// The best match: fixed segments before named ones.
    fn find(
        &self,
        service: Option<&str>,
        method: &str,
        path: &str,
    ) -> Result<(&Entry, Vec<(String, String)>), Answer> {
        let asked: Vec<&str> = path.split('/').skip(1).collect();
        let mut best: Option<(usize, &Entry, Vec<(String, String)>)> = None;
        let mut other_method = false;
        for entry in self.0.iter().filter(|entry| service.is_none_or(|service| entry.service == service)) {
            let Some(params) = matched(&entry.segments, &asked) else { continue };
            if entry.method != method {
                other_method = true;
                continue;
            }
            if best.as_ref().is_none_or(|(named, _, _)| params.len() < *named) {
                best = Some((params.len(), entry, params));
            }
        }
        match best {
            Some((_, entry, params)) => Ok((entry, params)),
            None if other_method => {
                Err(Answer::problem(405, "method-not-allowed", "the path has no such method"))
            }
            None => Err(Answer::problem(404, "not-found", &format!("there is no route {path}"))),
        }
    }
}

fn matched(segments: &[Segment], asked: &[&str]) -> Option<Vec<(String, String)>> {
    if segments.len() != asked.len() {
        return None;
    }
    let mut params = Vec::new();
    for (segment, asked) in segments.iter().zip(asked) {
        match segment {
            Segment::Fixed(text) if text == asked => {}
            Segment::Fixed(_) => return None,
            Segment::Named(name) => params.push((name.clone(), percent_decode(asked)?)),
        }
    }
    Some(params)
}

fn percent_decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'%' => {
                let hex = text.get(i + 1..i + 3)?;
                out.push(u8::from_str_radix(hex, 16).ok()?);
                i += 2;
            }
            byte => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8(out).ok()
}

fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let decoded = |text: &str| percent_decode(&text.replace('+', " "));
    pairs
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect()
}

pub(crate) fn router(directory: Arc<Directory>) -> Router {
    Router::new().fallback(serve).with_state(directory)
}

async fn serve(State(directory): State<Arc<Directory>>, request: Request) -> Response {
    match dispatch(&directory, request).await {
        Ok(response) => response,
        Err(answer) => answer.into_response(),
    }
}

async fn dispatch(directory: &Arc<Directory>, request: Request) -> Result<Response, Answer> {
    let (parts, body) = request.into_parts();
    if let Some(token) = &directory.token {
        let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if !same(given, token) {
            return Err(Answer::problem(401, "unauthorized", "this host wants its token"));
        }
    }
    if let Some(asked) = parts.uri.path().strip_prefix(ADMIN) {
        if asked.starts_with(admin::SERVICES) {
            let query = query(parts.uri.query().unwrap_or_default());
            return admin::serve(directory, &parts, asked, &query).await;
        }
        return admin(directory, &parts, asked).await;
    }
    let table = directory.table();
    let (entry, params) = table.find(None, parts.method.as_str(), parts.uri.path())?;
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        Answer::problem(413, "too-large", &format!("a body has at most {BODY_BYTES_MAX} bytes"))
    })?;
    let incoming = Incoming {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        params,
        query: query(parts.uri.query().unwrap_or_default()),
        headers: headers(&parts.headers),
        json: json_body(&parts.headers, &body)?,
        body: body.to_vec(),
        correlation: parts
            .headers
            .get(CORRELATION)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.is_empty() && value.len() <= 128)
            .map(str::to_owned),
        depth: parts
            .headers
            .get(DEPTH)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or_default(),
    };
    match &entry.stream {
        None => {
            let not_json = not_json(&incoming);
            let mut answer = ask(directory, &entry.service, entry.key.clone(), incoming).await;
            // The script sees no fields then, and tells that the first of them is missing.
            if let Some(why) = not_json.filter(|_| answer.is_problem && answer.status == 400) {
                answer.add(&why);
            }
            Ok(answer.into_response())
        }
        Some(types) => {
            follow(directory.clone(), entry.service.clone(), entry.key.clone(), types.clone(), incoming).await
        }
    }
}

/// `POST /-/reload/SERVICE?shadow=N&dry=true`: what `daybook reload` asks for.
async fn admin(
    directory: &Directory,
    parts: &axum::http::request::Parts,
    asked: &str,
) -> Result<Response, Answer> {
    // A page of another site cannot send this header without asking first.
    if parts.method != axum::http::Method::POST || !parts.headers.contains_key(RELOAD) {
        return Err(Answer::problem(
            404,
            "not-found",
            "POST /-/reload/SERVICE with the header daybook-reload",
        ));
    }
    let none = || Answer::problem(404, "not-found", "there is no such service in this host");
    let service = asked.strip_prefix("reload/").ok_or_else(none)?.to_owned();
    let query = query(parts.uri.query().unwrap_or_default());
    let find = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let shadow = find("shadow").map(|count| count.parse::<u64>()).transpose();
    let shadow = shadow.map_err(|_| Answer::problem(400, "invalid", "`shadow` is a number of events"))?;
    let dry = find("dry") == Some("true");
    let (reply, outcome) = oneshot::channel();
    let gone = |()| Answer::problem(503, "unavailable", "the host is going down");
    let request = crate::reload::Request { service, shadow, dry, reply };
    directory.reloads.send(request).await.map_err(|_| gone(()))?;
    let outcome = outcome.await.map_err(|_| gone(()))?.ok_or_else(none)?;
    let status =
        if outcome.swapped || outcome.reason.is_none() { StatusCode::OK } else { StatusCode::CONFLICT };
    Ok((status, axum::Json(outcome)).into_response())
}

/// In constant time: a token must not be guessed letter by letter.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &header::HeaderValue| value.to_str().ok().map(str::to_owned);
    headers.iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?))).collect()
}

/// What a body says, if it says JSON: by its content type, or, from programs
/// that name none or curl's default, by its first letter. A browser's form from
/// another site is never taken for JSON.
fn json_body(headers: &HeaderMap, body: &[u8]) -> Result<Option<serde_json::Value>, Answer> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let says_json = kind == "application/json" || kind.ends_with("+json");
    let looks_json = (kind.is_empty() || kind == "application/x-www-form-urlencoded")
        && !headers.contains_key(header::ORIGIN)
        && matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    if body.is_empty() || !(says_json || looks_json) {
        return Ok(None);
    }
    let parsed = serde_json::from_slice(body);
    parsed
        .map(Some)
        .map_err(|error| Answer::problem(400, "invalid", &format!("the body is no JSON: {error}")))
}

/// Of a body that was not taken for JSON: why, for a caller who is told that a field
/// is missing.
fn not_json(request: &Incoming) -> Option<String> {
    if request.json.is_some() || request.body.is_empty() {
        return None;
    }
    let kind = request.headers.iter().find(|(name, _)| name == "content-type").map(|(_, kind)| kind.as_str());
    let kind = kind.map_or("no content-type".to_owned(), |kind| format!("the content-type `{kind}`"));
    let begins: String = String::from_utf8_lossy(&request.body).chars().take(16).collect();
    Some(format!("the body is no JSON: it has {kind} and begins with `{begins}`"))
}

/// Hands a request to one of the service's instances.
async fn ask(directory: &Directory, service: &str, route: RouteKey, request: Incoming) -> Answer {
    let (reply, answer) = oneshot::channel();
    let Some(service) = directory.services.get(service) else {
        return Answer::problem(404, "not-found", "there is no such service");
    };
    if service.pick().try_send(Job::Route { route, request, reply }).is_err() {
        return Answer::problem(503, "overloaded", "too many requests wait for this service");
    }
    match tokio::time::timeout(ROUTE_DEADLINE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            Answer::problem(503, "script-stopped", "the script was stopped while it worked on this")
        }
        Err(_) => Answer::problem(504, "timeout", "the service did not answer in time"),
    }
}

/// Server-sent events: every event of the types goes through the script.
async fn follow(
    directory: Arc<Directory>,
    service: String,
    route: RouteKey,
    types: Vec<String>,
    request: Incoming,
) -> Result<Response, Answer> {
    let find =
        |list: &[(String, String)], name: &str| list.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let position = |text: &str| text.parse::<Position>().ok();
    let start = match (find(&request.headers, "last-event-id"), find(&request.query, "from")) {
        (Some(last), _) => position(&last).map(|last| Start::Position(last.next())),
        (None, Some(from)) => position(&from).map(Start::Position),
        (None, None) => Some(Start::END),
    };
    let start =
        start.ok_or_else(|| Answer::problem(400, "invalid", "`from` and Last-Event-ID are positions"))?;
    let client = directory.services.get(&service).map(|service| service.client.clone());
    let client = client.ok_or_else(|| Answer::problem(404, "not-found", "there is no such service"))?;
    let subscription = client
        .subscribe(start, Filter::types(&types))
        .await
        .map_err(|error| Answer::problem(503, "unavailable", &error.to_string()))?;
    // Tells the reader where it stands before the first event comes.
    let hello = Sse::default().event("position").data(subscription.position().to_string());
    let events =
        stream::unfold((subscription, directory, request), move |(mut subscription, directory, request)| {
            let (service, route) = (service.clone(), route.clone());
            async move {
                loop {
                    let event = match subscription.next().await? {
                        Item::Event(event) => event,
                        Item::CaughtUp(_) => continue,
                    };
                    let position = event.position;
                    let (reply, answer) = oneshot::channel();
                    let job = Job::Item { route: route.clone(), event, request: request.clone(), reply };
                    directory.services.get(&service)?.pick().send(job).await.ok()?;
                    let answer = answer.await.ok()?;
                    // A failure ends the stream: the reader comes back with its last id.
                    if answer.is_problem {
                        return None;
                    }
                    if let Some(body) = answer.body {
                        let sse = Sse::default().id(position.to_string()).data(body.to_string());
                        return Some((Ok::<_, Infallible>(sse), (subscription, directory, request)));
                    }
                }
            }
        });
    let hello = stream::once(async move { Ok(hello) });
    let events = futures_util::StreamExt::chain(hello, events);
    Ok(axum::response::Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
