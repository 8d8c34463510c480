//! What the prelude needs of the host: the bus, and the actions of a test.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use daybook_client::ReadQuery;
use daybook_model::wire::Edge;
use daybook_model::{Data, Event, NewEvent, Position};
use mlua::{Lua, LuaSerdeExt, Table, Value};
use serde_json::Value as Json;
use tokio::sync::watch;

use super::crash::{self, CrashPoint};
use super::stand_in::{Given, StandIn};
use crate::bindings::{args, ctx, entity, results};
use crate::bundle::Bundle;
use crate::engine::{bus_error, commands, instance, timers};
use crate::http::{Table as Routes, routes};
use crate::json;
use crate::machine::{CALL, Call, Kind, Machine, OWN};

pub(super) struct Stage {
    pub machine: Rc<Machine>,
    pub bundle: Arc<Bundle>,
    pub reached: watch::Sender<Position>,
    /// What all other services are here.
    pub others: Rc<StandIn>,
    /// The crash of this run, if it has one.
    pub crash: RefCell<Option<CrashPoint>>,
    /// Crashes that the test asks for.
    pub points: RefCell<Vec<CrashPoint>>,
    actions: Cell<u32>,
    /// The action that those after it, up to now, follow from.
    first: Cell<u32>,
    /// Requests that other services had before the last action.
    asked_before: Cell<usize>,
    /// What that action and those that follow from it passed: action, step of it, words.
    steps: RefCell<Vec<(u32, usize, &'static str)>>,
}

/// Something that a test does to its service.
pub(super) enum Action {
    Send { entity: String, id: String, command: String, fields: Json, key: String },
    Handle { event: String },
    Due { event: String },
    Request { method: String, path: String, body: Option<Json>, headers: Vec<(String, String)> },
}

impl Stage {
    pub fn new(machine: &Rc<Machine>, bundle: &Arc<Bundle>) -> Self {
        Self {
            machine: machine.clone(),
            bundle: bundle.clone(),
            reached: watch::Sender::new(Position::ZERO),
            others: Rc::default(),
            crash: RefCell::default(),
            points: RefCell::default(),
            actions: Cell::new(0),
            first: Cell::new(0),
            asked_before: Cell::new(0),
            steps: RefCell::default(),
        }
    }

    async fn act(&self, action: &Action, follows: bool) -> mlua::Result<Json> {
        let number = self.actions.get() + 1;
        self.actions.set(number);
        if !follows {
            self.first.set(number);
            self.asked_before.set(self.others.count());
            self.steps.borrow_mut().clear();
        }
        let point = self.crash.borrow().clone().filter(|point| point.action == number);
        if let Some(point) = point {
            return crash::act(self, action, &point).await;
        }
        self.machine.shared.outlet.take_steps();
        let answer = self.perform(&self.machine, action).await;
        let passed = self.machine.shared.outlet.take_steps().into_iter().enumerate();
        self.steps.borrow_mut().extend(passed.map(|(i, what)| (number, i + 1, what)));
        answer
    }

    pub async fn perform(&self, machine: &Machine, action: &Action) -> mlua::Result<Json> {
        match action {
            Action::Send { entity, id, command, fields, key } => {
                send(machine, entity, id, command, fields, key).await
            }
            Action::Handle { event } => handled(machine, event).await,
            Action::Due { event } => due(machine, event).await,
            Action::Request { method, path, body, headers } => {
                requested(machine, self.reached.subscribe(), method, path, body.clone(), headers).await
            }
        }
    }

    /// What is to be the same with and without a crash.
    async fn outcome(&self, from: &str) -> mlua::Result<Json> {
        let mut list = Vec::new();
        for event in events(&self.machine, from).await? {
            let data = match &event.data {
                Some(Data::Json(raw)) => serde_json::from_str(raw.get()).map_err(mlua::Error::external)?,
                _ => Json::Null,
            };
            list.push(serde_json::json!({ "type": event.kind, "subject": event.subject, "data": data }));
        }
        let mut kept = serde_json::Map::new();
        let tables = self.machine.shared.state()?.tables().map_err(mlua::Error::external)?;
        for (key, value) in tables.scan(OWN).map_err(mlua::Error::external)? {
            let key = String::from_utf8_lossy(&key[OWN.len()..]).into_owned();
            kept.insert(key, serde_json::from_slice(&value).map_err(mlua::Error::external)?);
        }
        // Reading another service twice changes nothing there.
        let asked: Vec<Json> = self
            .others
            .since(self.asked_before.get())
            .into_iter()
            .filter(|asked| asked["method"] != "GET")
            .collect();
        Ok(crash::masked(serde_json::json!({ "events": list, "kv": kept, "asked": asked })))
    }

