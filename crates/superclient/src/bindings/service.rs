//! `service(name)` and the methods of what it returns.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use mlua::{Function, Lua, Table, UserData, UserDataFields, UserDataMethods, Value};

use super::entity::EntityHandle;
use super::kv::Kv;
use crate::engine::{commands, timers};
use crate::machine::{self, Entity, Rebuild, Route, Secrets, Shared, Timer, View};

pub(crate) struct Service {
    shared: Shared,
}

pub(super) fn install(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    let shared = shared.clone();
    let service = lua.create_function(move |_, (name, _options): (String, Option<Table>)| {
        let mut definitions = shared.definitions.borrow_mut();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(mlua::Error::runtime("a service's name has 1 to 64 of a-z, 0-9, - and _"));
        }
        if !definitions.name.is_empty() {
            return Err(mlua::Error::runtime("service() was called already: one file is one service"));
        }
        definitions.name = name;
        Ok(Service { shared: shared.clone() })
    })?;
    lua.globals().set("service", service)
}

fn loading(shared: &Shared, what: &str) -> mlua::Result<()> {
    match shared.client.get() {
        None => Ok(()),
        Some(_) => {
            Err(mlua::Error::runtime(format!("{what} belongs to the top of the script, not into a function")))
        }
    }
}

impl UserData for Service {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("kv", |_, this| {
            Ok(Kv { shared: this.shared.clone(), prefix: b"kv\0".to_vec(), writable: true })
        });
        fields.add_field_method_get("views", |lua, this| {
            let views = lua.create_table()?;
            for view in &this.shared.definitions.borrow().views {
                views.set(view.name.as_str(), Kv::view(&this.shared, &view.name, false))?;
            }
            Ok(views)
        });
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("entity", |_, this, (name, initial): (String, Function)| {
            loading(&this.shared, "svc:entity")?;
            let entity = Rc::new(Entity {
                name: name.clone(),
                initial,
                decide: RefCell::new(HashMap::new()),
                evolve: RefCell::new(HashMap::new()),
            });
            this.shared.definitions.borrow_mut().entities.insert(name, entity.clone());
            Ok(EntityHandle { shared: this.shared.clone(), entity })
        });
        methods.add_method("on", |_, this, (kind, function): (String, Function)| {
            loading(&this.shared, "svc:on")?;
            match this.shared.definitions.borrow_mut().handlers.insert(kind.clone(), function) {
                None => Ok(()),
                Some(_) => Err(mlua::Error::runtime(format!("`{kind}` has a handler already"))),
            }
        });
        methods.add_method("receipt", |_, this, (command, function): (String, Function)| {
            loading(&this.shared, "svc:receipt")?;
            this.shared.definitions.borrow_mut().receipts.insert(command, function);
            Ok(())
        });
        methods.add_method("view", |_, this, (name, types, function): (String, Vec<String>, Function)| {
            loading(&this.shared, "svc:view")?;
            this.shared.definitions.borrow_mut().views.push(View { name, types, function });
            Ok(())
        });
        for method in ["get", "post", "put", "delete"] {
            methods.add_method(method, move |_, this, (path, function): (String, Function)| {
                add_route(&this.shared, &method.to_uppercase(), path, function, None)
            });
        }
        methods.add_method("stream", |_, this, (path, types, function): (String, Vec<String>, Function)| {
            add_route(&this.shared, "GET", path, function, Some(types))
        });
        methods.add_method("secret", |lua, this, names: Vec<String>| {
            loading(&this.shared, "svc:secret")?;
            let mut secrets = lua.remove_app_data::<Secrets>().unwrap_or_default();
            secrets.0.extend(names);
            lua.set_app_data(secrets);
            Ok(())
        });
        methods.add_method("rebuild", |_, this, callbacks: Table| {
            loading(&this.shared, "svc:rebuild")?;
            for pair in callbacks.pairs::<String, Value>() {
                let (name, _) = pair?;
                if name != "before" && name != "after" {
                    return Err(mlua::Error::runtime(format!(
                        "svc:rebuild knows before and after, not `{name}`"
                    )));
                }
            }
            this.shared.definitions.borrow_mut().rebuild =
                Rebuild { before: callbacks.get("before")?, after: callbacks.get("after")? };
            Ok(())
        });
        methods.add_method("after", |_, this, (kind, delay, function): (String, Value, Function)| {
            loading(&this.shared, "svc:after")?;
            let delay = timers::delay(&delay)?;
            this.shared.definitions.borrow_mut().timers.push(Timer { kind, delay, function });
            Ok(())
        });
        methods.add_async_method(
            "publish",
            async |lua, this, (kind, subject, data): (String, Option<String>, Option<Value>)| {
                let call = machine::effects("svc:publish")?;
                let shared = this.shared.clone();
                drop(this);
                commands::publish(&lua, &shared, &call, kind, subject, data).await
            },
        );
        methods.add_async_method(
            "http",
            async |lua, this, (method, service, path, body): (String, String, String, Option<Value>)| {
                let call = machine::effects("svc:http")?;
                let shared = this.shared.clone();
                drop(this);
                crate::http::call_service(&lua, &shared, &call, method, service, path, body).await
            },
        );
    }
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
        return Err(mlua::Error::runtime(format!("the route `{path}` does not begin with a slash")));
    }
    shared.definitions.borrow_mut().routes.push(Route { method: method.to_owned(), path, function, stream });
    Ok(())
}
