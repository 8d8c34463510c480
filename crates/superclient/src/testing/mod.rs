//! Tests beside a script: given, when, then, on a real bus.
//!
//! # Promises
//! Each test has a bus of its own, given by the caller. Commands, handlers,
//! views and routes run as in the host; only delivery is left out: an event that
//! a test causes is handled at once.
//!
//! # Not here
//! Where the bus comes from, and how results are shown (cli).

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use daybook_client::{Client, ReadQuery};
use daybook_model::wire::Edge;
use daybook_model::{Data, NewEvent, Position};
use mlua::{Function, Lua, LuaSerdeExt, Table, Value};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::bindings::{ctx, entity::EntityHandle, results};
use crate::engine::{bus_error, instance, views};
use crate::http::{Table as Routes, routes};
use crate::machine::{CALL, Call, Kind, Machine, describe};
use crate::reload::read;
use crate::state::State;
use crate::{Limits, StartError, json};

const PRELUDE: &str = include_str!("prelude.lua");

/// A script and the tests beside it.
#[derive(Clone, Debug)]
pub struct TestFile {
    pub script: PathBuf,
    pub tests: PathBuf,
}

impl TestFile {
    /// Names of the tests, in order; they need no bus to be known.
    pub fn names(&self, limits: Limits) -> Result<Vec<String>, StartError> {
        Ok(Loaded::load(self, limits)?.names)
    }

    /// Runs the test number `i` on `bus`, which should be empty. `Err` is what
    /// failed, with file and line.
    pub async fn run(&self, i: usize, bus: &str, limits: Limits) -> Result<Result<(), String>, StartError> {
        let loaded = Loaded::load(self, limits)?;
        let service = loaded.machine.shared.definitions.borrow().name.clone();
        let client = Client::builder(bus).service(service.as_str()).connect().await?;
        let dir = std::env::temp_dir().join(format!("daybook-test-{}", uuid::Uuid::new_v4()));
        let fail = |reason: String| StartError::State { path: dir.clone(), reason };
        std::fs::create_dir_all(&dir).map_err(|error| fail(error.to_string()))?;
        let state = State::open(&dir.join("state.redb")).map_err(fail)?;
        let machine = &loaded.machine;
        let _ = machine.shared.client.set(client.clone());
        let _ = machine.shared.state.set(state);
        let outcome = LocalSet::new().run_until(loaded.test(i)).await;
        client.close().await;
        let _ = std::fs::remove_dir_all(&dir);
        Ok(outcome.map_err(|error| describe(&error)))
    }
}

struct Loaded {
    machine: Rc<Machine>,
    names: Vec<String>,
    run: Function,
    reached: watch::Sender<Position>,
}

