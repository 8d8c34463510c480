//! A user's accounts, their state at the start, their statements.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Bank;
use crate::money;
use crate::problem::Problem;
use crate::services::segment;
use crate::sessions::SignedIn;
use crate::users;

pub(crate) type Parameters = Query<HashMap<String, String>>;

/// `?after=7` or nothing.
pub(crate) fn after(parameters: &HashMap<String, String>) -> Result<String, Problem> {
    match parameters.get("after") {
        None => Ok(String::new()),
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(format!("?after={text}"))
        }
        Some(_) => Err(Problem::form("invalid_position", "`after` is a position")),
    }
}

pub(crate) async fn open(
    State(bank): State<Arc<Bank>>,
    who: SignedIn,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let form = users::form(&headers, &body)?;
    let currency = money::currency(form.get("currency"))?;
    let nickname = match form.get("nickname") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.chars().count() <= 60 => {
            Some(text.as_str()).filter(|text| !text.is_empty())
        }
        Some(_) => return Err(Problem::form("invalid_nickname", "a nickname has at most 60 characters")),
    };
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let key = key.unwrap_or_else(|| Uuid::new_v4().to_string());
    let asked = json!({
        "owner": who.user, "number": number(&who.user, &key), "currency": currency, "nickname": nickname
    });
    let opened = bank.services.post("/accounts", &asked, Some(&key)).await?;
    let account = shown(&opened);
    Ok((StatusCode::CREATED, axum::Json(json!({ "account": account, "position": opened["position"] })))
        .into_response())
}

/// Ten digits from user and key: a repeat names the same account.
fn number(user: &str, key: &str) -> String {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("account/{user}/{key}").as_bytes());
    format!("{:010}", id.as_u128() % 9_000_000_000 + 1_000_000_000)
}

fn shown(account: &Value) -> Value {
    let mut account = account.clone();
    if let Some(members) = account.as_object_mut() {
        members.remove("owner");
        members.remove("position");
    }
    account
}

/// The accounts of one user, as the services show them.
async fn of(bank: &Bank, user: &str, after: &str) -> Result<Vec<Value>, Problem> {
    let answer = bank.services.get(&format!("/owners/{}/accounts{after}", segment(user))).await?;
    Ok(answer["accounts"].as_array().cloned().unwrap_or_default())
}

/// The account, if it is the user's; otherwise the refusal is recorded.
pub(crate) async fn owned(bank: &Bank, who: &SignedIn, number: &str) -> Result<Option<Value>, Problem> {
    match bank.services.get(&format!("/accounts/{}", segment(number))).await {
        Ok(account) if account["owner"] == who.user.as_str() => Ok(Some(account)),
        Ok(_) => Ok(None),
        Err(problem) if problem.status == 404 => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// Refusals of rights are events too.
pub(crate) async fn record_refusal(bank: &Bank, who: &SignedIn, action: &str, reason: &str) {
    let body = json!({ "action": action, "reason": reason });
    if let Err(problem) =
        bank.services.post(&format!("/users/{}/refusals", segment(&who.user)), &body, None).await
    {
        tracing::warn!(code = problem.code, "a refusal was not recorded");
    }
}

pub(crate) async fn init(
    State(bank): State<Arc<Bank>>,
    who: SignedIn,
    Query(parameters): Parameters,
) -> Result<axum::Json<Value>, Problem> {
    let after = after(&parameters)?;
    // Where the updates stand before we read: whatever comes later is pushed.
    let position = bank.updates.position();
    let accounts = of(&bank, &who.user, &after).await?;
    let mut recent = HashMap::new();
    for account in &accounts {
        let number = account["number"].as_str().unwrap_or_default();
        let path = format!("/accounts/{}/transactions{after}", segment(number));
        for transaction in bank.services.get(&path).await?["transactions"].as_array().into_iter().flatten() {
            recent.insert(transaction["id"].as_str().unwrap_or_default().to_owned(), transaction.clone());
        }
    }
    let mut recent: Vec<Value> = recent.into_values().collect();
    let first = |transaction: &Value| -> u64 {
        transaction["steps"][0]["position"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    recent.sort_by_key(|transaction| std::cmp::Reverse(first(transaction)));
    recent.truncate(20);
    let accounts: Vec<Value> = accounts.iter().map(shown).collect();
    Ok(axum::Json(
        json!({ "user": users::shown(&who), "accounts": accounts, "recent": recent, "position": position }),
    ))
}

pub(crate) async fn statement(
    State(bank): State<Arc<Bank>>,
    who: SignedIn,
    Path(number): Path<String>,
    Query(parameters): Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let may = owned(&bank, &who, &number).await?.is_some() || who.has_role("auditor");
    if !may {
        record_refusal(&bank, &who, &format!("read account/{number}"), "not_your_account").await;
        return Err(Problem::not_found("account"));
    }
    let mut query = Vec::new();
    for name in ["at", "after", "limit"] {
        if let Some(value) = parameters.get(name) {
            if name != "at" && !(1..=9).contains(&value.len().min(9))
                || name == "limit" && value.parse::<u32>().is_err()
            {
                return Err(Problem::form("invalid_parameter", &format!("`{name}` is malformed")));
            }
            query.push(format!("{name}={}", segment(value)));
        }
    }
    let path = format!("/statements/{}?{}", segment(&number), query.join("&"));
    let statement = bank.services.get(&path).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/csv") {
        return Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&statement)).into_response());
    }
    Ok(axum::Json(statement).into_response())
}

/// RFC 4180. A leading `=`, `+`, `-` or `@` in text would be a formula to a spreadsheet.
fn csv(statement: &Value) -> String {
    let mut out = String::from("position,time,description,amount_minor,currency,balance_minor\r\n");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for line in statement["lines"].as_array().into_iter().flatten() {
        let mut description = text(&line["description"]).replace('"', "\"\"");
        if description.starts_with(['=', '+', '-', '@']) {
            description.insert(0, '\'');
        }
        out.push_str(&format!(
            "{},{},\"{description}\",{},{},{}\r\n",
            text(&line["position"]),
            text(&line["time"]),
            text(&line["amount"]["minor"]),
            text(&line["amount"]["currency"]),
            text(&line["balance"]["minor"])
        ));
    }
    out
}
