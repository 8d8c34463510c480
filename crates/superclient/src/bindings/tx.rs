//! `atomically(function(tx) … end)`: several entities, one batch.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mlua::{Lua, MetaMethod, MultiValue, UserData, UserDataMethods, Value};

use super::args::{self, Args};
use super::entity::EntityHandle;
use super::results;
use crate::engine::{atomic, entities};
use crate::machine::{self, Entity, Shared};

/// What one run of the function has loaded and emitted.
#[derive(Default)]
pub(crate) struct Work {
    pub loaded: Vec<Loaded>,
    pub emitted: Vec<Emitted>,
}

pub(crate) struct Loaded {
    pub subject: String,
    pub entity: Rc<Entity>,
    pub next: u64,
    pub state: Value,
}

pub(crate) struct Emitted {
    pub subject: String,
    pub kind: String,
    pub data: Value,
    /// Sequence right after this one.
    pub after: Option<u64>,
}

pub(crate) struct Tx {
    pub shared: Shared,
    pub work: Rc<RefCell<Work>>,
    /// The function has ended: what is said now would be lost.
    pub over: Rc<Cell<bool>>,
}

pub(crate) const METHODS: [&str; 2] = ["load", "emit"];
const LOAD: &str = "tx:load(entity, id) or tx:load(subject)";
const EMIT: &str = "tx:emit(entity, id, type, data, { after? }) or tx:emit(subject, type, data, { after? })";

pub(super) fn install(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    let shared = shared.clone();
    let atomically = lua.create_async_function(move |lua, args: MultiValue| {
        let shared = shared.clone();
        async move {
            let call = machine::effects("atomically")?;
            let function = Args::new("atomically(function)", args).function("function")?;
            let _inside = call.enter_atomically();
            atomic::run(&lua, &shared, &call, function).await
        }
    })?;
    lua.globals().set("atomically", atomically)
}

impl Tx {
    fn open(&self) -> mlua::Result<()> {
        match self.over.get() {
            false => Ok(()),
            true => Err(mlua::Error::runtime("this tx is over: it ends with the function that got it")),
        }
    }
}

impl UserData for Tx {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_async_method("load", async |lua, this, args: MultiValue| {
            this.open()?;
            let (shared, work) = (this.shared.clone(), this.work.clone());
            drop(this);
            let mut args = Args::new(LOAD, args);
            let (entity, id) = match args.value() {
                Value::UserData(handle) if handle.is::<EntityHandle>() => {
                    (handle.borrow::<EntityHandle>()?.entity.clone(), args.string("id")?)
                }
                subject => of_subject(&shared, &args, &subject)?,
            };
            let subject = format!("{}/{id}", entity.name);
            let loaded = entities::expected(&lua, &shared, &entity, &id).await?;
            let state = crate::json::copy(&lua, &loaded.state)?;
            let mut work = work.borrow_mut();
            if !work.loaded.iter().any(|known| known.subject == subject) {
                work.loaded.push(Loaded { subject, entity, next: loaded.next, state: loaded.state });
            }
            Ok(state)
        });
        methods.add_method("emit", |_, this, args: MultiValue| {
            this.open()?;
            let emitted = emitted(Args::new(EMIT, args))?;
            this.work.borrow_mut().emitted.push(emitted);
            Ok(())
        });
        methods.add_meta_method(MetaMethod::Index, |_, _, name: Value| {
            if args::text(&name).as_deref() == Some("reject") {
                return Err(mlua::Error::runtime(
                    "tx has no `reject`: the function says `return reject(code, details)`",
                ));
            }
            Err::<Value, _>(args::unknown("tx", &name, METHODS))
        });
    }
}

/// The entity whose key the subject is, and its id: `account/42` says both.
fn of_subject(shared: &Shared, args: &Args, subject: &Value) -> mlua::Result<(Rc<Entity>, String)> {
    let refuse =
        || args.wrong("entity", "what svc:entity gave, or a subject like \"account/42\" of one", subject);
    let text = args::text(subject).ok_or_else(refuse)?;
    let (name, id) = text.split_once('/').ok_or_else(refuse)?;
    let entity = shared.definitions.borrow().entities.get(name).cloned().ok_or_else(refuse)?;
    Ok((entity, id.to_owned()))
}

fn emitted(mut args: Args) -> mlua::Result<Emitted> {
    let subject = match args.value() {
        Value::UserData(handle) if handle.is::<EntityHandle>() => {
            let id = args.string("id")?;
            format!("{}/{id}", handle.borrow::<EntityHandle>()?.entity.name)
        }
        subject => args::text(&subject)
            .ok_or_else(|| args.wrong("subject", "an entity with an id, or a string", &subject))?,
    };
    let (kind, data) = match args.peek() {
        // event("Debited", { … }) says type and data at once.
        Value::Table(_) if results::kind(args.peek()).as_deref() == Some("event") => {
            let event = args.table("event")?;
            (event.raw_get("type")?, event.raw_get("data")?)
        }
        _ => (args.string("type")?, args.value()),
    };
    let after = match args.optional_table("options")? {
        None => None,
        Some(options) => {
            for pair in options.pairs::<Value, Value>() {
                let (name, _) = pair?;
                if args::text(&name).as_deref() != Some("after") {
                    return Err(args::unknown("the options of tx:emit", &name, ["after"]));
                }
            }
            match options.get::<Value>("after")? {
                Value::Nil => None,
                Value::Table(event) => {
                    let sequence = args::text(&event.get::<Value>("sequence")?);
                    let sequence = sequence.and_then(|sequence| sequence.parse().ok());
                    Some(sequence.ok_or_else(|| {
                        mlua::Error::runtime("tx:emit: `after` must be an event with a sequence")
                    })?)
                }
                other => return Err(args.wrong("after", "an event", &other)),
            }
        }
    };
    Ok(Emitted { subject, kind, data, after })
}
