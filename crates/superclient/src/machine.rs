//! One Lua machine and what its scripts share: definitions, entities, the bus.
//!
//! A machine lives on one thread. Its calls are coroutines that wait for the
//! bus without holding the thread.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use daybook_client::Client;
use daybook_model::{Event, Position, Timestamp};
use mlua::{AnyUserData, Function, Lua, LuaOptions, StdLib, Value};
use uuid::Uuid;

use crate::bindings::chance::Chance;
use crate::bundle::Bundle;
use crate::config::Limits;
use crate::engine::common::Common;
use crate::engine::entities::Entities;
use crate::engine::outlet::Outlet;
use crate::engine::snapshots::Snapshots;
use crate::host::Directory;
use crate::limits::Budget;
use crate::state::{self, State, Tables};
use crate::testing::stand_in::StandIn;
use crate::{StartError, bindings, report};

pub(crate) use crate::report::describe;

/// What a script has declared.
#[derive(Default)]
pub(crate) struct Definitions {
    pub name: String,
    pub entities: HashMap<String, Rc<Entity>>,
    pub handlers: HashMap<String, Function>,
    pub receipts: HashMap<String, Function>,
    pub views: Vec<View>,
    pub timers: Vec<Timer>,
    pub rebuild: Rebuild,
    pub routes: Vec<Route>,
}

pub(crate) struct Entity {
    pub name: String,
    pub initial: Function,
    pub decide: RefCell<HashMap<String, Decide>>,
    pub evolve: RefCell<HashMap<String, Function>>,
    /// Types that it emits and does not fold: looked at once each.
    pub unfolded: RefCell<HashSet<String>>,
}

#[derive(Clone)]
pub(crate) struct Decide {
    /// Name, kind, optional.
    pub fields: Vec<(String, String, bool)>,
    pub function: Function,
}

pub(crate) struct View {
    pub name: String,
    pub types: Vec<String>,
    /// Its table, as its function gets it.
    pub kv: AnyUserData,
    pub function: Function,
}

/// Method and path as the script wrote them.
pub(crate) type RouteKey = Arc<str>;

impl Route {
    pub fn key(&self) -> RouteKey {
        format!("{} {}", self.method, self.path).into()
    }
}

/// Something to be done a while after each event of a type.
pub(crate) struct Timer {
    pub kind: String,
    pub delay: std::time::Duration,
    pub function: Function,
}

/// Called around the refilling of the service's tables.
#[derive(Clone, Default)]
pub(crate) struct Rebuild {
    pub before: Option<Function>,
    pub after: Option<Function>,
}

/// Names of fields that are never logged.
#[derive(Default)]
pub(crate) struct Secrets(pub Vec<String>);

pub(crate) struct Route {
    pub method: String,
    pub path: String,
    pub function: Function,
    /// Types to follow, for a stream.
    pub stream: Option<Vec<String>>,
}

pub(crate) type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What the running call is: found again wherever the host is called back.
pub(crate) struct Call {
    pub kind: Kind,
    pub cause: Option<Arc<Event>>,
    /// Delivery token: fences what the call publishes.
    pub token: Option<String>,
    pub correlation: Option<String>,
    /// Seeds ids: the cause, or the request.
    pub seed: String,
    pub now: Timestamp,
    pub position: Option<Position>,
    /// Writes of `kv`, committed when the call ends well.
    pub overlay: RefCell<Overlay>,
    /// Rows of the service's own table as a handler has read them: its commit
    /// is refused if they are not so any more.
    pub reads: RefCell<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// Which tables it sees; `None`: those that are read when it asks.
    pub tables: Option<Tables>,
    /// Reads come from the overlay alone: a view as of another time.
    pub scratch: bool,
    pub calls: Cell<u32>,
    /// Requests to other services that change something.
    pub asked: Cell<u32>,
    /// What it has drawn of chance.
    pub chance: RefCell<Chance>,
    /// The event was handled before; only its rows are written again.
    pub replaying: bool,
    /// What it decides now is judged by the bus, so it may rest on what this
    /// host knows.
    pub judged: Cell<bool>,
    /// Inside `decide`, `evolve` or a view, where nothing may be done.
    pub pure: Cell<u32>,
    /// Inside `atomically`, where only `tx` may do anything.
    pub atomic: Cell<bool>,
    /// Entities are read as of then: the request's `?at=`.
    pub at: Option<String>,
    /// Services that ask each other: how many are waiting for this one's answer.
    pub depth: u32,
    /// Lines that `ctx.log` and `print` have written.
    pub logged: Cell<u32>,
    /// Results that the script has made, as bits: one that is made and not returned is a slip.
    pub made: Cell<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Route,
    Handler,
    View,
}

tokio::task_local! {
    pub(crate) static CALL: Rc<Call>;
}

