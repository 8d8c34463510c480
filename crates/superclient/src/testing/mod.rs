//! Tests beside a script: given, when, then, on a real bus.
//!
//! # Promises
//! Each run has a bus of its own, given by the caller. Commands, handlers, views
//! and routes run as in the host; only delivery is left out: an event that a
//! test causes is handled at once.
//!
//! # Not here
//! Where the bus comes from, and how results are shown (cli). Crashes: `crash.rs`.

mod crash;
mod stage;
pub(crate) mod stand_in;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use daybook_client::Client;
use mlua::{Function, Table};
use tokio::task::LocalSet;

pub use crash::CrashPoint;
use stage::Stage;

use crate::bindings::entity::EntityHandle;
use crate::bundle::Bundle;
use crate::engine::setbacks::Setbacks;
use crate::engine::{instance, views};
use crate::http::routes;
use crate::machine::{CALL, Call, Kind, Machine};
use crate::state::State;
use crate::{Limits, StartError, StateLocation, report};

const PRELUDE: &str = include_str!("prelude.lua");

/// A whole test is one call of its script, so it has more time than a handler.
const LIMITS: Limits =
    Limits { memory_bytes: 256 << 20, compute: Duration::from_secs(10), wall: Duration::from_secs(30) };

/// A script and the tests beside it.
#[derive(Clone, Debug)]
pub struct TestFile {
    pub script: PathBuf,
    pub tests: PathBuf,
}

/// What one run of one test came to.
#[derive(Debug)]
pub struct Run {
    /// What failed, with file and line.
    pub failed: Option<String>,
    /// Where the test wants to be run again with a crash.
    pub crash_points: Vec<CrashPoint>,
}

impl TestFile {
    /// Names of the tests, in order; they need no bus to be known.
    pub fn names(&self) -> Result<Vec<String>, StartError> {
        Ok(Loaded::load(self)?.names)
    }

    /// Runs the test number `i` on `bus`, which should be empty; with a crash at
    /// one of the points that its run without one has asked for.
    pub async fn run(&self, i: usize, bus: &str, crash: Option<&CrashPoint>) -> Result<Run, StartError> {
        let loaded = Loaded::load(self)?;
        let service = loaded.machine.shared.definitions.borrow().name.clone();
        let client = Client::builder(bus).service(service.as_str()).connect().await?;
        let dir = std::env::temp_dir().join(format!("daybook-test-{}", uuid::Uuid::new_v4()));
        let state = State::open(&StateLocation::Dir(dir.clone()), &service)?;
        // The bus is empty, so there is nothing to fill the tables with.
        let filled = state.tables().and_then(|tables| tables.mark_filled());
        filled.map_err(|error| StartError::State { path: dir.clone(), reason: error.to_string() })?;
        let shared = &loaded.machine.shared;
        let _ = shared.client.set(client.clone());
        let _ = shared.state.set(state);
        let _ = shared.stand_in.set(loaded.stage.others.clone());
        *loaded.stage.crash.borrow_mut() = crash.cloned();
        let outcome = LocalSet::new().run_until(loaded.test(i)).await;
        client.close().await;
        let _ = std::fs::remove_dir_all(&dir);
        let failed = outcome.err().map(|error| loaded.told(&error));
        Ok(Run { failed, crash_points: loaded.stage.points.take() })
    }
}

struct Loaded {
    machine: Rc<Machine>,
    tests: Arc<Bundle>,
    stage: Rc<Stage>,
    names: Vec<String>,
    run: Function,
}

impl Loaded {
    fn load(file: &TestFile) -> Result<Self, StartError> {
        let bundle = Arc::new(Bundle::read(&file.script)?);
        let tests = Arc::new(Bundle::read(&file.tests)?);
        let machine = Rc::new(Machine::load(&bundle, LIMITS)?);
        let stage = Rc::new(Stage::new(&machine, &bundle));
        let script = |error: mlua::Error| {
            let described = report::describe(&error);
            StartError::Script(report::with_source(described, Some(&tests.text), &[]))
        };
        let lua = &machine.lua;
        let host = stage::host(&stage).map_err(script)?;
        let prelude = lua.load(PRELUDE).set_name("=testing");
        let (test, list, run): (Function, Table, Function) = prelude.call(host).map_err(script)?;
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
        let chunk = lua.load(tests.text.as_str()).set_name(format!("@{}", tests.name));
        let chunk = chunk.set_environment(environment).set_mode(mlua::chunk::ChunkMode::Text);
        {
            let _entered = machine.budget.enter();
            chunk.exec().map_err(script)?;
        }
        let named = |test: mlua::Result<Table>| test?.get::<String>("name");
        let names =
            list.sequence_values::<Table>().map(named).collect::<mlua::Result<_>>().map_err(script)?;
        Ok(Self { machine, tests, stage, names, run })
    }

    async fn test(&self, i: usize) -> mlua::Result<()> {
        let (machine, reached) = (self.machine.clone(), self.stage.reached.clone());
        let tables = machine.shared.state()?.tables().map_err(mlua::Error::external)?;
        let strict = Setbacks::strict();
        let following = views::follow(&machine, &tables, &reached, &strict);
        let seed = uuid::Uuid::new_v4().to_string();
        let call = Call { correlation: Some(seed.clone()), ..Call::new(Kind::Route, seed, routes::clock()) };
        let run = instance::timed(&self.machine, self.run.call_async::<()>(i + 1));
        tokio::select! {
            outcome = CALL.scope(Rc::new(call), run) => outcome,
            // A view that fails is the reason of whatever the test waits for.
            Err(error) = following => Err(error),
        }
    }

    /// What failed: a promise of the test needs no trace, a failing script does.
    fn told(&self, error: &mlua::Error) -> String {
        let described = report::describe(error);
        let in_test = report::file(&described).is_some_and(|file| file == self.tests.name);
        if in_test {
            let lines = described.lines().filter(|line| !line.starts_with("  at "));
            return lines.collect::<Vec<_>>().join("\n");
        }
        self.machine.explain(error)
    }
}