    /// `Some` says how a crash made another outcome than one run without.
    async fn crash_at_every_step(&self, from: &str) -> mlua::Result<Option<(Json, Json)>> {
        let actions = self.first.get()..=self.actions.get();
        let outcome = self.outcome(from).await?;
        let point = self.crash.borrow().clone();
        match point {
            Some(point) if actions.contains(&point.action) && point.expected != outcome => {
                Ok(Some((point.expected, outcome)))
            }
            Some(_) => Ok(None),
            None => {
                let steps = self.steps.borrow();
                let points = steps.iter().map(|(action, step, what)| CrashPoint {
                    action: *action,
                    step: *step,
                    what,
                    expected: outcome.clone(),
                });
                self.points.borrow_mut().extend(points);
                Ok(None)
            }
        }
    }
}

pub(super) fn host(stage: &Rc<Stage>) -> mlua::Result<Table> {
    let lua = &stage.machine.lua;
    let host = lua.create_table()?;
    let name = lua.create_function(|_, value: Value| match &value {
        Value::UserData(handle) => match handle.borrow::<entity::EntityHandle>() {
            Ok(handle) => Ok(Some(handle.entity.name.clone())),
            Err(_) => Ok(None),
        },
        _ => Ok(None),
    })?;
    host.set("name", name)?;
    let entities = lua.create_table()?;
    for (name, entity) in &stage.machine.shared.definitions.borrow().entities {
        let handle = entity::EntityHandle { shared: stage.machine.shared.clone(), entity: entity.clone() };
        entities.set(name.as_str(), handle)?;
    }
    host.set("entities", entities)?;
    let on = stage.clone();
    let given = lua.create_async_function(move |lua, (subject, events): (String, Table)| {
        let on = on.clone();
        async move {
            let mut batch = Vec::new();
            for item in events.sequence_values::<Value>() {
                let item = item?;
                let (Some("event"), Value::Table(event)) = (results::kind(&item).as_deref(), &item) else {
                    return Err(mlua::Error::runtime("t:given: a list of event(…) is expected"));
                };
                batch.push(new(&lua, event.get("type")?, Some(subject.clone()), event.get("data")?)?);
            }
            if batch.is_empty() {
                return Ok(());
            }
            on.machine.shared.client()?.publish(batch).await.map_err(bus_error).map(drop)
        }
    })?;
    host.set("given", given)?;
    let on = stage.clone();
    let publish = lua.create_async_function(
        move |lua, (kind, subject, data): (String, Option<String>, Option<Value>)| {
            let on = on.clone();
            async move {
                let event = new(&lua, kind, subject, data)?;
                let id = event.id.clone();
                on.machine.shared.client()?.publish(vec![event]).await.map_err(bus_error)?;
                Ok(id)
            }
        },
    )?;
    host.set("publish", publish)?;
    let on = stage.clone();
    let head = lua.create_async_function(move |_, ()| {
        let on = on.clone();
        async move {
            last(&on.machine).await.map(|last| last.map_or(Position::ZERO, |last| last.next()).to_string())
        }
    })?;
    host.set("head", head)?;
    let on = stage.clone();
    let list = lua.create_async_function(move |lua, from: String| {
        let on = on.clone();
        async move {
            let found = lua.create_table()?;
            for event in events(&on.machine, &from).await? {
                found.push(ctx::event(&lua, &event)?)?;
            }
            Ok(found)
        }
    })?;
    host.set("events", list)?;
    let on = stage.clone();
    let give =
        lua.create_function(move |lua, (method, service, path, answer): (String, String, String, Value)| {
            let answer = match answer {
                Value::Nil => None,
                answer => Some(routes::said(lua, &answer)?),
            };
            on.others.give(Given { method: method.to_uppercase(), service, path, answer });
            Ok(())
        })?;
    host.set("given_http", give)?;
    let on = stage.clone();
    let asked = lua.create_function(move |lua, ()| {
        json::to_lua(lua, &Json::Array(on.others.since(on.asked_before.get())))
    })?;
    host.set("asked", asked)?;
    let on = stage.clone();
    let act = lua.create_async_function(move |lua, wanted: Table| {
        let on = on.clone();
        async move {
            let action = action(&lua, &wanted)?;
            // A repeat is no action of its own, and a GET changes nothing: neither is what crashes.
            let is_read = matches!(&action, Action::Request { method, .. } if method == "GET");
            let answer = if is_read || wanted.get::<Option<bool>>("again")? == Some(true) {
                on.perform(&on.machine, &action).await?
            } else {
                on.act(&action, wanted.get::<Option<bool>>("follows")? == Some(true)).await?
            };
            json::to_lua(&lua, &answer)
        }
    })?;
    host.set("act", act)?;
    let on = stage.clone();
    let crash = lua.create_async_function(move |lua, from: String| {
        let on = on.clone();
        async move {
            match on.crash_at_every_step(&from).await? {
                None => Ok((Value::Nil, Value::Nil)),
                Some((expected, found)) => Ok((json::to_lua(&lua, &expected)?, json::to_lua(&lua, &found)?)),
            }
        }
    })?;
    host.set("crash", crash)?;
    let on = stage.clone();
    let handles = lua.create_function(move |_, kind: String| {
        Ok(on.machine.shared.definitions.borrow().handlers.contains_key(&kind))
    })?;
    host.set("handles", handles)?;
    host.set("null", lua.null())?;
    Ok(host)
}

fn action(lua: &Lua, wanted: &Table) -> mlua::Result<Action> {
    let json = |name: &str| -> mlua::Result<Option<Json>> {
        match wanted.get::<Value>(name)? {
            Value::Nil => Ok(None),
            value => json::from_lua(lua, &value).map(Some),
        }
    };
    Ok(match wanted.get::<String>("kind")?.as_str() {
        "send" => Action::Send {
            entity: wanted.get("entity")?,
            id: wanted.get("id")?,
            command: wanted.get("command")?,
            fields: json("fields")?.unwrap_or_else(|| serde_json::json!({})),
            key: wanted.get("key")?,
        },
        "handle" => Action::Handle { event: wanted.get("event")? },
        "due" => Action::Due { event: wanted.get("event")? },
        _ => {
            let mut headers = Vec::new();
            if let Some(given) = wanted.get::<Option<Table>>("headers")? {
                for pair in given.pairs::<String, String>() {
                    let (name, value) = pair?;
                    headers.push((name.to_ascii_lowercase(), value));
                }
            }
            Action::Request {
                method: wanted.get("method")?,
                path: wanted.get("path")?,
                body: json("body")?,
                headers,
            }
        }
    })
}

fn new(lua: &Lua, kind: String, subject: Option<String>, data: Option<Value>) -> mlua::Result<NewEvent> {
    let data = match data {
        None | Some(Value::Nil) => serde_json::json!({}),
        Some(data) => json::from_lua(lua, &data)?,
    };
    let data = Data::json(&data).map_err(mlua::Error::external)?;
    Ok(NewEvent { subject, data: Some(data), ..NewEvent::new(uuid::Uuid::now_v7().to_string(), kind) })
}

async fn last(machine: &Machine) -> mlua::Result<Option<Position>> {
    let query = ReadQuery { limit: Some(1), reverse: true, ..ReadQuery::default() };
    let page = machine.shared.client()?.read(query).await.map_err(bus_error)?;
    Ok(page.events.first().map(|event| event.position))
}

async fn events(machine: &Machine, from: &str) -> mlua::Result<Vec<Arc<Event>>> {
    let from = Edge::Position(from.parse().map_err(mlua::Error::external)?);
    let mut found = Vec::new();
    let each = |event: Arc<Event>| {
        found.push(event);
        Ok::<_, daybook_client::ReadError>(())
    };
    let query = ReadQuery { from: Some(from), ..ReadQuery::default() };
    machine.shared.client()?.read_all(query, each).await.map_err(bus_error)?;
    Ok(found)
}

async fn send(
    machine: &Machine,
    entity: &str,
    id: &str,
    command: &str,
    fields: &Json,
    key: &str,
) -> mlua::Result<Json> {
    let lua = &machine.lua;
    let definition = machine.shared.definitions.borrow().entities.get(entity).cloned();
    let definition = definition.ok_or_else(|| {
        let known = &machine.shared.definitions.borrow().entities;
        let name = lua.create_string(entity).map_or(Value::Nil, Value::String);
        args::unknown("the service", &name, known.keys().map(String::as_str))
    })?;
    let Value::Table(fields) = json::to_lua(lua, fields)? else {
        return Err(mlua::Error::runtime("t:when: the fields are a table"));
    };
    let request = commands::Request {
        entity: definition,
        id: id.to_owned(),
        name: command.to_owned(),
        command: fields,
        command_id: Some(key.to_owned()),
        version: None,
    };
    let seed = format!("test/{key}");
    let correlation = uuid::Uuid::new_v5(&crate::machine::NAMESPACE, seed.as_bytes()).to_string();
    let call =
        Rc::new(Call { correlation: Some(correlation), ..Call::new(Kind::Route, seed, routes::clock()) });
    let answer = CALL.scope(call.clone(), entity::send(lua, &machine.shared, &call, request)).await?;
    json::from_lua(lua, &Value::Table(answer))
}

async fn stored(machine: &Machine, id: &str) -> mlua::Result<Arc<Event>> {
    let query = ReadQuery { limit: Some(1_000), reverse: true, ..ReadQuery::default() };
    let page = machine.shared.client()?.read(query).await.map_err(bus_error)?;
    let event = page.events.into_iter().find(|event| event.id == id);
    event.ok_or_else(|| mlua::Error::runtime("the event that was caused is not there"))
}

/// Runs the handler of a stored event as a delivery would.
async fn handled(machine: &Machine, id: &str) -> mlua::Result<Json> {
    let event = stored(machine, id).await?;
    known_to(machine, &event.kind)?;
    let parked = instance::once(machine, &event, None).await?;
    Ok(match parked {
        None => serde_json::json!({ "ok": true }),
        Some(why) => serde_json::json!({ "ok": false, "code": "parked", "details": why }),
    })
}

/// An error if the script does nothing with events of this type: it is probably misspelt.
/// One that it only folds, shows in a view or waits for has happened, and that is all.
fn known_to(machine: &Machine, kind: &str) -> mlua::Result<()> {
    let known = machine.shared.definitions.borrow();
    let mut kinds: BTreeSet<String> = known.handlers.keys().cloned().collect();
    for entity in known.entities.values() {
        kinds.extend(entity.evolve.borrow().keys().cloned());
    }
    kinds.extend(known.views.iter().flat_map(|view| view.types.iter().cloned()));
    kinds.extend(known.timers.iter().map(|timer| timer.kind.clone()));
    if kinds.contains(kind) {
        return Ok(());
    }
    let name = Value::String(machine.lua.create_string(kind)?);
    Err(args::unknown("the script", &name, kinds.iter().map(String::as_str)))
}

/// Fires the timers of a stored event.
async fn due(machine: &Machine, id: &str) -> mlua::Result<Json> {
    let event = stored(machine, id).await?;
    match timers::fire_all(machine, &event).await? {
        0 => Err(mlua::Error::runtime(format!("the script has no svc:after of `{}`", event.kind))),
        _ => Ok(serde_json::json!({ "ok": true })),
    }
}

/// A route, once the views hold everything that was stored before.
async fn requested(
    machine: &Machine,
    mut reached: watch::Receiver<Position>,
    method: &str,
    path: &str,
    body: Option<Json>,
    headers: &[(String, String)],
) -> mlua::Result<Json> {
    let service = machine.shared.definitions.borrow().name.clone();
    let mut table = Routes::default();
    for route in &machine.shared.definitions.borrow().routes {
        table.add(&service, route).map_err(mlua::Error::external)?;
    }
    let answer = match table.incoming(method, path, body) {
        Err(answer) => answer,
        Ok((key, mut request)) => {
            request.headers = headers.to_vec();
            if let Some(last) = last(machine).await?
                && !request.query.iter().any(|(name, _)| name == "after")
            {
                request.query.push(("after".into(), last.to_string()));
            }
            match routes::prepare(machine, &mut reached, &request, None).await {
                Err(answer) => answer,
                Ok(call) => {
                    let call = Rc::new(call);
                    let run = routes::run(machine, &call, &key, &request, None);
                    let ran = CALL.scope(call.clone(), run).await;
                    match ran.and_then(|answer| instance::commit(machine, &call).map(|()| answer)) {
                        Ok(answer) => answer,
                        // As the host would answer, but a broken script fails its test.
                        Err(error) => match routes::failed(&error) {
                            answer if answer.status < 500 => answer,
                            _ => return Err(error),
                        },
                    }
                }
            }
        }
    };
    let code = answer.body.as_ref().and_then(|body| body["code"].as_str().map(str::to_owned));
    let code = code.filter(|_| answer.status >= 400);
    let headers: serde_json::Map<_, _> =
        answer.headers.into_iter().map(|(name, value)| (name, value.into())).collect();
    Ok(serde_json::json!({
        "ok": answer.status < 400, "status": answer.status, "code": code, "json": answer.body, "headers": headers,
    }))
}