impl Call {
    pub fn new(kind: Kind, seed: String, now: Timestamp) -> Self {
        Self {
            kind,
            cause: None,
            token: None,
            correlation: None,
            seed,
            now,
            position: None,
            overlay: RefCell::default(),
            reads: RefCell::default(),
            tables: None,
            scratch: false,
            calls: Cell::new(0),
            asked: Cell::new(0),
            chance: RefCell::default(),
            replaying: false,
            judged: Cell::new(false),
            pure: Cell::new(0),
            atomic: Cell::new(false),
            at: None,
            depth: 0,
            logged: Cell::new(0),
            made: Cell::new(0),
        }
    }

    /// Until the guard is dropped, only `tx` has effects.
    pub fn enter_atomically(self: &Rc<Self>) -> Atomic {
        self.atomic.set(true);
        Atomic(self.clone())
    }

    /// Number of the next send, atomically or publish of this call.
    pub fn next_number(&self) -> u32 {
        self.calls.set(self.calls.get() + 1);
        self.calls.get()
    }

    fn tables(&self, shared: &Shared) -> mlua::Result<Tables> {
        match &self.tables {
            Some(tables) => Ok(tables.clone()),
            None => shared.state()?.tables().map_err(mlua::Error::external),
        }
    }

    /// A row as it is stored.
    pub fn row(&self, shared: &Shared, key: &[u8]) -> mlua::Result<Option<Vec<u8>>> {
        let mut tables = self.tables(shared)?;
        let value = match tables.get(key) {
            Err(state::Error::Moved) if self.tables.is_none() => {
                tables = shared.state()?.look_again().map_err(mlua::Error::external)?;
                tables.get(key)
            }
            outcome => outcome,
        };
        let value = value.map_err(mlua::Error::external)?;
        self.has_read(key, value.as_ref());
        Ok(value)
    }

    /// All rows whose key begins with `prefix`, in order.
    pub fn rows(&self, shared: &Shared, prefix: &[u8]) -> mlua::Result<Vec<state::Row>> {
        let rows = match self.tables(shared)?.scan(prefix) {
            Err(state::Error::Moved) if self.tables.is_none() => {
                shared.state()?.look_again().and_then(|tables| tables.scan(prefix))
            }
            outcome => outcome,
        };
        let rows = rows.map_err(mlua::Error::external)?;
        rows.iter().for_each(|(key, value)| self.has_read(key, Some(value)));
        Ok(rows)
    }

    fn has_read(&self, key: &[u8], value: Option<&Vec<u8>>) {
        if self.kind == Kind::Handler && key.starts_with(OWN) {
            self.reads.borrow_mut().entry(key.to_vec()).or_insert_with(|| value.cloned());
        }
    }

    /// An id that a repeat of this call makes again.
    pub fn derived(&self, what: &str) -> Uuid {
        Uuid::new_v5(&NAMESPACE, format!("{}/{what}", self.seed).as_bytes())
    }
}

/// Prefix of the service's own table.
pub(crate) const OWN: &[u8] = b"kv\0";

/// Names the derived ids of this host.
pub(crate) const NAMESPACE: Uuid = Uuid::from_u128(0x6461_7962_6f6f_6b20_7375_7065_7263_6c69);

/// The running call.
pub(crate) fn call() -> mlua::Result<Rc<Call>> {
    CALL.try_with(Rc::clone).map_err(|_| mlua::Error::runtime("only a handler, route or view may call this"))
}

/// The running call, if it may read what is stored.
pub(crate) fn reads(what: &str) -> mlua::Result<Rc<Call>> {
    let call = call()
        .map_err(|_| mlua::Error::runtime(format!("{what} may not be called while the script loads")))?;
    if call.pure.get() > 0 || call.kind == Kind::View {
        return Err(mlua::Error::runtime(format!(
            "{what} may not be called in decide, evolve or a view: they see only what they are given"
        )));
    }
    Ok(call)
}

/// The running call, if it may have effects here.
pub(crate) fn effects(what: &str) -> mlua::Result<Rc<Call>> {
    let call = reads(what)?;
    if call.atomic.get() {
        return Err(mlua::Error::runtime(format!(
            "{what} may not be called inside atomically, which may run several times: use tx"
        )));
    }
    Ok(call)
}

pub(crate) fn only_in_routes(what: &str) -> mlua::Result<()> {
    match reads(what)?.kind {
        Kind::Route => Ok(()),
        _ => Err(mlua::Error::runtime(format!("{what} may be called in routes only: its result is random"))),
    }
}

/// What defines a service belongs to the top of its script.
pub(crate) fn loading(shared: &Shared, what: &str) -> mlua::Result<()> {
    match shared.client.get() {
        None => Ok(()),
        Some(_) => {
            Err(mlua::Error::runtime(format!("{what} belongs to the top of the script, not into a function")))
        }
    }
}

pub(crate) struct Atomic(Rc<Call>);

impl Drop for Atomic {
    fn drop(&mut self) {
        self.0.atomic.set(false);
    }
}

/// Marks what runs until it is dropped as without effects.
pub(crate) struct Pure(Rc<Call>);