impl Loaded {
    fn load(file: &TestFile, limits: Limits) -> Result<Self, StartError> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let machine = Machine::load(&name(&file.script), &read(&file.script)?, limits)?;
        let machine = Rc::new(machine);
        let reached = watch::Sender::new(Position::ZERO);
        let script = |error: mlua::Error| StartError::Script(describe(&error));
        let lua = &machine.lua;
        let host = host(&machine, &reached).map_err(script)?;
        let prelude = lua.load(PRELUDE).set_name("=testing");
        let (test, tests, run): (Function, Table, Function) = prelude.call(host).map_err(script)?;
        // The test file sees what scripts see, and the entities by their names.
        let environment = lua.create_table().map_err(script)?;
        let beyond = lua.create_table().map_err(script)?;
        beyond.set("__index", lua.globals()).map_err(script)?;
        environment.set_metatable(Some(beyond)).map_err(script)?;
        environment.set("test", test).map_err(script)?;
        for (name, entity) in &machine.shared.definitions.borrow().entities {
            let handle = EntityHandle { shared: machine.shared.clone(), entity: entity.clone() };
            environment.set(name.as_str(), handle).map_err(script)?;
        }
        let text = read(&file.tests)?;
        let chunk = lua.load(text).set_name(format!("@{}", name(&file.tests))).set_environment(environment);
        {
            let _entered = machine.budget.enter();
            chunk.set_mode(mlua::chunk::ChunkMode::Text).exec().map_err(script)?;
        }
        let named = |test: mlua::Result<Table>| test?.get::<String>("name");
        let names =
            tests.sequence_values::<Table>().map(named).collect::<mlua::Result<_>>().map_err(script)?;
        Ok(Self { machine, names, run, reached })
    }

    async fn test(&self, i: usize) -> mlua::Result<()> {
        let (machine, reached) = (self.machine.clone(), self.reached.clone());
        let following = tokio::task::spawn_local(async move { views::follow(&machine, &reached).await });
        let seed = uuid::Uuid::new_v4().to_string();
        let call = Call { correlation: Some(seed.clone()), ..Call::new(Kind::Route, seed, routes::clock()) };
        let run = instance::timed(&self.machine, self.run.call_async::<()>(i + 1));
        let outcome =
            match tokio::time::timeout(Duration::from_secs(30), CALL.scope(Rc::new(call), run)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(mlua::Error::runtime("the test did not end within 30 s")),
            };
        if following.is_finished() {
            return outcome.and(following.await.unwrap_or(Ok(())));
        }
        following.abort();
        outcome
    }
}

/// What the prelude needs of the host.
fn host(machine: &Rc<Machine>, reached: &watch::Sender<Position>) -> mlua::Result<Table> {
    let lua = &machine.lua;
    let host = lua.create_table()?;
    let shared = machine.shared.clone();
    let given = lua.create_async_function(move |lua, (subject, events): (String, Table)| {
        let shared = shared.clone();
        async move {
            let mut batch = Vec::new();
            for item in events.sequence_values::<Value>() {
                let item = item?;
                let (Some("event"), Value::Table(event)) = (results::kind(&item).as_deref(), &item) else {
                    return Err(mlua::Error::runtime("given: a list of event(…) is expected"));
                };
                batch.push(new(&lua, event.get("type")?, Some(subject.clone()), event.get("data")?)?);
            }
            shared.client()?.publish(batch).await.map_err(bus_error).map(drop)
        }
    })?;
    host.set("given", given)?;
    let shared = machine.shared.clone();
    let publish = lua.create_async_function(
        move |lua, (kind, subject, data): (String, Option<String>, Option<Value>)| {
            let shared = shared.clone();
            async move {
                let event = new(&lua, kind, subject, data)?;
                let id = event.id.clone();
                shared.client()?.publish(vec![event]).await.map_err(bus_error)?;
                Ok(id)
            }
        },
    )?;
    host.set("publish", publish)?;
    let shared = machine.shared.clone();
    let head = lua.create_async_function(move |_, ()| {
        let shared = shared.clone();
        async move {
            let query = ReadQuery { limit: Some(1), reverse: true, ..ReadQuery::default() };
            let page = shared.client()?.read(query).await.map_err(bus_error)?;
            Ok(page.events.first().map_or(Position::ZERO, |event| event.position.next()).to_string())
        }
    })?;
    host.set("head", head)?;
    let shared = machine.shared.clone();
    let events = lua.create_async_function(move |lua, from: String| {
        let shared = shared.clone();
        async move {
            let from = Edge::Position(from.parse().map_err(mlua::Error::external)?);
            let query = ReadQuery { from: Some(from), ..ReadQuery::default() };
            let found = lua.create_table()?;
            for event in shared.client()?.read(query).await.map_err(bus_error)?.events {
                found.push(ctx::event(&lua, &event)?)?;
            }
            Ok(found)
        }
    })?;
    host.set("events", events)?;
    let handling = machine.clone();
    let handle = lua.create_async_function(move |lua, id: String| {
        let machine = handling.clone();
        async move { handled(&lua, &machine, &id).await }
    })?;
    host.set("handle", handle)?;
    let (asked, reached) = (machine.clone(), reached.clone());
    let request =
        lua.create_async_function(move |lua, (method, path, body): (String, String, Option<Value>)| {
            let (machine, reached) = (asked.clone(), reached.subscribe());
            async move { requested(&lua, &machine, reached, method, &path, body).await }
        })?;
    host.set("request", request)?;
    Ok(host)
}

