//! `kv`: a service's own tables. Writes belong to the running call and are
//! committed together when it ends well.

use std::collections::BTreeMap;
use std::rc::Rc;

use mlua::{Lua, LuaSerdeExt, MetaMethod, MultiValue, Table, UserData, UserDataMethods, Value};

use super::args::{self, Args};
use crate::json;
use crate::machine::{self, Call, Shared};
use crate::report::Invalid;

/// What handlers wrote is known as it is now. Views are made again as of any time.
const NOW_ONLY: &str = "`at` is not possible here: the route uses svc.kv, which holds what handlers have written \
                        until now; what is asked for as of another time belongs into a view";

pub(crate) struct Kv {
    pub shared: Shared,
    /// Ends in a zero byte, so that no table's keys are another's.
    pub prefix: Vec<u8>,
    pub writable: bool,
    /// Handed to a view's function, which sees nothing else.
    pub given: bool,
}

impl Kv {
    pub fn view(shared: &Shared, name: &str, writable: bool) -> Self {
        Self {
            shared: shared.clone(),
            prefix: [b"view/", name.as_bytes(), b"\0"].concat(),
            writable,
            given: writable,
        }
    }

    fn call(&self) -> mlua::Result<Rc<Call>> {
        if self.given {
            return machine::call();
        }
        let call = machine::reads("kv")?;
        if self.prefix == machine::OWN && call.at.is_some() {
            return Err(mlua::Error::external(Invalid { reason: NOW_ONLY.into() }));
        }
        Ok(call)
    }

    fn key(&self, key: &str) -> Vec<u8> {
        [&self.prefix, key.as_bytes()].concat()
    }

    fn get(&self, lua: &Lua, key: &str) -> mlua::Result<Value> {
        let key = self.key(key);
        let call = self.call()?;
        let pending = call.overlay.borrow().get(&key).cloned();
        let bytes = match pending {
            Some(pending) => pending,
            None if call.scratch => None,
            None => call.row(&self.shared, &key)?,
        };
        match bytes {
            Some(bytes) => json::parse(lua, std::str::from_utf8(&bytes).map_err(mlua::Error::external)?),
            None => Ok(Value::Nil),
        }
    }

    fn write(&self, key: &str, value: Option<Vec<u8>>) -> mlua::Result<()> {
        if !self.writable {
            return Err(mlua::Error::runtime("a view is written by its own function only"));
        }
        self.call()?.overlay.borrow_mut().insert(self.key(key), value);
        Ok(())
    }

    fn put(&self, lua: &Lua, key: &str, value: &Value) -> mlua::Result<()> {
        let json = json::from_lua(lua, value)?;
        self.write(key, Some(serde_json::to_vec(&json).map_err(mlua::Error::external)?))
    }

    fn scan(&self, lua: &Lua, prefix: &str) -> mlua::Result<Value> {
        let start = self.key(prefix);
        let call = self.call()?;
        let mut found: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        if !call.scratch {
            let stored = call.rows(&self.shared, &start)?;
            found.extend(stored.into_iter().map(|(key, value)| (key, Some(value))));
        }
        let overlay = call.overlay.borrow();
        let pending = overlay.range(start.clone()..).take_while(|(key, _)| key.starts_with(&start));
        found.extend(pending.map(|(key, value)| (key.clone(), value.clone())));
        let list = lua.create_table()?;
        let row = lua.named_registry_value::<Table>(ROW)?;
        for (key, value) in found {
            let Some(value) = value else { continue };
            let entry = lua.create_table()?;
            entry.set("key", String::from_utf8_lossy(&key[self.prefix.len()..]).into_owned())?;
            let value = std::str::from_utf8(&value).map_err(mlua::Error::external)?;
            entry.set("value", json::parse(lua, value)?)?;
            entry.set_metatable(Some(row.clone()))?;
            list.push(entry)?;
        }
        list.set_metatable(Some(lua.array_metatable()))?;
        Ok(Value::Table(list))
    }
}

pub(crate) const METHODS: [&str; 5] = ["append", "delete", "get", "put", "scan"];

/// What rows of a `scan` have in common: whoever takes one for the value is told.
const ROW: &str = "row of kv:scan";

pub(super) fn install(lua: &Lua) -> mlua::Result<()> {
    let meta = lua.create_table()?;
    let missing = lua.create_function(|_, (_, name): (Value, Value)| {
        let name = args::text(&name).unwrap_or_default();
        Err::<Value, _>(mlua::Error::runtime(format!(
            "kv:scan gives a list of rows, each {{ key, value }}, and a row has no `{name}`: \
             for _, row in kv:scan(prefix) do … row.value.{name}"
        )))
    })?;
    meta.raw_set("__index", missing)?;
    lua.set_named_registry_value(ROW, meta)
}

impl UserData for Kv {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, args: MultiValue| {
            this.get(lua, &Args::new("kv:get(key)", args).string("key")?)
        });
        methods.add_method("put", |lua, this, args: MultiValue| {
            let mut args = Args::new("kv:put(key, value)", args);
            let key = args.string("key")?;
            match args.value() {
                // As everywhere in Lua: what is nil is not there.
                Value::Nil => this.write(&key, None),
                value => this.put(lua, &key, &value),
            }
        });
        methods.add_method("delete", |_, this, args: MultiValue| {
            this.write(&Args::new("kv:delete(key)", args).string("key")?, None)
        });
        methods.add_method("scan", |lua, this, args: MultiValue| {
            let prefix = Args::new("kv:scan(prefix)", args).optional_string("prefix")?;
            this.scan(lua, &prefix.unwrap_or_default())
        });
        methods.add_method("append", |lua, this, args: MultiValue| {
            let mut args = Args::new("kv:append(key, value)", args);
            let (key, value) = (args.string("key")?, args.value());
            let list = match this.get(lua, &key)? {
                Value::Table(list) if list.raw_len() > 0 || is_array(lua, &list) => list,
                Value::Nil => lua.create_table()?,
                other => {
                    return Err(mlua::Error::runtime(format!(
                        "kv:append: `{key}` holds a {}, no list",
                        other.type_name()
                    )));
                }
            };
            list.push(value)?;
            list.set_metatable(Some(lua.array_metatable()))?;
            this.put(lua, &key, &Value::Table(list))
        });
        methods.add_meta_method(MetaMethod::Index, |_, _, name: Value| {
            Err::<Value, _>(args::unknown("kv", &name, METHODS))
        });
        methods.add_meta_method(MetaMethod::NewIndex, |_, _, (name, _): (Value, Value)| {
            let name = args::text(&name).unwrap_or_else(|| "key".into());
            Err::<(), _>(mlua::Error::runtime(format!("kv is written by kv:put(\"{name}\", value)")))
        });
        methods.add_meta_method(MetaMethod::Iter, |_, _, ()| {
            Err::<(), _>(mlua::Error::runtime(
                "kv is read by kv:scan(prefix): for _, row in kv:scan(\"\") do … row.key, row.value",
            ))
        });
    }
}

fn is_array(lua: &Lua, table: &Table) -> bool {
    table.metatable().is_some_and(|meta| meta == lua.array_metatable())
}
