//! Bodies that are no JSON: whoever sent one is told that, not that a field is missing.

use serde_json::{Value, json};

use crate::World;

const SERVICE: &str = r#"local svc = service("till", {})
svc:post("/pay", function(req) return json({ amount = money.parse(req.json.amount) }) end)
svc:post("/raw", function(req) return json({ body = req.body }) end)
"#;

#[tokio::test]
async fn a_body_that_is_no_json_is_told_as_that_with_where_it_goes_wrong() {
    let world = World::start().await;
    let running = world.run(SERVICE).await;
    let http = reqwest::Client::new();
    let post = async |path: &str, kind: Option<&str>, body: &'static str| -> (u16, Value) {
        let mut request = http.post(format!("{}{path}", running.url)).body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    };
    let form = Some("application/x-www-form-urlencoded");
    for (kind, body, told) in [
        (
            Some("application/json"),
            "{\"amount\": }",
            "the body is no JSON: expected value at line 1 column 12",
        ),
        (
            form,
            "amount=5&to=b",
            "the body is no JSON: it has the content-type `application/x-www-form-urlencoded` and begins with `amount=5&to=b`",
        ),
        (Some("text/plain"), "{\"amount\":1}", "the body is no JSON: it has the content-type `text/plain`"),
        (None, "five pounds, please, to my sister", "no content-type and begins with `five pounds, ple`"),
    ] {
        let (status, problem) = post("/pay", kind, body).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(status == 400 && detail.contains(told), "{body}: {problem}");
    }
    // Who sends nothing is told of the field, and a script that wants a text gets it.
    let (status, problem) = post("/pay", form, "").await;
    assert!(status == 400 && !problem["detail"].as_str().unwrap().contains("the body"), "{problem}");
    assert_eq!(post("/raw", form, "a=1").await, (200, json!({ "body": "a=1" })));
}
