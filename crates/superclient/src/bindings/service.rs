//! `service(name)` and the methods of what it returns.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use mlua::{Function, Lua, MetaMethod, MultiValue, UserData, UserDataFields, UserDataMethods, Value};

use super::args::{self, Args};
use super::entity::EntityHandle;
use super::kv::Kv;
use super::results;
use crate::engine::{commands, timers};
use crate::json;
use crate::machine::{self, Entity, Rebuild, Route, Secrets, Shared, Timer, View, loading};

pub(crate) struct Service {
    shared: Shared,
}

/// In the order of the guide.
pub(crate) const MEMBERS: [&str; 18] = [
    "entity", "on", "receipt", "view", "views", "kv", "get", "post", "put", "patch", "delete", "stream",
    "after", "rebuild", "secret", "publish", "http", "name",
];

pub(super) fn install(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    let shared = shared.clone();
    let service = lua.create_function(move |_, args: MultiValue| {
        let mut args = Args::new("service(name, { version? })", args);
        let name = args.string("name")?;
        if let Some(options) = args.optional_table("options")? {
            for pair in options.pairs::<Value, Value>() {
                let (option, _) = pair?;
                if args::text(&option).as_deref() != Some("version") {
                    return Err(args::unknown("the options of service", &option, ["version"]));
                }
            }
        }
        let mut definitions = shared.definitions.borrow_mut();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(mlua::Error::runtime(format!(
                "service: the name has 1 to 64 of a-z, 0-9, - and _; `{name}` does not fit"
            )));
        }
        if !definitions.name.is_empty() {
            return Err(mlua::Error::runtime("service() was called already: one file is one service"));
        }
        definitions.name = name;
        Ok(Service { shared: shared.clone() })
    })?;
    lua.globals().set("service", service)
}

