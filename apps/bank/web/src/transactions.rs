//! Moving money: checked for form here, decided by the accounts service.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Bank;
use crate::accounts::{Parameters, after, owned, record_refusal};
use crate::problem::Problem;
use crate::services::segment;
use crate::sessions::SignedIn;
use crate::{money, users};

fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if key.is_empty() || key.len() > 128 {
        let detail = "the header Idempotency-Key is missing: 1 to 128 characters that name this one intent";
        return Err(Problem::form("missing_field", detail));
    }
    Ok(key.to_owned())
}

/// The same user and key name the same transaction, for ever.
fn transaction_id(user: &str, key: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("transaction/{user}/{key}").as_bytes()).to_string()
}

pub(crate) async fn create(
    State(bank): State<Arc<Bank>>,
    who: SignedIn,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let key = key(&headers)?;
    let form = users::form(&headers, &body)?;
    let kind = users::required(&form, "kind")?;
    if !["transfer", "deposit", "withdrawal"].contains(&kind) {
        return Err(Problem::form("unknown_kind", "a transaction is a transfer, a deposit or a withdrawal"));
    }
    let amount = money::amount(form.get("amount"))?;
    let currency = amount["currency"].as_str().unwrap_or_default();
    let cash = format!("cash-{currency}");
    let side = |name: &str| -> Result<String, Problem> {
        let number = users::required(&form, name)?;
        // The bank's own accounts are not to be named from outside.
        let plain = number.len() <= 40 && number.bytes().all(|b| b.is_ascii_alphanumeric());
        if plain {
            Ok(number.to_owned())
        } else {
            Err(Problem::form("unknown_account", "there is no such account"))
        }
    };
    let (from, to) = match kind {
        "transfer" => (side("from")?, side("to")?),
        "deposit" => (cash, side("to")?),
        _ => (side("from")?, cash),
    };
    if from == to {
        return Err(Problem::form("same_account", "from and to are the same account"));
    }
    let reference = match form.get("reference") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.chars().count() <= 140 && !text.chars().any(char::is_control) => {
            Some(text.as_str()).filter(|text| !text.is_empty())
        }
        Some(_) => return Err(Problem::form("invalid_reference", "a reference has at most 140 characters")),
    };
    // A deposit goes into one's own account only, as a debit comes from one's own.
    let mine = if kind == "deposit" { &to } else { &from };
    if owned(&bank, &who, mine).await?.is_none() {
        record_refusal(&bank, &who, &format!("{kind} on account/{mine}"), "not_your_account").await;
        return Err(Problem::new(403, "not_your_account", "that account is not yours"));
    }
    let command = json!({
        "user": who.user, "kind": kind, "from": from, "to": to, "amount": amount, "reference": reference
    });
    start(&bank, &transaction_id(&who.user, &key), &command).await
}

async fn start(bank: &Bank, id: &str, command: &Value) -> Result<Response, Problem> {
    let answer = bank.services.post(&format!("/transactions/{id}"), command, None).await?;
    let transaction = json!({ "id": id, "correlationid": answer["correlationid"], "state": answer["state"] });
    let body = json!({ "transaction": transaction, "position": answer["position"] });
    Ok((StatusCode::ACCEPTED, axum::Json(body)).into_response())
}

pub(crate) async fn read(
    State(bank): State<Arc<Bank>>,
    who: SignedIn,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Result<axum::Json<Value>, Problem> {
    let path = format!("/transactions/{}{}", segment(&id), after(&parameters)?);
    let missing =
        |problem: Problem| if problem.status == 404 { Problem::not_found("transaction") } else { problem };
    let mut transaction = bank.services.get(&path).await.map_err(missing)?;
    let mut may =
        transaction["user"] == who.user.as_str() || who.has_role("teller") || who.has_role("auditor");
    for side in ["from", "to"] {
        may = may || owned(&bank, &who, transaction[side].as_str().unwrap_or_default()).await?.is_some();
    }
    if !may {
        record_refusal(&bank, &who, &format!("read transaction/{id}"), "not_a_side").await;
        return Err(Problem::not_found("transaction"));
    }
    if let Some(members) = transaction.as_object_mut() {
        members.remove("user");
    }
    Ok(axum::Json(transaction))
}

pub(crate) async fn reverse(
    State(bank): State<Arc<Bank>>,
    who: SignedIn,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !who.has_role("teller") {
        record_refusal(&bank, &who, &format!("reverse transaction/{id}"), "not_a_teller").await;
        return Err(Problem::new(403, "forbidden", "only a teller reverses"));
    }
    let key = key(&headers)?;
    let original = bank.services.get(&format!("/transactions/{}", segment(&id))).await?;
    if original["state"] != "accepted" {
        let code = if original["state"] == "reversed" { "already_reversed" } else { "not_reversible" };
        return Err(Problem::new(409, code, "only an accepted transaction is reversed, and once"));
    }
    let command = json!({
        "user": who.user, "kind": "reversal", "from": original["to"], "to": original["from"],
        "amount": original["amount"], "reverses": id
    });
    start(&bank, &transaction_id(&who.user, &key), &command).await
}
