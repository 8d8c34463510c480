//! `POST /v1/events`, `GET /v1/events`, `GET /v1/events/{id}`.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use daybook_model::wire::{self, Receipted};
use daybook_model::{Code, Data, Invalid, JsonText, NewEvent, Position, Problem};
use daybook_store::{Fence, Query};
use futures_util::stream;
use uuid::Uuid;

use super::follow;
use super::query::{EventsQuery, percent_decode, percent_encode, resolve};
use crate::error::{Refused, read_problem};
use crate::publish::{self, Publisher};
use crate::state::Shared;

/// Bytes of one page of a list.
const PAGE_BYTES: usize = 4 << 20;

pub(super) async fn publish(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let limits = &shared.config.limits;
    let body = axum::body::to_bytes(body, limits.frame_bytes).await.map_err(|_| {
        Problem::new(Code::TooLarge, format!("a body has at most {} bytes", limits.frame_bytes))
    })?;
    let events = parse(&headers, &body)?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let service = text("daybook-service").unwrap_or("http");
    if service.is_empty() || service.len() > 64 || service.chars().any(|c| c.is_control() || c == '/') {
        return Err(
            Invalid::new("Daybook-Service", "must be a name without slashes, of 1 to 64 bytes").into()
        );
    }
    let publisher = Publisher {
        session: format!("{service}/http/{}", Uuid::now_v7()).into(),
        principal: None,
        default_source: format!("/{service}").into(),
    };
    let fence = text("daybook-delivery").map(|token| shared.groups.fence(token).unwrap_or_else(raised));
    let (batch, _) = publish::batch(events.into(), &publisher, fence, limits)?;
    let stored = shared.store.append(batch).await?;
    let receipt: Vec<Receipted> = stored
        .into_iter()
        .map(|s| Receipted {
            id: s.id,
            position: s.position,
            sequence: s.sequence,
            recordedtime: s.recordedtime,
            duplicate: s.duplicate,
        })
        .collect();
    Ok((StatusCode::CREATED, axum::Json(serde_json::json!({ "events": receipt }))).into_response())
}

/// The fence of a delivery that nobody holds.
fn raised() -> Fence {
    let fence = Fence::new();
    fence.raise();
    fence
}

/// The three ways of CloudEvents over HTTP: structured, batched, binary.
fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Vec<NewEvent>, Refused> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let text = || str::from_utf8(body).map_err(|_| Invalid::new("", "is not UTF-8"));
    match kind.as_str() {
        "application/cloudevents+json" => Ok(vec![wire::read(text()?)?]),
        "application/cloudevents-batch+json" => Ok(wire::read(text()?)?),
        _ if headers.contains_key("ce-specversion") => Ok(vec![binary(headers, &kind, body)?]),
        _ => {
            let detail =
                "send application/cloudevents+json, application/cloudevents-batch+json, or ce-* headers";
            let mut problem = Problem::new(Code::Invalid, detail).member("Content-Type");
            problem.status = Some(415);
            Err(problem.into())
        }
    }
}

/// Binary mode: attributes in headers, the body is the data.
fn binary(headers: &HeaderMap, kind: &str, body: &Bytes) -> Result<NewEvent, Invalid> {
    let mut attributes = serde_json::Map::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let text = value.to_str().ok().and_then(percent_decode);
        let text = text.ok_or_else(|| Invalid::new(format!("ce-{name}"), "is not percent-encoded UTF-8"))?;
        attributes.insert(name.to_owned(), text.into());
    }
    if !kind.is_empty() {
        attributes.insert("datacontenttype".into(), kind.into());
    }
    let text = serde_json::Value::Object(attributes).to_string();
    let mut event: NewEvent = wire::read(&text)?;
    let is_json = kind == "application/json" || kind.ends_with("+json");
    event.data = if body.is_empty() {
        None
    } else if is_json {
        let text = str::from_utf8(body).map_err(|_| Invalid::new("data", "is not UTF-8"))?;
        let json = JsonText::from_string(text.to_owned()).map_err(|e| Invalid::new("data", e.to_string()))?;
        Some(Data::Json(json))
    } else {
        Some(Data::Binary(body.to_vec()))
    };
    Ok(event)
}

pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    match shared.store.event_by_id(&id).await? {
        Some(event) => {
            let body =
                serde_json::to_vec(&*event).expect("an event has string keys and is written to memory");
            Ok(([(header::CONTENT_TYPE, "application/cloudevents+json")], body).into_response())
        }
        None => Err(Problem::new(Code::NotFound, format!("there is no event `{id}`")).into()),
    }
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let text = query.unwrap_or_default();
    let asked = EventsQuery::parse(&text)?;
    let accept =
        headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    if accept.contains("text/event-stream") {
        return follow::events(shared, &headers, asked).await;
    }
    let from = resolve(&*shared.store, asked.from).await?.unwrap_or(Position::ZERO);
    let until = resolve(&*shared.store, asked.until).await?;
    let page_max = shared.config.limits.page_events;
    let query = Query {
        from,
        until: Some(until.unwrap_or(*shared.store.head().borrow())),
        filter: asked.filter,
        reverse: asked.reverse,
        max_events: page_max,
        max_bytes: PAGE_BYTES,
    };
    if accept.contains("application/x-ndjson") {
        return Ok(ndjson(shared, query, asked.limit.unwrap_or(u64::MAX)));
    }
    let limit =
        asked.limit.map_or(page_max, |limit| usize::try_from(limit).unwrap_or(usize::MAX).min(page_max));
    let page = shared.store.read(Query { max_events: limit, ..query }).await?;
    let events: Vec<_> = page.events.iter().map(|event| &**event).collect();
    let body = serde_json::to_vec(&events).expect("events have string keys and are written to memory");
    let mut response = ([(header::CONTENT_TYPE, "application/cloudevents-batch+json")], body).into_response();
    if let Some(next) = page.next {
        let link = format!("</v1/events?{}>; rel=\"next\"", next_query(&text, asked.reverse, next));
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

/// The same query, going on at `next`.
fn next_query(text: &str, reverse: bool, next: Position) -> String {
    let moved = if reverse { "until" } else { "from" };
    let kept = text.split('&').filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(moved));
    let mut pairs: Vec<String> = kept.map(str::to_owned).collect();
    pairs.push(format!("{moved}={}", percent_encode(&next.to_string())));
    pairs.join("&")
}

/// Page after page, no more in memory than one.
fn ndjson(shared: Arc<Shared>, query: Query, limit: u64) -> Response {
    let pages = stream::unfold(Some((query, limit)), move |state| {
        let shared = shared.clone();
        async move {
            let (mut query, left) = state?;
            if left == 0 {
                return None;
            }
            query.max_events = query.max_events.min(usize::try_from(left).unwrap_or(usize::MAX));
            let page = match shared.store.read(query.clone()).await {
                Ok(page) => page,
                // The status is out already: a cut connection is the only honest end.
                Err(error) => {
                    return Some((Err(std::io::Error::other(read_problem(error).to_string())), None));
                }
            };
            let mut lines = Vec::new();
            for event in &page.events {
                let line = serde_json::to_string(&**event)
                    .expect("an event has string keys and is written to memory");
                // Inside JSON a line break can only be insignificant space of `data`.
                lines.extend_from_slice(line.replace(['\n', '\r'], " ").as_bytes());
                lines.push(b'\n');
            }
            let left = left - page.events.len() as u64;
            let next = page.next.map(|next| {
                if query.reverse {
                    query.until = Some(next);
                } else {
                    query.from = next;
                }
                (query, left)
            });
            Some((Ok(Bytes::from(lines)), next))
        }
    });
    let kind = (HeaderName::from_static("content-type"), HeaderValue::from_static("application/x-ndjson"));
    ([kind], Body::from_stream(pages)).into_response()
}
