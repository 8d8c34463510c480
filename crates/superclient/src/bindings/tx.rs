//! `atomically(function(tx) … end)`: several entities, one batch.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Function, Lua, Table, UserData, UserDataMethods, UserDataRef, Value};

use super::entity::EntityHandle;
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
}

pub(super) fn install(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    let shared = shared.clone();
    let atomically = lua.create_async_function(move |lua, function: Function| {
        let shared = shared.clone();
        async move {
            let call = machine::effects("atomically")?;
            atomic::run(&lua, &shared, &call, function).await
        }
    })?;
    lua.globals().set("atomically", atomically)
}

impl UserData for Tx {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_async_method(
            "load",
            async |lua, this, (entity, id): (UserDataRef<EntityHandle>, String)| {
                let (shared, work) = (this.shared.clone(), this.work.clone());
                drop(this);
                let entity = entity.entity.clone();
                let subject = format!("{}/{id}", entity.name);
                let loaded = entities::load(&lua, &shared, &entity, &id).await?;
                let state = crate::json::copy(&lua, &loaded.state)?;
                let mut work = work.borrow_mut();
                if !work.loaded.iter().any(|known| known.subject == subject) {
                    work.loaded.push(Loaded { subject, entity, next: loaded.next, state: loaded.state });
                }
                Ok(state)
            },
        );
        methods.add_method("emit", |_, this, args: mlua::MultiValue| {
            let mut args = args.into_iter();
            let usage = || {
                mlua::Error::runtime(
                    "tx:emit takes (entity, id, type, data, options) or (subject, type, data, options)",
                )
            };
            let subject = match args.next() {
                Some(Value::String(subject)) => subject.to_str()?.to_owned(),
                Some(Value::UserData(handle)) => {
                    let handle = handle.borrow::<EntityHandle>().map_err(|_| usage())?;
                    match args.next() {
                        Some(Value::String(id)) => {
                            format!("{}/{}", handle.entity.name, id.to_str()?.to_owned())
                        }
                        _ => return Err(usage()),
                    }
                }
                _ => return Err(usage()),
            };
            let Some(Value::String(kind)) = args.next() else { return Err(usage()) };
            let data = args.next().unwrap_or(Value::Nil);
            let after = match args.next() {
                Some(Value::Table(options)) => match options.get::<Option<Table>>("after")? {
                    Some(event) => {
                        let sequence: String = event.get("sequence")?;
                        Some(
                            sequence
                                .parse()
                                .map_err(|_| mlua::Error::runtime("`after` is no event with a sequence"))?,
                        )
                    }
                    None => None,
                },
                _ => None,
            };
            this.work.borrow_mut().emitted.push(Emitted {
                subject,
                kind: kind.to_str()?.to_owned(),
                data,
                after,
            });
            Ok(())
        });
    }
}
