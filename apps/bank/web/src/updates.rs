//! `GET /api/updates`: one stream from reporting, fanned out to the pages it concerns.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::Bank;
use crate::services::segment;
use crate::sessions::{Key, SignedIn};

/// Updates a slow page may be behind; then it is closed and starts afresh.
const BEHIND_MAX: usize = 1_024;

pub(crate) struct Updates {
    send: broadcast::Sender<Arc<Value>>,
    /// Everything before this position has been fanned out.
    position: Mutex<u64>,
}

impl Default for Updates {
    fn default() -> Self {
        Self { send: broadcast::channel(BEHIND_MAX).0, position: Mutex::new(0) }
    }
}

impl Updates {
    pub fn position(&self) -> String {
        self.position.lock().expect("no code panics while it holds this lock").to_string()
    }

    fn reached(&self, next: u64) {
        *self.position.lock().expect("no code panics while it holds this lock") = next;
    }
}

/// Follows reporting for as long as the web runs.
pub(crate) async fn follow(bank: Arc<Bank>) {
    let mut next: Option<u64> = None;
    loop {
        let path = next.map_or("/updates".to_owned(), |next| format!("/updates?from={next}"));
        match bank.services.stream(&path).await {
            Ok(answer) => read(&bank, answer, &mut next).await,
            Err(error) => tracing::debug!(%error, "reporting cannot be followed yet"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn read(bank: &Bank, answer: reqwest::Response, next: &mut Option<u64>) {
    let mut bytes = answer.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(Ok(chunk)) = bytes.next().await {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = buffer.drain(..end + 2).collect();
            take(bank, &String::from_utf8_lossy(&block), next);
        }
    }
}

/// One server-sent event.
fn take(bank: &Bank, block: &str, next: &mut Option<u64>) {
    let field =
        |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    let Some(data) = field("data") else { return };
    if field("event") == Some("position") {
        if let Ok(position) = data.parse() {
            *next = Some(position);
            bank.updates.reached(position);
        }
        return;
    }
    let (Some(Ok(id)), Ok(update)) =
        (field("id").map(str::parse::<u64>), serde_json::from_str::<Value>(data))
    else {
        return;
    };
    // Nobody listening is fine.
    let _ = bank.updates.send.send(Arc::new(update));
    *next = Some(id + 1);
    bank.updates.reached(id + 1);
}

pub(crate) async fn socket(
    State(bank): State<Arc<Bank>>,
    who: SignedIn,
    session: Key,
    upgrade: WebSocketUpgrade,
) -> Response {
    // Listening begins before the accounts are read, so that nothing falls between.
    let updates = bank.updates.send.subscribe();
    upgrade.on_upgrade(move |socket| serve(bank, who, session, updates, socket))
}

async fn serve(
    bank: Arc<Bank>,
    who: SignedIn,
    session: Key,
    mut updates: broadcast::Receiver<Arc<Value>>,
    mut socket: WebSocket,
) {
    let Ok(mine) = bank.services.get(&format!("/owners/{}/accounts", segment(&who.user))).await else {
        return;
    };
    let numbers = mine["accounts"].as_array().into_iter().flatten();
    let mut accounts: HashSet<String> =
        numbers.filter_map(|a| a["number"].as_str()).map(str::to_owned).collect();
    let mut transactions: HashSet<String> = HashSet::new();
    let mut shutdown = bank.shutdown.clone();
    let mut ended = bank.sessions.ended();
    // It may have ended while the connection began.
    ended.mark_changed();
    loop {
        let update = tokio::select! {
            update = updates.recv() => Some(update),
            _ = ended.changed() => None,
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            _ = shutdown.changed() => return,
        };
        // Signed out elsewhere, or idle for too long: nothing more is told.
        if !bank.sessions.is_open(session) {
            return close(socket, close_code::POLICY, "sign in first").await;
        }
        let update = match update {
            None => continue,
            Some(Ok(update)) => update,
            Some(Err(_)) => return close(socket, close_code::AGAIN, "too slow; start afresh").await,
        };
        for message in concerning(&bank, &who, &update, &mut accounts, &mut transactions).await {
            let sent = tokio::time::timeout(
                Duration::from_secs(10),
                socket.send(Message::Text(message.to_string().into())),
            );
            if !matches!(sent.await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
}

/// What this user's page is told of an update.
async fn concerning(
    bank: &Bank,
    who: &SignedIn,
    update: &Value,
    accounts: &mut HashSet<String>,
    transactions: &mut HashSet<String>,
) -> Vec<Value> {
    let text = |name: &str| update[name].as_str().unwrap_or_default();
    if update["kind"] == "transaction" {
        let id = text("id");
        let concerns =
            transactions.contains(id) || accounts.contains(text("from")) || accounts.contains(text("to"));
        // A pending one names the accounts; its outcome names only itself.
        if concerns {
            transactions.insert(id.to_owned());
        }
        let is_side =
            concerns || (text("event") != "TransactionPending" && is_side(bank, id, accounts).await);
        return if is_side { vec![update.clone()] } else { Vec::new() };
    }
    let number = text("account");
    if text("owner") == who.user {
        accounts.insert(number.to_owned());
    }
    if !accounts.contains(number) {
        return Vec::new();
    }
    let mut messages = Vec::new();
    if update["kind"] == "line" {
        messages.push(update.clone());
    }
    if let Ok(account) = bank.services.get(&format!("/accounts/{}", segment(number))).await {
        messages.push(json!({
            "kind": "balance", "account": number, "position": update["position"],
            "balance": account["balance"], "available": account["available"], "state": account["state"]
        }));
    }
    messages
}

async fn is_side(bank: &Bank, id: &str, accounts: &HashSet<String>) -> bool {
    match bank.services.get(&format!("/transactions/{}", segment(id))).await {
        Ok(found) => {
            ["from", "to"].iter().any(|side| found[side].as_str().is_some_and(|n| accounts.contains(n)))
        }
        Err(_) => false,
    }
}
