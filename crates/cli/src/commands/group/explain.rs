//! Why a key is where it is, in words for a person: what it waits for, since
//! when, and what to do where a person is needed.

use serde_json::Value;

use super::text;

pub fn sentence(group: &str, key: &Value) -> String {
    let name = text(&key["subject"]);
    let mut sentence = format!("{name}: {}", state(group, &name, key));
    if let Some(why) = held_up(group, key) {
        sentence += &format!("; {why}");
    }
    if key["state"] != "parked" && key["failed_attempts"].as_u64().unwrap_or_default() > 0 {
        let (attempts, error) = (attempts(&key["failed_attempts"]), first_line(&key["last_error"]));
        sentence += &format!("; {attempts} at it failed, the last: {error}");
    }
    let waiting = key["waiting"].as_u64().unwrap_or_default();
    if waiting > 1 {
        let more = waiting - 1;
        sentence +=
            &format!("; {more} more of its events wait{} behind it", if more == 1 { "s" } else { "" });
    }
    if let Some(owner) = key["owner"].as_str() {
        sentence += &format!("; it sticks to {owner}");
    }
    sentence
}

fn state(group: &str, name: &str, key: &Value) -> String {
    let next = text(&key["next"]);
    let act = |what: &str| format!("`daybook group parked {what} {} {}`", shell(group), shell(name));
    let person = || format!("{} tries it again, {} goes on without it", act("retry"), act("skip"));
    match key["state"].as_str().unwrap_or_default() {
        "absent" => format!(
            "nothing of it waits, as far as the group has read (up to position {})",
            text(&key["read"])
        ),
        "ready" => format!("position {next} waits for its turn"),
        "in-flight" => {
            let (instance, since, due) =
                (text(&key["instance"]), seconds(&key["for_ms"]), seconds(&key["due_in_ms"]));
            match key["asked"].as_bool() {
                Some(true) => format!(
                    "position {next} is with {instance} for {since}, which is too long: it was asked, and loses all its keys of this group in {due} unless it answers"
                ),
                _ => format!("position {next} is with {instance} for {since}, and has {due} left"),
            }
        }
        "backoff" => format!("position {next} is tried again in {}", seconds(&key["next_in_ms"])),
        "fencing" => format!(
            "position {next} waits until what its last session published is in the log and nothing more can follow"
        ),
        "saving" => format!("position {next} waits until its failed attempt is on disk"),
        "reserved" => format!(
            "position {next} waits for its session, whose connection is gone; if the same process is not back within 5 s, others get it"
        ),
        "parked" => format!(
            "parked at position {next} after {}: {}; {}",
            attempts(&key["attempts"]),
            first_line(&key["reason"]),
            person()
        ),
        "stopped" => format!(
            "the whole group is stopped here, at position {}, after {}: {}; {}",
            text(&key["stopped_at"]),
            attempts(&key["attempts"]),
            first_line(&key["reason"]),
            person()
        ),
        "behind" => {
            format!("it has a backlog of its own, which is read from the log from position {next} on")
        }
        other => other.to_owned(),
    }
}

/// What keeps it from going on beside its own state.
fn held_up(group: &str, key: &Value) -> Option<String> {
    let state = key["state"].as_str()?;
    let waits = matches!(state, "ready" | "behind" | "backoff" | "fencing" | "saving" | "absent");
    if waits && key["stopped_at"].is_string() {
        let at = text(&key["stopped_at"]);
        return Some(format!(
            "but the group is stopped at position {at}: see `daybook group parked ls {}`",
            shell(group)
        ));
    }
    if waits && key["members"] == 0 {
        return Some("but the group has no members".into());
    }
    if state == "ready" && key["suspect"] == true {
        return Some(
            "it was in the hands of a session that crashed, and such events are sent one at a time".into(),
        );
    }
    if state == "ready" && key["owner"].is_string() {
        return Some(match key["owner_connected"].as_bool() {
            Some(false) => "its instance is gone, and has 5 s to come back".into(),
            _ => "its instance holds as many events as it has credit for".into(),
        });
    }
    if state == "ready" {
        return Some("no instance has credit left".into());
    }
    None
}

fn attempts(number: &Value) -> String {
    match number.as_u64() {
        Some(1) => "1 attempt".into(),
        _ => format!("{} attempts", text(number)),
    }
}

/// What went wrong, without the stack that a script tells after it.
fn first_line(reason: &Value) -> String {
    text(reason).lines().next().unwrap_or_default().to_owned()
}

fn seconds(ms: &Value) -> String {
    format!("{:.1} s", ms.as_u64().unwrap_or_default() as f64 / 1_000.0)
}

/// A word as a shell takes it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.:@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(more: Value) -> Value {
        let mut key = json!({
            "subject": "account/42", "slot": 7, "owner": "a", "owner_connected": true, "waiting": 1, "next": "5",
            "failed_attempts": 0, "suspect": false, "last_error": null, "read": "9", "members": 2, "stopped_at": null
        });
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    #[test]
    fn each_state_says_what_the_key_waits_for() {
        for (more, says) in [
            (
                json!({"state": "absent", "next": null, "owner": null}),
                "nothing of it waits, as far as the group has read (up to position 9)",
            ),
            (json!({"state": "ready"}), "its instance holds as many events as it has credit for"),
            (json!({"state": "ready", "owner": null}), "no instance has credit left"),
            (json!({"state": "ready", "members": 0}), "the group has no members"),
            (json!({"state": "ready", "owner_connected": false}), "5 s to come back"),
            (json!({"state": "ready", "suspect": true}), "sent one at a time"),
            (
                json!({"state": "ready", "stopped_at": "3"}),
                "the group is stopped at position 3: see `daybook group parked ls g`",
            ),
            (
                json!({"state": "in-flight", "instance": "a", "for_ms": 1500, "due_in_ms": 500, "asked": false}),
                "with a for 1.5 s, and has 0.5 s left",
            ),
            (
                json!({"state": "in-flight", "instance": "a", "for_ms": 1500, "due_in_ms": 500, "asked": true}),
                "it was asked",
            ),
            (
                json!({"state": "backoff", "next_in_ms": 2000, "failed_attempts": 1, "last_error": "no such account\nstack traceback:"}),
                "again in 2.0 s; 1 attempt at it failed, the last: no such account; it sticks",
            ),
            (
                json!({"state": "parked", "attempts": 10, "reason": "why"}),
                "after 10 attempts: why; `daybook group parked retry g account/42` tries it again",
            ),
            (
                json!({"state": "stopped", "attempts": 10, "reason": "why", "stopped_at": "5"}),
                "the whole group is stopped here, at position 5",
            ),
            (json!({"state": "behind", "waiting": 0}), "from position 5 on"),
            (json!({"state": "ready", "waiting": 3}), "2 more of its events wait behind it"),
        ] {
            let sentence = sentence("g", &key(more));
            assert!(sentence.starts_with("account/42: ") && sentence.contains(says), "{sentence}");
        }
    }

    #[test]
    fn odd_keys_are_quoted_for_the_shell() {
        assert_eq!(shell("account/42"), "account/42");
        assert_eq!(shell("a b's"), r"'a b'\''s'");
    }
}