fn new(lua: &Lua, kind: String, subject: Option<String>, data: Option<Value>) -> mlua::Result<NewEvent> {
    let data = match data {
        None | Some(Value::Nil) => serde_json::json!({}),
        Some(data) => json::from_lua(lua, &data)?,
    };
    let data = Data::json(&data).map_err(mlua::Error::external)?;
    Ok(NewEvent { subject, data: Some(data), ..NewEvent::new(uuid::Uuid::now_v7().to_string(), kind) })
}

/// Runs the handler of a stored event as a delivery would.
async fn handled(lua: &Lua, machine: &Machine, id: &str) -> mlua::Result<Table> {
    let query = ReadQuery { limit: Some(1_000), reverse: true, ..ReadQuery::default() };
    let page = machine.shared.client()?.read(query).await.map_err(bus_error)?;
    let event = page.events.into_iter().find(|event| event.id == id);
    let event = event.ok_or_else(|| mlua::Error::runtime("the event that was caused is not there"))?;
    if !machine.shared.definitions.borrow().handlers.contains_key(&event.kind) {
        return Err(mlua::Error::runtime(format!("the script has no handler of `{}`", event.kind)));
    }
    let call = Rc::new(Call {
        cause: Some(event.clone()),
        correlation: Some(event.correlationid.clone()),
        position: Some(event.position),
        ..Call::new(Kind::Handler, event.id.clone(), event.recordedtime)
    });
    let parked = CALL.scope(call.clone(), instance::run_handler(machine, &call, &event)).await?;
    let outcome = lua.create_table()?;
    outcome.set("ok", parked.is_none())?;
    outcome.set("code", parked.as_ref().map(|_| "parked"))?;
    outcome.set("details", parked)?;
    Ok(outcome)
}

/// A route, once the views hold everything that was stored before.
async fn requested(
    lua: &Lua,
    machine: &Machine,
    mut reached: watch::Receiver<Position>,
    method: String,
    path: &str,
    body: Option<Value>,
) -> mlua::Result<Table> {
    let service = machine.shared.definitions.borrow().name.clone();
    let mut table = Routes::default();
    for route in &machine.shared.definitions.borrow().routes {
        table.add(&service, route).map_err(mlua::Error::external)?;
    }
    let json = body.map(|body| json::from_lua(lua, &body)).transpose()?;
    let query = ReadQuery { limit: Some(1), reverse: true, ..ReadQuery::default() };
    let page = machine.shared.client()?.read(query).await.map_err(bus_error)?;
    let answer = match table.incoming(&method, path, json) {
        Err(answer) => answer,
        Ok((key, mut request)) => {
            if let Some(last) = page.events.first()
                && !request.query.iter().any(|(name, _)| name == "after")
            {
                request.query.push(("after".into(), last.position.to_string()));
            }
            match routes::prepare(machine, &mut reached, &request, None).await {
                Err(answer) => answer,
                Ok(call) => {
                    let call = Rc::new(call);
                    let answer =
                        CALL.scope(call.clone(), routes::run(machine, &call, &key, &request, None)).await?;
                    instance::commit(machine, &call)?;
                    answer
                }
            }
        }
    };
    let found = lua.create_table()?;
    found.set("ok", answer.status < 400)?;
    found.set("status", answer.status)?;
    let code = answer.body.as_ref().and_then(|body| body["code"].as_str().map(str::to_owned));
    found.set("code", code.filter(|_| answer.status >= 400))?;
    found.set("json", answer.body.map_or(Ok(lua.null()), |body| json::to_lua(lua, &body))?)?;
    Ok(found)
}
