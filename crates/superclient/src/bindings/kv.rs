//! `kv`: a service's own tables. Writes belong to the running call and are
//! committed together when it ends well.

use std::collections::BTreeMap;

use mlua::{Lua, LuaSerdeExt, UserData, UserDataMethods, Value};

use crate::json;
use crate::machine::{self, Shared};

pub(crate) struct Kv {
    pub shared: Shared,
    /// Ends in a zero byte, so that no table's keys are another's.
    pub prefix: Vec<u8>,
    pub writable: bool,
}

impl Kv {
    pub fn view(shared: &Shared, name: &str, writable: bool) -> Self {
        Self { shared: shared.clone(), prefix: [b"view/", name.as_bytes(), b"\0"].concat(), writable }
    }

    fn key(&self, key: &str) -> Vec<u8> {
        [&self.prefix, key.as_bytes()].concat()
    }

    fn get(&self, lua: &Lua, key: &str) -> mlua::Result<Value> {
        let key = self.key(key);
        let call = machine::call()?;
        let pending = call.overlay.borrow().get(&key).cloned();
        let bytes = match pending {
            Some(pending) => pending,
            None if call.scratch => None,
            None => self.shared.state()?.get(&key).map_err(mlua::Error::external)?,
        };
        match bytes {
            Some(bytes) => json::to_lua(lua, &serde_json::from_slice(&bytes).map_err(mlua::Error::external)?),
            None => Ok(Value::Nil),
        }
    }

    fn write(&self, key: &str, value: Option<Vec<u8>>) -> mlua::Result<()> {
        if !self.writable {
            return Err(mlua::Error::runtime("a view is written by its own function only"));
        }
        machine::call()?.overlay.borrow_mut().insert(self.key(key), value);
        Ok(())
    }

    fn put(&self, lua: &Lua, key: &str, value: &Value) -> mlua::Result<()> {
        let json = json::from_lua(lua, value)?;
        self.write(key, Some(serde_json::to_vec(&json).map_err(mlua::Error::external)?))
    }

    fn scan(&self, lua: &Lua, prefix: &str) -> mlua::Result<Value> {
        let start = self.key(prefix);
        let call = machine::call()?;
        let mut found: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        if !call.scratch {
            let stored = self.shared.state()?.scan(&start).map_err(mlua::Error::external)?;
            found.extend(stored.into_iter().map(|(key, value)| (key, Some(value))));
        }
        let overlay = call.overlay.borrow();
        let pending = overlay.range(start.clone()..).take_while(|(key, _)| key.starts_with(&start));
        found.extend(pending.map(|(key, value)| (key.clone(), value.clone())));
        let list = lua.create_table()?;
        for (key, value) in found {
            let Some(value) = value else { continue };
            let entry = lua.create_table()?;
            entry.set("key", String::from_utf8_lossy(&key[self.prefix.len()..]).into_owned())?;
            let value = serde_json::from_slice(&value).map_err(mlua::Error::external)?;
            entry.set("value", json::to_lua(lua, &value)?)?;
            list.push(entry)?;
        }
        list.set_metatable(Some(lua.array_metatable()))?;
        Ok(Value::Table(list))
    }
}

impl UserData for Kv {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, key: String| this.get(lua, &key));
        methods.add_method("put", |lua, this, (key, value): (String, Value)| this.put(lua, &key, &value));
        methods.add_method("delete", |_, this, key: String| this.write(&key, None));
        methods.add_method("scan", |lua, this, prefix: Option<String>| {
            this.scan(lua, &prefix.unwrap_or_default())
        });
        methods.add_method("append", |lua, this, (key, value): (String, Value)| {
            let list = match this.get(lua, &key)? {
                Value::Table(list) => list,
                Value::Nil => lua.create_table()?,
                other => {
                    return Err(mlua::Error::runtime(format!(
                        "append: `{key}` holds a {}, no list",
                        other.type_name()
                    )));
                }
            };
            list.push(value)?;
            list.set_metatable(Some(lua.array_metatable()))?;
            this.put(lua, &key, &Value::Table(list))
        });
    }
}