impl UserData for Service {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("kv", |_, this| {
            let prefix = machine::OWN.to_vec();
            Ok(Kv { shared: this.shared.clone(), prefix, writable: true, given: false })
        });
        fields.add_field_method_get("name", |_, this| Ok(this.shared.definitions.borrow().name.clone()));
        fields.add_field_method_get("views", |lua, this| {
            let views = lua.create_table()?;
            for view in &this.shared.definitions.borrow().views {
                views.set(view.name.as_str(), Kv::view(&this.shared, &view.name, false))?;
            }
            let names: Vec<String> =
                this.shared.definitions.borrow().views.iter().map(|view| view.name.clone()).collect();
            let meta = lua.create_table()?;
            let missing = lua.create_function(move |_, (_, name): (Value, Value)| {
                Err::<Value, _>(args::unknown("svc.views", &name, names.iter().map(String::as_str)))
            })?;
            meta.raw_set("__index", missing)?;
            views.set_metatable(Some(meta))?;
            Ok(views)
        });
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("entity", |lua, this, args: MultiValue| {
            let mut args = Args::new("svc:entity(name, initial)", args);
            loading(&this.shared, "svc:entity")?;
            let name = args.string("name")?;
            // A table is a shorter way to say what a new entity is; each gets its own copy.
            let initial = match args.value() {
                Value::Function(initial) => initial,
                Value::Nil => lua.create_function(|lua, ()| lua.create_table())?,
                Value::Table(table) => {
                    lua.create_function(move |lua, ()| json::copy(lua, &Value::Table(table.clone())))?
                }
                other => {
                    return Err(args.wrong(
                        "initial",
                        "a function that makes the state of a new one",
                        &other,
                    ));
                }
            };
            if name.is_empty() || name.contains('/') {
                return Err(mlua::Error::runtime(format!(
                    "svc:entity: `{name}` cannot name an entity: the key of its number 7 would be `{name}/7`"
                )));
            }
            let entity = Rc::new(Entity {
                name: name.clone(),
                initial,
                decide: RefCell::new(HashMap::new()),
                evolve: RefCell::new(HashMap::new()),
                unfolded: RefCell::default(),
            });
            match this.shared.definitions.borrow_mut().entities.insert(name.clone(), entity.clone()) {
                None => Ok(EntityHandle { shared: this.shared.clone(), entity }),
                Some(_) => {
                    Err(mlua::Error::runtime(format!("svc:entity: there is an entity `{name}` already")))
                }
            }
        });
        methods.add_method("on", |_, this, args: MultiValue| {
            let mut args = Args::new("svc:on(type, function)", args);
            loading(&this.shared, "svc:on")?;
            let kinds = args.strings("type")?;
            let function = args.function("function")?;
            for kind in kinds {
                let before =
                    this.shared.definitions.borrow_mut().handlers.insert(kind.clone(), function.clone());
                if before.is_some() {
                    return Err(mlua::Error::runtime(format!("svc:on: `{kind}` has a handler already")));
                }
            }
            Ok(())
        });
        methods.add_method("receipt", |_, this, args: MultiValue| {
            let mut args = Args::new("svc:receipt(command, function)", args);
            loading(&this.shared, "svc:receipt")?;
            let (command, function) = (args.string("command")?, args.function("function")?);
            this.shared.definitions.borrow_mut().receipts.insert(command, function);
            Ok(())
        });
        methods.add_method("view", |lua, this, args: MultiValue| {
            let mut args = Args::new("svc:view(name, types, function)", args);
            loading(&this.shared, "svc:view")?;
            let name = args.string("name")?;
            let types = args.strings("types")?;
            let function = args.function("function")?;
            let kv = lua.create_userdata(Kv::view(&this.shared, &name, true))?;
            let views = &mut this.shared.definitions.borrow_mut().views;
            if views.iter().any(|view| view.name == name) {
                return Err(mlua::Error::runtime(format!("svc:view: there is a view `{name}` already")));
            }
            views.push(View { name, types, kv, function });
            Ok(())
        });
        for (method, what) in [
            ("get", "svc:get(path, function)"),
            ("post", "svc:post(path, function)"),
            ("put", "svc:put(path, function)"),
            ("patch", "svc:patch(path, function)"),
            ("delete", "svc:delete(path, function)"),
        ] {
            methods.add_method(method, move |_, this, args: MultiValue| {
                let mut args = Args::new(what, args);
                let (path, function) = (args.string("path")?, args.function("function")?);
                add_route(&this.shared, &method.to_uppercase(), path, function, None)
            });
        }
        methods.add_method("stream", |lua, this, args: MultiValue| {
            let mut args = Args::new("svc:stream(path, types, function)", args);
            let (path, types) = (args.string("path")?, args.strings("types")?);
            let function = match args.peek() {
                Value::Nil => lua.create_function(|_, event: Value| Ok(event))?,
                _ => args.function("function")?,
            };
            add_route(&this.shared, "GET", path, function, Some(types))
        });
        methods.add_method("secret", |lua, this, args: MultiValue| {
            loading(&this.shared, "svc:secret")?;
            let names = Args::new("svc:secret{ name, … }", args).strings("names")?;
            let mut secrets = lua.remove_app_data::<Secrets>().unwrap_or_default();
            secrets.0.extend(names);
            lua.set_app_data(secrets);
            Ok(())
        });
        methods.add_method("rebuild", |_, this, args: MultiValue| {
            loading(&this.shared, "svc:rebuild")?;
            let callbacks = Args::new("svc:rebuild{ before?, after? }", args).table("callbacks")?;
            let mut rebuild = Rebuild::default();
            for pair in callbacks.pairs::<Value, Value>() {
                let (name, value) = pair?;
                let place = match args::text(&name).as_deref() {
                    Some("before") => &mut rebuild.before,
                    Some("after") => &mut rebuild.after,
                    _ => return Err(args::unknown("svc:rebuild", &name, ["before", "after"])),
                };
                let Value::Function(function) = value else {
                    return Err(mlua::Error::runtime("svc:rebuild: `before` and `after` are functions"));
                };
                *place = Some(function);
            }
            this.shared.definitions.borrow_mut().rebuild = rebuild;
            Ok(())
        });
        methods.add_method("after", |_, this, args: MultiValue| {
            let mut args = Args::new("svc:after(type, delay, function)", args);
            loading(&this.shared, "svc:after")?;
            let kinds = args.strings("type")?;
            let delay = timers::delay(&args.value())?;
            let function = args.function("function")?;
            for kind in kinds {
                let timer = Timer { kind, delay, function: function.clone() };
                this.shared.definitions.borrow_mut().timers.push(timer);
            }
            Ok(())
        });
        methods.add_async_method("publish", async |lua, this, args: MultiValue| {
            let call = machine::effects("svc:publish")?;
            let shared = this.shared.clone();
            drop(this);
            let (kind, subject, data) = publication(Args::new(PUBLISH, args))?;
            commands::publish(&lua, &shared, &call, kind, subject, data).await
        });
        methods.add_async_method("http", async |lua, this, args: MultiValue| {
            let call = machine::reads("svc:http")?;
            let shared = this.shared.clone();
            drop(this);
            let mut args = Args::new("svc:http(method, service, path, body?)", args);
            let (method, service) = (args.string("method")?, args.string("service")?);
            let (path, body) = (args.string("path")?, args.value());
            let body = (!body.is_nil()).then_some(body);
            crate::http::outgoing::call(&lua, &shared, &call, method, service, path, body).await
        });
        methods.add_meta_method(MetaMethod::Index, |_, _, name: Value| {
            if let Some(name) = args::text(&name).filter(|name| super::GLOBALS.contains(&name.as_str())) {
                return Err(mlua::Error::runtime(format!(
                    "svc has no `{name}`: it is called without svc, as `{name}(…)`"
                )));
            }
            Err::<Value, _>(args::unknown("svc", &name, MEMBERS))
        });
    }
}

