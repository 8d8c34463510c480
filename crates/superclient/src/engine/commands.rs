//! `entity:send` and `svc:publish`.

use std::rc::Rc;

use daybook_model::{Code, Event, ExtensionValue, Filter, NewEvent, Sequence};
use mlua::{Lua, Table, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ids::{id_of, seed_of};
use super::{ATTEMPTS_MAX, accepted, bus_error, entities, imagined, new_event, pause, publishing, rejected};
use crate::bindings::results::Made;
use crate::bindings::{args, chance::Scope, ctx, money::Money, results};
use crate::json;
use crate::machine::{Call, Decide, Entity, NAMESPACE, Pure, Shared};
use crate::report;

pub(crate) struct Request {
    pub entity: Rc<Entity>,
    pub id: String,
    pub name: String,
    pub command: Table,
    pub command_id: Option<String>,
    /// The caller names the sequence value himself: no other one will do.
    pub version: Option<u64>,
}

/// Decides and publishes, again and again until it is stored or rejected.
///
/// It is decided on what this host knows; if that makes events, the bus judges.
/// A rejection counts only on what the log holds now, and only if the log has
/// nothing of this command: it may be refused because it was done before.
pub(crate) async fn send(
    lua: &Lua,
    shared: &Shared,
    call: &Rc<Call>,
    request: Request,
) -> mlua::Result<Table> {
    let Request { entity, id, name, command, command_id, version } = request;
    let decide = entity.decide.borrow().get(&name).cloned();
    let decide = decide.ok_or_else(|| {
        let known = entity.decide.borrow();
        let asked = lua.create_string(&name).map_or(Value::Nil, Value::String);
        args::unknown(&format!("the entity `{}`", entity.name), &asked, known.keys().map(String::as_str))
    })?;
    if let Some((field, reason)) = misfit(&decide, &command)? {
        // A route hands this to its caller. A handler has made the fields itself, and seldom looks.
        if let (Some(cause), false) = (&call.cause, call.replaying) {
            let (entity, cause) = (&entity.name, report::caused_by(cause));
            tracing::warn!(
                target: "script",
                "{entity}:send(\"{id}\", \"{name}\"): the field `{field}` {reason}; nothing was done, the answer is a rejection `invalid`\n  while handling {cause}"
            );
        }
        return rejected(lua, "invalid", &field, &reason);
    }
    let subject = entities::subject(&entity, &id);
    let number = call.next_number();
    // A named command makes the same ids whoever sends it, whenever.
    let seed = match &command_id {
        Some(command_id) => Uuid::new_v5(&NAMESPACE, format!("command/{subject}/{command_id}").as_bytes()),
        None => seed_of(call, &format!("send/{number}")),
    };
    let mark = match command_id.or_else(|| call.cause.as_ref().map(|_| seed.to_string())) {
        Some(tag) => Some(Mark { tag, hash: command_hash(lua, &name, &command)? }),
        None => None,
    };
    if call.replaying {
        return match &mark {
            Some(mark) if let Some(done) = earlier(lua, shared, &subject, mark).await? => Ok(done),
            _ => rejected(lua, "replayed", "send", "it stored nothing then"),
        };
    }
    let _turn = shared.common()?.turns.take(std::slice::from_ref(&subject)).await;
    let mut judged = true;
    for attempt in 0..ATTEMPTS_MAX {
        pause(attempt).await;
        let before = call.judged.replace(judged);
        let fold = entities::expected(lua, shared, &entity, &id).await;
        call.judged.set(before);
        let fold = fold?;
        if let Some(version) = version
            && version != fold.next
        {
            // Perhaps it is this very command that has gone on.
            if let Some(mark) = &mark
                && let Some(done) = earlier(lua, shared, &subject, mark).await?
            {
                return Ok(done);
            }
            if std::mem::replace(&mut judged, false) {
                continue;
            }
            return other_version(lua, &subject, &fold);
        }
        let chance = Scope::enter(call, format!("{seed}/decide"));
        let decided = decided(lua, call, &name, &decide, &fold.state, &command)?;
        drop(chance);
        let events = match decided {
            Decided::Events(events) if !events.is_empty() => events,
            other => {
                if std::mem::replace(&mut judged, false)
                    && entities::fresh(lua, shared, &entity, &id).await?.next != fold.next
                {
                    continue;
                }
                if let Some(mark) = &mark
                    && publishing::is_known(shared, &id_of(seed, 0), &subject).await?
                    && let Some(done) = earlier(lua, shared, &subject, mark).await?
                {
                    return Ok(done);
                }
                return match other {
                    Decided::Rejected(table) => Ok(table),
                    Decided::Events(_) => accepted(lua, &[], None, false),
                };
            }
        };
        let mut batch = Vec::with_capacity(events.len());
        for (i, (kind, data)) in events.iter().enumerate() {
            if let Some(meant) = misspelt(&entity, kind) {
                let name = &entity.name;
                tracing::warn!(
                    target: "script",
                    "{name} emits `{kind}`, which no {name}:evolve takes, so its state stays as it is; there is one of `{meant}`"
                );
            }
            let mut new = new_event(lua, shared, call, id_of(seed, i), kind, Some(subject.clone()), data)?;
            new.sequence = Some(Sequence(fold.next + i as u64));
            if let Some(mark) = &mark {
                new.extensions.push(("commandid".into(), ExtensionValue::String(mark.tag.clone())));
                new.extensions.push(("commandhash".into(), ExtensionValue::String(mark.hash.clone())));
                new.extensions.sort_by(|a, b| a.0.cmp(&b.0));
            }
            batch.push(new);
        }
        let imagined: Vec<Event> =
            batch.iter().map(|new| imagined(new, new.sequence.map(|s| s.0), call)).collect();
        entities::rehearse(lua, &entity, &fold.state, &imagined)?;
        let ids: Vec<_> = batch.iter().map(|new| (new.id.clone(), new.kind.clone())).collect();
        let session = shared.client()?.session();
        match publishing::publish(shared, call, &batch).await? {
            Ok(receipt) => {
                match publishing::stored(shared, &session, batch, &receipt, |key| key == subject)? {
                    Some(events) => entities::stored(lua, shared, &entity, &events)?,
                    None => shared.entities.forget(&subject),
                }
                return accepted(lua, &ids, Some(receipt.position()), receipt.is_duplicate());
            }
            // Another writer was faster, or a twin of this command was: look again.
            Err(error) if matches!(error.code(), Code::Conflict | Code::IdConflict) => {
                judged = false;
                if let Some(mark) = &mark
                    && (error.code() == Code::IdConflict || attempt > 0)
                    && let Some(done) = earlier(lua, shared, &subject, mark).await?
                {
                    return Ok(done);
                }
                if error.code() == Code::IdConflict {
                    return Err(bus_error(error));
                }
            }
            Err(error) => return Err(bus_error(error)),
        }
    }
    Err(mlua::Error::runtime(format!("other writers of {subject} kept winning")))
}

/// The type that is folded and was probably meant; `None` too from the second time on.
fn misspelt(entity: &Entity, kind: &str) -> Option<String> {
    let evolve = entity.evolve.borrow();
    if evolve.contains_key(kind) || !entity.unfolded.borrow_mut().insert(kind.to_owned()) {
        return None;
    }
    // Types may be alike on purpose, `SeatHeld` and `SeatSold`; one letter is a slip.
    evolve.keys().find(|known| strsim::damerau_levenshtein(known, kind) == 1).cloned()
}

/// Whoever names a version decides himself what to do when it is gone.
fn other_version(lua: &Lua, subject: &str, fold: &entities::Fold) -> mlua::Result<Table> {
    let answer = rejected(lua, "conflict", "version", "others have changed it since")?;
    let details: Table = answer.get("details")?;
    details.set("subject", subject)?;
    details.set("version", fold.next.to_string())?;
    Ok(answer)
}

/// What the events of a command carry, so that a repeat finds them in the log.
struct Mark {
    tag: String,
    hash: String,
}

/// The answer to a command that the log has already.
async fn earlier(lua: &Lua, shared: &Shared, subject: &str, mark: &Mark) -> mlua::Result<Option<Table>> {
    let same = |event: &Event| publishing::text(event, "commandid") == Some(mark.tag.as_str());
    let Some(done) = publishing::marked(shared, Filter::subject(subject), same, "commandhash").await? else {
        return Ok(None);
    };
    if done.other.as_deref() != Some(mark.hash.as_str()) {
        return rejected(lua, "id-conflict", "id", "this command id was used with another body").map(Some);
    }
    accepted(lua, &done.events, Some(done.position), true).map(Some)
}

enum Decided {
    Rejected(Table),
    Events(Vec<(String, Value)>),
}

fn decided(
    lua: &Lua,
    call: &Rc<Call>,
    name: &str,
    decide: &Decide,
    state: &Value,
    command: &Table,
) -> mlua::Result<Decided> {
    let _pure = Pure::enter()?;
    let context = ctx::ctx(lua, call)?;
    let before = call.made.replace(0);
    let answer: Value = decide.function.call((json::copy(lua, state)?, command.clone(), context))?;
    let what = format_args!("the decide of `{name}`");
    results::forgotten(call, &decide.function, what, &answer, &[Made::Reject, Made::Event])?;
    call.made.set(before);
    let one = |table: &Table| -> mlua::Result<(String, Value)> {
        Ok((table.raw_get("type")?, table.raw_get("data")?))
    };
    match (results::kind(&answer).as_deref(), &answer) {
        (Some("reject"), Value::Table(table)) => Ok(Decided::Rejected(table.clone())),
        (Some("ok"), _) | (None, Value::Nil) => Ok(Decided::Events(Vec::new())),
        (Some("event"), Value::Table(table)) => Ok(Decided::Events(vec![one(table)?])),
        (None, Value::Table(list)) => {
            let mut events = Vec::new();
            for item in list.sequence_values::<Value>() {
                let item = item?;
                match (results::kind(&item).as_deref(), &item) {
                    (Some("event"), Value::Table(table)) => events.push(one(table)?),
                    _ => {
                        let told =
                            format!("{what}: a list must hold event(…) only, not {}", results::shown(&item));
                        return Err(results::at(&decide.function, &told));
                    }
                }
            }
            Ok(Decided::Events(events))
        }
        _ => {
            let shapes = "must return event(…), a list of them, ok(…) or reject(…)";
            let told = format!("{what} {shapes}, not {}", results::shown(&answer));
            Err(results::at(&decide.function, &told))
        }
    }
}

/// The first field that does not fit, and why.
fn misfit(decide: &Decide, command: &Table) -> mlua::Result<Option<(String, String)>> {
    for (field, kind, optional) in &decide.fields {
        let value: Value = command.get(field.as_str())?;
        if value.is_nil() || value.is_null() {
            if *optional {
                continue;
            }
            return Ok(Some((field.clone(), "is missing".into())));
        }
        let text =
            |value: &Value| value.as_string().and_then(|text| text.to_str().ok().map(|text| text.to_owned()));
        let fits = match kind.as_str() {
            "id" => text(&value).is_some_and(|text| !text.is_empty() && text.len() <= 200),
            "string" => text(&value).is_some(),
            "integer" => match &value {
                Value::Integer(_) => true,
                Value::Number(n) => n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0,
                _ => false,
            },
            "boolean" => matches!(value, Value::Boolean(_)),
            "money" => matches!(&value, Value::UserData(data) if data.is::<Money>()),
            "currency" => text(&value).is_some_and(|text| Money::new(0, &text).is_ok()),
            _ => matches!(value, Value::Table(_)),
        };
        if !fits {
            return Ok(Some((field.clone(), format!("must be of kind {kind}"))));
        }
    }
    for pair in command.pairs::<Value, Value>() {
        let (key, _) = pair?;
        let name = key.to_string()?;
        if !decide.fields.iter().any(|(field, _, _)| *field == name) {
            return Ok(Some((name, "is unknown to this command".into())));
        }
    }
    Ok(None)
}

fn command_hash(lua: &Lua, name: &str, command: &Table) -> mlua::Result<String> {
    let body = json::from_lua(lua, &Value::Table(command.clone()))?;
    let digest = Sha256::digest(format!("{name}\0{body}").as_bytes());
    Ok(digest[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A fact that decides nothing: at the next value of its key, if it has one.
pub(crate) async fn publish(
    lua: &Lua,
    shared: &Shared,
    call: &Rc<Call>,
    kind: String,
    subject: Option<String>,
    data: Option<Value>,
) -> mlua::Result<Table> {
    let id = seed_of(call, &format!("publish/{}", call.next_number())).to_string();
    let new: NewEvent =
        new_event(lua, shared, call, id.clone(), &kind, subject, &data.unwrap_or(Value::Nil))?;
    if call.replaying {
        return accepted(lua, &[(id, kind)], None, true);
    }
    let receipt = publishing::publish(shared, call, &[new]).await?.map_err(bus_error)?;
    accepted(lua, &[(id, kind)], Some(receipt.position()), receipt.is_duplicate())
}

#[cfg(test)]
mod tests {
    use mlua::Lua;

    use super::*;

    #[test]
    fn a_type_that_is_one_letter_from_a_folded_one_is_told_once() {
        let lua = Lua::new();
        let nothing = || lua.create_function(|_, ()| Ok(())).unwrap();
        let entity = Entity {
            name: "card".into(),
            initial: nothing(),
            decide: std::cell::RefCell::default(),
            evolve: std::cell::RefCell::new([("PointSpent".to_owned(), nothing())].into()),
            unfolded: std::cell::RefCell::default(),
        };
        assert_eq!(misspelt(&entity, "PointSpent"), None);
        assert_eq!(misspelt(&entity, "PointLost"), None);
        assert_eq!(misspelt(&entity, "PointsSpent").as_deref(), Some("PointSpent"));
        assert_eq!(misspelt(&entity, "PointsSpent"), None, "it was told before");
    }
}
