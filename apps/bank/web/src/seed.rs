//! People to try the bank with: made once, found again later.

use serde_json::json;
use uuid::Uuid;

use crate::problem::Problem;
use crate::services::{Services, segment};

#[derive(Clone, Debug)]
pub struct SeededUser {
    pub username: &'static str,
    pub role: &'static str,
    /// `None` if the user was there already: only its hash is known.
    pub password: Option<String>,
}

/// Two customers with money in their accounts, and a teller.
pub async fn seed(services: &str, token: &str) -> Result<Vec<SeededUser>, String> {
    let services = Services::new(services, token);
    let mut seeded = Vec::new();
    for (username, role) in [("ada", "customer"), ("grace", "customer"), ("tom", "teller")] {
        seeded.push(one(&services, username, role).await.map_err(|p| format!("{}: {}", p.code, p.detail))?);
    }
    Ok(seeded)
}

async fn one(services: &Services, username: &'static str, role: &'static str) -> Result<SeededUser, Problem> {
    let password = Uuid::new_v4().simple().to_string()[..12].to_owned();
    let user =
        match services.post("/users", &json!({ "username": username, "password": password }), None).await {
            Ok(user) => user["user"].as_str().unwrap_or_default().to_owned(),
            Err(problem) if problem.code == "username_taken" => {
                return Ok(SeededUser { username, role, password: None });
            }
            Err(problem) => return Err(problem),
        };
    if role == "teller" {
        services.post(&format!("/users/{}/roles", segment(&user)), &json!({ "role": role }), None).await?;
    } else {
        let number = format!(
            "{:010}",
            Uuid::new_v5(&Uuid::NAMESPACE_URL, user.as_bytes()).as_u128() % 9_000_000_000 + 1_000_000_000
        );
        let account = json!({ "owner": user, "number": number, "currency": "GBP", "nickname": "Everyday" });
        services.post("/accounts", &account, Some("seed")).await?;
        let deposit = json!({
            "user": user, "kind": "deposit", "from": "cash-GBP", "to": number,
            "amount": { "minor": "100000", "currency": "GBP" }, "reference": "Opening deposit"
        });
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("seed/{user}").as_bytes());
        services.post(&format!("/transactions/{id}"), &deposit, None).await?;
    }
    Ok(SeededUser { username, role, password: Some(password) })
}

/// Gives `username` a role; never reachable from the web.
pub async fn grant(services: &str, token: &str, username: &str, role: &str) -> Result<(), String> {
    let services = Services::new(services, token);
    let shown = |problem: Problem| format!("{}: {}", problem.code, problem.detail);
    let found = services.get(&format!("/usernames/{}", segment(username))).await.map_err(shown)?;
    let user = found["user"].as_str().unwrap_or_default();
    services
        .post(&format!("/users/{}/roles", segment(user)), &json!({ "role": role }), None)
        .await
        .map_err(shown)?;
    Ok(())
}
