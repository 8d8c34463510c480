//! `account:decide`, `account:evolve`, `account:state`, `account:version`, `account:send`.

use std::rc::Rc;

use mlua::{Lua, MetaMethod, MultiValue, Table, UserData, UserDataMethods, Value};

use super::args::{self, Args};
use crate::engine::{commands, entities};
use crate::machine::{self, Call, Decide, Entity, Shared};

pub(crate) struct EntityHandle {
    pub shared: Shared,
    pub entity: Rc<Entity>,
}

pub(crate) const METHODS: [&str; 5] = ["decide", "evolve", "send", "state", "version"];

const KINDS: [&str; 7] = ["id", "string", "integer", "boolean", "money", "currency", "table"];
const STATE: &str = "entity:state(id, { at? })";
const VERSION: &str = "entity:version(id, { at? })";
const SEND: &str = "entity:send(id, command, fields, { id?, version? })";

impl UserData for EntityHandle {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("decide", |_, this, args: MultiValue| {
            let mut args = Args::new("entity:decide(command, fields, function)", args);
            machine::loading(&this.shared, "entity:decide")?;
            let name = args.string("command")?;
            // A command without fields may leave the table out.
            let fields = match args.peek() {
                Value::Function(_) => Vec::new(),
                _ => fields(&args.table("fields")?)?,
            };
            let function = args.function("function")?;
            match this.entity.decide.borrow_mut().insert(name.clone(), Decide { fields, function }) {
                None => Ok(()),
                Some(_) => Err(twice(&format!("the command `{name}`"), &this.entity)),
            }
        });
        methods.add_method("evolve", |_, this, args: MultiValue| {
            let mut args = Args::new("entity:evolve(type, function)", args);
            machine::loading(&this.shared, "entity:evolve")?;
            let kinds = args.strings("type")?;
            let function = args.function("function")?;
            for kind in kinds {
                if this.entity.evolve.borrow_mut().insert(kind.clone(), function.clone()).is_some() {
                    return Err(twice(&format!("an evolve of `{kind}`"), &this.entity));
                }
            }
            Ok(())
        });
        methods.add_async_method("state", async |lua, this, args: MultiValue| {
            let (shared, entity) = (this.shared.clone(), this.entity.clone());
            drop(this);
            let (id, at) = which(Args::new(STATE, args), "entity:state")?;
            match at {
                Some(at) => entities::as_of(&lua, &shared, &entity, &id, &at).await.map(|fold| fold.state),
                None => {
                    let loaded = entities::fresh(&lua, &shared, &entity, &id).await?;
                    crate::json::copy(&lua, &loaded.state)
                }
            }
        });
        methods.add_async_method("version", async |lua, this, args: MultiValue| {
            let (shared, entity) = (this.shared.clone(), this.entity.clone());
            drop(this);
            let (id, at) = which(Args::new(VERSION, args), "entity:version")?;
            let next = match at {
                Some(at) => entities::as_of(&lua, &shared, &entity, &id, &at).await?.next,
                None => entities::fresh(&lua, &shared, &entity, &id).await?.next,
            };
            Ok(next.to_string())
        });
        methods.add_async_method("send", async |lua, this, args: MultiValue| {
            let call = machine::effects("entity:send")?;
            let (shared, entity) = (this.shared.clone(), this.entity.clone());
            drop(this);
            let request = request(&lua, entity, Args::new(SEND, args))?;
            send(&lua, &shared, &call, request).await
        });
        methods.add_meta_method(MetaMethod::Index, |_, this, name: Value| {
            Err::<Value, _>(args::unknown(&format!("the entity `{}`", this.entity.name), &name, METHODS))
        });
        methods
            .add_meta_method(MetaMethod::ToString, |_, this, ()| Ok(format!("entity {}", this.entity.name)));
    }
}