impl Pure {
    pub fn enter() -> mlua::Result<Self> {
        let call = call()?;
        call.pure.set(call.pure.get() + 1);
        Ok(Self(call))
    }
}

impl Drop for Pure {
    fn drop(&mut self) {
        self.0.pure.set(self.0.pure.get() - 1);
    }
}

/// What bindings and engine share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared(pub Rc<Inner>);

pub(crate) struct Inner {
    pub definitions: RefCell<Definitions>,
    pub client: OnceCell<Client>,
    pub state: OnceCell<State>,
    pub directory: OnceCell<Arc<Directory>>,
    /// In a test, instead of all other services.
    pub stand_in: OnceCell<Rc<StandIn>>,
    pub common: OnceCell<Arc<Common>>,
    pub entities: Entities,
    pub snapshots: Snapshots,
    pub script_hash: String,
    pub outlet: Outlet,
    /// Whether the script may use its own table: then its handlers are replayed
    /// to fill it.
    pub own_table: bool,
}

impl std::ops::Deref for Shared {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Shared {
    pub fn client(&self) -> mlua::Result<&Client> {
        self.client
            .get()
            .ok_or_else(|| mlua::Error::runtime("the bus may not be used while the script loads"))
    }

    pub fn common(&self) -> mlua::Result<&Arc<Common>> {
        Ok(self.common.get_or_init(Arc::default))
    }

    pub fn state(&self) -> mlua::Result<&State> {
        self.state.get().ok_or_else(|| mlua::Error::runtime("state may not be used while the script loads"))
    }
}

/// A loaded script.
pub(crate) struct Machine {
    pub lua: Lua,
    pub shared: Shared,
    pub budget: Budget,
    bundle: Arc<Bundle>,
}

impl Machine {
    /// Loads a bundle; the error names file and line.
    pub fn load(bundle: &Arc<Bundle>, limits: Limits) -> Result<Self, StartError> {
        let script = |error: mlua::Error| StartError::Script(describe(&error));
        // `debug` only for the trace of a coroutine; scripts do not see it.
        let libraries = StdLib::TABLE
            | StdLib::STRING
            | StdLib::MATH
            | StdLib::UTF8
            | StdLib::BIT
            | StdLib::BUFFER
            | StdLib::COROUTINE
            | StdLib::DEBUG;
        let lua = Lua::new_with(libraries, LuaOptions::default()).map_err(script)?;
        lua.set_memory_limit(limits.memory_bytes).map_err(script)?;
        let shared = Shared(Rc::new(Inner {
            definitions: RefCell::default(),
            client: OnceCell::new(),
            state: OnceCell::new(),
            directory: OnceCell::new(),
            stand_in: OnceCell::new(),
            common: OnceCell::new(),
            entities: Entities::new(limits.memory_bytes / 2),
            snapshots: Snapshots::default(),
            // There is no other way to write it.
            own_table: bundle.mentions(&[".kv", "\"kv\"", "'kv'"]),
            script_hash: bundle.hash(),
            outlet: Outlet::default(),
        }));
        bindings::install(&lua, &shared, bundle).map_err(script)?;
        for forbidden in ["debug", "loadstring", "getfenv", "setfenv", "collectgarbage", "gcinfo", "newproxy"]
        {
            lua.globals().set(forbidden, Value::Nil).map_err(script)?;
        }
        lua.sandbox(true).map_err(script)?;
        let budget = Budget::install(&lua, limits);
        let machine = Self { lua, shared, budget, bundle: bundle.clone() };
        {
            let _entered = machine.budget.enter();
            // Text only: bytecode could break out of the machine.
            let chunk = machine.lua.load(bundle.text.as_str()).set_name(format!("@{}", bundle.name));
            let loaded = chunk.set_mode(mlua::chunk::ChunkMode::Text).exec();
            loaded
                .map_err(|error| StartError::Script(machine.explain(&machine.budget.placed(error, None))))?;
        }
        if machine.shared.definitions.borrow().name.is_empty() {
            return Err(StartError::NoService { script: bundle.name.clone() });
        }
        Ok(machine)
    }

    /// Whether its script has this route.
    pub fn knows(&self, route: &RouteKey) -> bool {
        let asked = route.split_once(' ');
        let definitions = self.shared.definitions.borrow();
        definitions.routes.iter().any(|route| asked == Some((&route.method, &route.path)))
    }

    /// An error with the line it is about.
    pub fn explain(&self, error: &mlua::Error) -> String {
        let described = describe(error);
        let file = report::file(&described).map(str::to_owned);
        let text = file.and_then(|file| self.bundle.source(&file));
        report::with_source(described, text.as_deref(), &bindings::GLOBALS)
    }
}

/// Whether the script ran out of memory, however deep it was told.
pub(crate) fn is_out_of_memory(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::MemoryError(_) => true,
        mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => {
            is_out_of_memory(cause)
        }
        other => other.to_string().contains("not enough memory"),
    }
}