const PUBLISH: &str = "svc:publish(type, subject?, data)";

/// The subject may be left out, and `event(type, data)` says two things at once.
fn publication(mut args: Args) -> mlua::Result<(String, Option<String>, Option<Value>)> {
    if results::kind(args.peek()).as_deref() == Some("event") {
        let event = args.table("event")?;
        let subject = args.optional_string("subject")?;
        return Ok((event.raw_get("type")?, subject, event.raw_get("data")?));
    }
    let kind = args.string("type")?;
    let subject = match args.peek() {
        Value::Table(_) => None,
        // An entity plus an id is a subject, as in tx:emit.
        Value::UserData(handle) if handle.is::<EntityHandle>() => {
            let name = handle.borrow::<EntityHandle>()?.entity.name.clone();
            args.value();
            Some(format!("{name}/{}", args.string("id")?))
        }
        _ => args.optional_string("subject")?,
    };
    if results::kind(args.peek()).as_deref() == Some("event") {
        // (subject, event(…)), as in tx:emit.
        if subject.is_some() {
            return Err(mlua::Error::runtime(format!("{PUBLISH}: the type is said twice")));
        }
        let event = args.table("event")?;
        return Ok((event.raw_get("type")?, Some(kind), event.raw_get("data")?));
    }
    let data = args.value();
    Ok((kind, subject, (!data.is_nil()).then_some(data)))
}

fn add_route(
    shared: &Shared,
    method: &str,
    path: String,
    function: Function,
    stream: Option<Vec<String>>,
) -> mlua::Result<()> {
    loading(shared, "a route")?;
    if !path.starts_with('/') {
        return Err(mlua::Error::runtime(format!(
            "the route `{path}` does not begin with a slash, like `/{path}`"
        )));
    }
    shared.definitions.borrow_mut().routes.push(Route { method: method.to_owned(), path, function, stream });
    Ok(())
}