/// Sends, then tells `svc:receipt` what became of it.
pub(crate) async fn send(
    lua: &Lua,
    shared: &Shared,
    call: &Rc<Call>,
    request: commands::Request,
) -> mlua::Result<Table> {
    let name = request.name.clone();
    let answer = commands::send(lua, shared, call, request).await?;
    let receipt = shared.definitions.borrow().receipts.get(&name).cloned();
    if let Some(receipt) = receipt {
        receipt.call_async::<()>((&answer, super::ctx::ctx(lua, call)?)).await?;
    }
    Ok(answer)
}

fn twice(what: &str, entity: &Entity) -> mlua::Error {
    mlua::Error::runtime(format!("`{}` has {what} already", entity.name))
}

/// Name, kind, optional: sorted by name.
fn fields(table: &Table) -> mlua::Result<Vec<(String, String, bool)>> {
    let mut list = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (field, kind) = pair?;
        let (Value::String(field), Value::String(kind)) = (&field, &kind) else {
            return Err(mlua::Error::runtime(
                "entity:decide: fields are names with kinds, like { amount = \"money\", note = \"string?\" }",
            ));
        };
        let (field, kind) = (field.to_str()?.to_owned(), kind.to_str()?.to_owned());
        let optional = kind.ends_with('?');
        let kind = kind.trim_end_matches('?').to_owned();
        if !KINDS.contains(&kind.as_str()) {
            let advice = match args::nearest(&kind, &KINDS) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("there are {}", KINDS.join(", ")),
            };
            return Err(mlua::Error::runtime(format!(
                "the field `{field}` has the unknown kind `{kind}`; {advice}"
            )));
        }
        list.push((field, kind, optional));
    }
    list.sort();
    Ok(list)
}

/// Which entity, and as of when: what is asked for, or the request's own `?at=`.
fn which(mut args: Args, what: &str) -> mlua::Result<(String, Option<String>)> {
    let call = machine::reads(what)?;
    let id = args.string("id")?;
    let at = match args.optional_table("options")? {
        Some(options) => known_options(&options, what, &["at"])?.get::<Value>("at")?,
        None => Value::Nil,
    };
    if at.is_nil() || at.is_null() {
        return Ok((id, call.at.clone()));
    }
    let at = args::text(&at).ok_or_else(|| args.wrong("at", "a position or a time", &at))?;
    Ok((id, Some(at)))
}

fn known_options<'a>(options: &'a Table, what: &str, known: &[&str]) -> mlua::Result<&'a Table> {
    for pair in options.pairs::<Value, Value>() {
        let (name, _) = pair?;
        if !args::text(&name).is_some_and(|name| known.contains(&name.as_str())) {
            return Err(args::unknown(&format!("the options of {what}"), &name, known.iter().copied()));
        }
    }
    Ok(options)
}

fn request(lua: &Lua, entity: Rc<Entity>, mut args: Args) -> mlua::Result<commands::Request> {
    let id = args.string("id")?;
    let name = args.string("command")?;
    let command = match args.optional_table("fields")? {
        Some(command) => command,
        None => lua.create_table()?,
    };
    let (mut command_id, mut version) = (None, None);
    if let Some(options) = args.optional_table("options")? {
        let known = ["id", "version", "sequence"];
        known_options(&options, "entity:send", &known)?;
        let text = |name: &str| -> mlua::Result<Option<String>> {
            let value: Value = options.get(name)?;
            if value.is_nil() || value.is_null() {
                return Ok(None);
            }
            args::text(&value).map(Some).ok_or_else(|| args.wrong(name, "a string", &value))
        };
        command_id = text("id")?;
        let named = match text("version")? {
            Some(version) => Some(version),
            None => text("sequence")?,
        };
        version = named
            .map(|named| {
                named.parse().map_err(|_| {
                    mlua::Error::runtime(format!("{SEND}: `version` must be a number, not `{named}`"))
                })
            })
            .transpose()?;
    }
    Ok(commands::Request { entity, id, name, command, command_id, version })
}
