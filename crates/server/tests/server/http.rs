//! The HTTP table of protocol.md, by a client that knows only that page.

use std::time::Duration;

use daybook_server::{Config, Server};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

const EVENT: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

struct Http {
    server: Server,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Http {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().join("log")).listen("127.0.0.1:0".parse().unwrap());
        let server = daybook_server::start(config).await.unwrap();
        Self { server, client: reqwest::Client::new(), _dir: dir }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.local_addr())
    }

    fn post(&self, kind: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client.post(self.url("/v1/events")).header("content-type", kind).body(body)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        json_of(response).await
    }

    async fn publish(&self, count: usize) {
        let events: Vec<_> =
            (0..count).map(|i| event(&format!("e{i}"), Some(&format!("k/{}", i % 3)))).collect();
        for some in events.chunks(500) {
            let response = self.post(BATCH, Value::from(some.to_vec()).to_string()).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::CREATED);
        }
    }
}

fn event(id: &str, subject: Option<&str>) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/t", "type": "T", "subject": subject, "data": { "n": 1 } })
}

async fn json_of(response: Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

/// Status, code and member of a refusal; it has to be problem+json.
async fn problem(request: RequestBuilder) -> (u16, String, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem = json_of(response).await;
    assert_eq!(problem["status"], status, "{problem}");
    assert!(problem["title"].is_string() || problem["detail"].is_string(), "{problem}");
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    (status, text("code"), text("member"))
}

fn refused(status: u16, code: &str, member: &str) -> (u16, String, String) {
    (status, code.to_owned(), member.to_owned())
}

#[tokio::test]
async fn one_event_gets_a_receipt_and_is_found_by_its_id() {
    let http = Http::start().await;
    let response = http
        .post(EVENT, event("a/b", Some("k/1")).to_string())
        .header("daybook-service", "billing")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let receipt = json_of(response).await;
    let stored = &receipt["events"][0];
    assert_eq!(
        (&stored["id"], &stored["position"], &stored["sequence"]),
        (&json!("a/b"), &json!("0"), &json!("0"))
    );
    assert_eq!(stored["duplicate"], false);
    let found = http.json("/v1/events/a%2Fb").await;
    assert!(found["sessionid"].as_str().unwrap().starts_with("billing/http/"), "{found}");
    assert_eq!(problem(http.get("/v1/events/other")).await.1, "not-found");
}

#[tokio::test]
async fn binary_mode_takes_attributes_from_headers_and_the_body_as_it_is() {
    let http = Http::start().await;
    let body = [0u8, 1, 2, 254, 255];
    let send = |kind: &'static str, id: &'static str, body: Vec<u8>| {
        http.post(kind, body)
            .header("ce-specversion", "1.0")
            .header("ce-id", id)
            .header("ce-type", "T")
            .header("ce-subject", "k%2F%C3%BC")
            .send()
    };
    assert_eq!(send("image/png", "bin", body.to_vec()).await.unwrap().status(), StatusCode::CREATED);
    let json = br#"{"x":  1.50}"#;
    assert_eq!(send("application/json", "js", json.to_vec()).await.unwrap().status(), StatusCode::CREATED);
    let found = http.json("/v1/events/bin").await;
    assert_eq!((&found["data_base64"], &found["subject"]), (&json!("AAEC/v8="), &json!("k/ü")));
    let text = http.get("/v1/events/js").send().await.unwrap().text().await.unwrap();
    assert!(text.contains(r#"{"x":  1.50}"#), "{text}");
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let http = Http::start().await;
    let mut late = event("b", Some("k/1"));
    late["sequence"] = "5".into();
    let batch = json!([event("a", Some("k/1")), late]);
    let (status, code, _) = problem(http.post(BATCH, batch.to_string())).await;
    assert_eq!((status, code.as_str()), (409, "conflict"));
    assert_eq!(http.json("/v1/events").await, json!([]));
    let batch = json!([event("a", Some("k/1")), event("b", Some("k/1"))]);
    assert_eq!(http.post(BATCH, batch.to_string()).send().await.unwrap().status(), StatusCode::CREATED);
    let events = http.json("/v1/events").await;
    assert_eq!((&events[1]["batchfirst"], &events[1]["batchsize"]), (&json!("0"), &json!("2")));
    assert_eq!(events[0]["correlationid"], events[1]["correlationid"]);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_by_code_and_member() {
    let http = Http::start().await;
    let with = |name: &str, value: Value| {
        let mut event = event("a", Some("k/1"));
        event[name] = value;
        event.to_string()
    };
    assert_eq!(problem(http.post(EVENT, "{nonsense")).await.1, "invalid");
    assert_eq!(
        problem(http.post(EVENT, with("sequence", json!(1)))).await,
        refused(400, "invalid", "sequence")
    );
    assert_eq!(
        problem(http.post(EVENT, with("sequence", json!("01")))).await,
        refused(400, "invalid", "sequence")
    );
    assert_eq!(problem(http.post(EVENT, with("type", json!("daybook.X")))).await.0, 400);
    assert_eq!(problem(http.post(EVENT, with("id", json!("x".repeat(129))))).await.1, "invalid");
    assert_eq!(problem(http.post(EVENT, with("subject", json!("a\u{7}b")))).await.1, "invalid");
    let mut unkeyed = event("a", None);
    unkeyed["sequence"] = "0".into();
    assert_eq!(problem(http.post(EVENT, unkeyed.to_string())).await.1, "invalid");
    assert_eq!(problem(http.post("text/plain", "hello")).await, refused(415, "invalid", "Content-Type"));
    assert_eq!(problem(http.post(EVENT, vec![b' '; 9 << 20])).await, refused(413, "too-large", ""));
    assert_eq!(problem(http.post(EVENT, with("data", json!("x".repeat(2 << 20))))).await.1, "too-large");
    let twice = json!([event("a", None), event("a", None)]).to_string();
    assert_eq!(problem(http.post(BATCH, twice)).await.1, "invalid");
    assert_eq!(problem(http.post(BATCH, "[]")).await.1, "invalid");
    let service = http.post(EVENT, event("a", None).to_string()).header("daybook-service", "a/b");
    assert_eq!(problem(service).await, refused(400, "invalid", "Daybook-Service"));
    let fenced = http.post(EVENT, event("a", None).to_string()).header("daybook-delivery", "1.2.3");
    assert_eq!(problem(fenced).await, refused(409, "fenced", ""));
    assert_eq!(http.json("/v1/events").await, json!([]), "something of it was stored");
}

#[tokio::test]
async fn repeats_get_the_old_receipt_and_other_content_is_a_conflict_of_ids() {
    let http = Http::start().await;
    let publish = async |event: &Value| http.post(EVENT, event.to_string()).send().await.unwrap();
    let first = json_of(publish(&event("a", Some("k/1"))).await).await;
    let again = json_of(publish(&event("a", Some("k/1"))).await).await;
    assert_eq!(first["events"][0]["position"], again["events"][0]["position"]);
    assert_eq!(again["events"][0]["duplicate"], true);
    let mut other = event("a", Some("k/1"));
    other["data"]["n"] = 2.into();
    assert_eq!(problem(http.post(EVENT, other.to_string())).await, refused(409, "id-conflict", ""));
}

#[tokio::test]
async fn lists_are_paged_filtered_and_reversed() {
    let http = Http::start().await;
    http.publish(2_500).await;
    let mut path = "/v1/events?subject=k/1&limit=300".to_owned();
    let mut positions = Vec::new();
    loop {
        let response = http.get(&path).send().await.unwrap();
        let link = response.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let page = json_of(response).await;
        positions.extend(
            page.as_array().unwrap().iter().map(|e| e["position"].as_str().unwrap().parse::<u64>().unwrap()),
        );
        let Some(link) = link else { break };
        assert!(link.ends_with(r#"rel="next""#), "{link}");
        path = link[link.find('<').unwrap() + 1..link.find('>').unwrap()].to_owned();
    }
    assert_eq!(positions, (0..2_500).filter(|i| i % 3 == 1).collect::<Vec<u64>>());
    let newest = http.json("/v1/events?reverse=true&limit=2&until=100").await;
    assert_eq!((&newest[0]["position"], &newest[1]["position"]), (&json!("99"), &json!("98")));
    for (query, member) in
        [("limit=x", "limit"), ("from=tomorrow", "from"), ("sort=up", "sort"), ("limit=0", "limit")]
    {
        let (status, code, named) = problem(http.get(&format!("/v1/events?{query}"))).await;
        assert_eq!((status, code.as_str(), named.as_str()), (400, "invalid", member), "{query}");
    }
}

#[tokio::test]
async fn ndjson_streams_everything_a_line_each() {
    let http = Http::start().await;
    http.publish(3_000).await;
    let response = http.get("/v1/events").header("accept", "application/x-ndjson").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.unwrap();
    assert_eq!(text.lines().count(), 3_000);
    for (i, line) in text.lines().enumerate() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["position"], i.to_string());
    }
}

#[tokio::test]
async fn an_event_stream_follows_live_and_resumes_after_the_last_id() {
    let http = Http::start().await;
    http.publish(3).await;
    let follow = async |last: &str| {
        let request =
            http.get("/v1/events").header("accept", "text/event-stream").header("last-event-id", last);
        request.send().await.unwrap()
    };
    let mut stream = follow("0").await;
    let mut seen = String::new();
    let read_until = async |stream: &mut Response, seen: &mut String, id: &str| {
        let wanted = format!("id: {id}\n");
        while !seen.contains(&wanted) && !seen.contains(&wanted.replace(": ", ":")) {
            let chunk = tokio::time::timeout(Duration::from_secs(20), stream.chunk()).await;
            seen.push_str(str::from_utf8(&chunk.expect("nothing came").unwrap().expect("it ended")).unwrap());
        }
    };
    read_until(&mut stream, &mut seen, "2").await;
    assert!(!seen.contains("\"position\":\"0\""), "it repeats what was seen: {seen}");
    http.post(EVENT, event("live", None).to_string()).send().await.unwrap();
    read_until(&mut stream, &mut seen, "3").await;
    assert!(seen.contains("\"live\""));
}

#[tokio::test]
async fn keys_are_listed_by_prefix_with_count_and_last_position() {
    let http = Http::start().await;
    http.publish(10).await;
    let list = http.json("/v1/subjects?prefix=k/&limit=2").await;
    assert_eq!(list[0], json!({ "subject": "k/0", "events": "4", "last": "9" }));
    assert_eq!(list.as_array().unwrap().len(), 2);
    let rest = http.json("/v1/subjects?prefix=k/&after=k/1").await;
    assert_eq!(rest, json!([{ "subject": "k/2", "events": "3", "last": "8" }]));
    assert_eq!(http.json("/v1/subjects/k%2F1").await["events"], "3");
    assert_eq!(problem(http.get("/v1/subjects/k%2F9")).await, refused(404, "not-found", ""));
}

#[tokio::test]
async fn groups_that_do_not_exist_are_not_found() {
    let http = Http::start().await;
    assert_eq!(http.json("/v1/groups").await, json!([]));
    assert_eq!(problem(http.get("/v1/groups/none")).await.1, "not-found");
    assert_eq!(problem(http.get("/v1/groups/none/parked")).await.1, "not-found");
    let retry = http.client.post(http.url("/v1/groups/none/parked/k%2F1/retry"));
    assert_eq!(problem(retry).await.1, "not-found");
}

#[tokio::test]
async fn operations_tell_health_metrics_and_the_contract() {
    let http = Http::start().await;
    http.publish(5).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http.get(path).send().await.unwrap().status(), StatusCode::OK);
    }
    let metrics = http.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\ndaybook_events_appended_total 5\n"), "{metrics}");
    assert!(metrics.contains("\ndaybook_head_position 5\n"), "{metrics}");
    assert_eq!(http.json("/openapi.json").await["openapi"], "3.1.0");
    assert!(http.json("/asyncapi.json").await["asyncapi"].as_str().unwrap().starts_with("3."));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let http = Http::start().await;
    assert_eq!(problem(http.get("/v2/events")).await, refused(404, "not-found", ""));
    let (status, code, _) = problem(http.client.delete(http.url("/v1/events"))).await;
    assert_eq!((status, code.as_str()), (405, "invalid"));
}
