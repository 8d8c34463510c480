//! Lua values and JSON.
//!
//! Tables that came from a JSON array, or from `array{}`, carry a metatable and
//! stay arrays; `null` is a value of its own; an object of just `minor` and
//! `currency` is money.

use mlua::{Function, Lua, LuaSerdeExt, Table, Value};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};

use crate::bindings::money::Money;
use crate::bindings::results::KIND;
use crate::room::Room;

/// Members that are held outside the machine before their table is made: it has room
/// for so many things of the host at a time, and objects lie in objects.
const HELD: usize = 64;

/// Deeper is a cycle or a mistake.
const DEPTH_MAX: usize = 100;

/// In a metatable: an array, though it has other things to say too.
pub(crate) const ARRAY: &str = "__array";

/// A script's value as JSON; the error names the member.
pub(crate) fn from_lua(lua: &Lua, value: &Value) -> mlua::Result<Json> {
    convert(lua, value, "value", 0)
}

fn convert(lua: &Lua, value: &Value, path: &str, depth: usize) -> mlua::Result<Json> {
    let refuse = |reason: &str| {
        let shown: String = path.chars().take(60).collect();
        let more = if shown.len() < path.len() { "…" } else { "" };
        Err(mlua::Error::runtime(format!("{shown}{more} {reason}")))
    };
    if depth > DEPTH_MAX {
        return refuse("is nested too deep or contains itself");
    }
    match value {
        Value::Nil => Ok(Json::Null),
        Value::Boolean(b) => Ok(Json::Bool(*b)),
        Value::Integer(n) => Ok(Json::Number((*n).into())),
        Value::Number(n) if n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => {
            Ok(Json::Number((*n as i64).into()))
        }
        Value::Number(n) => match Number::from_f64(*n) {
            Some(number) => Ok(Json::Number(number)),
            None => refuse("is not a finite number"),
        },
        Value::String(text) => match text.to_str() {
            Ok(text) => Ok(Json::String(text.to_owned())),
            Err(_) => refuse("is not UTF-8"),
        },
        Value::LightUserData(_) if value.is_null() => Ok(Json::Null),
        Value::UserData(data) => match data.borrow::<Money>() {
            Ok(money) => Ok(money.to_json()),
            Err(_) => refuse("is a value of the host, not data"),
        },
        Value::Table(table) => object_or_array(lua, table, path, depth),
        other => refuse(&format!("is a {}, not data", other.type_name())),
    }
}

fn object_or_array(lua: &Lua, table: &Table, path: &str, depth: usize) -> mlua::Result<Json> {
    let marked = table.metatable().is_some_and(|meta| {
        meta == lua.array_metatable() || meta.raw_get::<Option<bool>>(ARRAY).is_ok_and(|is| is == Some(true))
    });
    let len = table.raw_len();
    let mut entries = Map::new();
    let mut count = 0usize;
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        count += 1;
        match key {
            // What `reject` and `ok` made is data without the host's mark.
            Value::String(key) if key == KIND => {}
            Value::String(key) if !marked && len == 0 => {
                let Ok(key) = key.to_str().map(|key| key.to_owned()) else {
                    return Err(mlua::Error::runtime(format!("{path} has a name that is not UTF-8")));
                };
                let value = convert(lua, &value, &format!("{path}.{key}"), depth + 1)?;
                entries.insert(key, value);
            }
            Value::Integer(_) | Value::Number(_) if len > 0 => {}
            Value::Integer(_) | Value::Number(_) if !marked => {
                return Err(mlua::Error::runtime(format!("{path} has numbers as keys, but none that is 1")));
            }
            Value::String(key) => {
                let key = key.to_string_lossy();
                return Err(mlua::Error::runtime(format!("{path} is a list and has the name `{key}`")));
            }
            other => {
                let kind = other.type_name();
                return Err(mlua::Error::runtime(format!("{path} has a {kind} as a key, not a name")));
            }
        }
    }
    if !marked && len == 0 {
        return Ok(Json::Object(entries));
    }
    if count != len {
        return Err(mlua::Error::runtime(format!("{path} is a list with holes")));
    }
    let items = (1..=len).map(|i| convert(lua, &table.raw_get(i)?, &format!("{path}[{i}]"), depth + 1));
    items.collect::<mlua::Result<_>>().map(Json::Array)
}

/// JSON as a script's value.
pub(crate) fn to_lua(lua: &Lua, json: &Json) -> mlua::Result<Value> {
    match json {
        Json::Null => Ok(Value::NULL),
        Json::Bool(b) => Ok(Value::Boolean(*b)),
        Json::Number(n) => Ok(Value::Number(n.as_f64().unwrap_or(f64::NAN))),
        Json::String(text) => lua.create_string(text).map(Value::String),
        Json::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (i, item) in items.iter().enumerate() {
                table.raw_set(i + 1, to_lua(lua, item)?)?;
            }
            table.set_metatable(Some(lua.array_metatable()))?;
            Ok(Value::Table(table))
        }
        Json::Object(members) => {
            if let Some(money) = Money::from_json(json) {
                return lua.create_userdata(money).map(Value::UserData);
            }
            let table = lua.create_table_with_capacity(0, members.len())?;
            for (name, member) in members {
                table.raw_set(name.as_str(), to_lua(lua, member)?)?;
            }
            Ok(Value::Table(table))
        }
    }
}

/// The same from text, without a tree between.
pub(crate) fn parse(lua: &Lua, text: &str) -> mlua::Result<Value> {
    let _room = Room::take(lua, text.len());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Parse(lua).deserialize(&mut deserializer).map_err(mlua::Error::external)?;
    deserializer.end().map_err(mlua::Error::external)?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Parse<'a>(&'a Lua);

impl<'de> DeserializeSeed<'de> for Parse<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Parse<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::NULL)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.0.create_string(text).map(Value::String).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let list = || -> mlua::Result<Table> {
            let table = self.0.create_table()?;
            table.set_metatable(Some(self.0.array_metatable()))?;
            Ok(table)
        };
        let table = list().map_err(de::Error::custom)?;
        let mut i = 0;
        while let Some(item) = items.next_element_seed(self)? {
            i += 1;
            table.raw_set(i, item).map_err(de::Error::custom)?;
        }
        Ok(Value::Table(table))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        // All of them first: a table that grows member by member is made several times.
        let mut read: Vec<(Value, Value)> = Vec::with_capacity(8);
        let mut large: Option<Table> = None;
        while let Some(name) = members.next_key_seed(self)? {
            let member = members.next_value_seed(self)?;
            match &large {
                Some(table) => table.raw_set(name, member).map_err(de::Error::custom)?,
                None => read.push((name, member)),
            }
            if read.len() == HELD {
                large = Some(self.table(read.drain(..)).map_err(de::Error::custom)?);
            }
        }
        let value = match (large, amount(&read)) {
            (Some(table), _) => Ok(Value::Table(table)),
            (None, Some(money)) => self.0.create_userdata(money).map(Value::UserData),
            (None, None) => self.table(read.drain(..)).map(Value::Table),
        };
        value.map_err(de::Error::custom)
    }
}

impl Parse<'_> {
    fn table(self, members: impl ExactSizeIterator<Item = (Value, Value)>) -> mlua::Result<Table> {
        let table = self.0.create_table_with_capacity(0, members.len())?;
        for (name, member) in members {
            table.raw_set(name, member)?;
        }
        Ok(table)
    }
}

/// Money, if that is all there is.
fn amount(members: &[(Value, Value)]) -> Option<Money> {
    let [first, second] = members else { return None };
    let named = |member: &(Value, Value), name: &[u8]| member.0.as_string().is_some_and(|is| *is == *name);
    let (minor, currency) = match (first, second) {
        (a, b) if named(a, b"minor") && named(b, b"currency") => (&a.1, &b.1),
        (a, b) if named(a, b"currency") && named(b, b"minor") => (&b.1, &a.1),
        _ => return None,
    };
    Money::from_parts(&minor.as_string()?.to_str().ok()?, &currency.as_string()?.to_str().ok()?)
}

/// Plain tables are copied by the machine itself; the rest by the host.
const COPY: &str = r#"
local rest = ...
local clone, getmetatable, next, type = table.clone, getmetatable, next, type
local function copy(value)
  if getmetatable(value) ~= nil then return rest(value) end
  local copied = clone(value)
  for key, member in next, value do
    if type(member) == "table" then copied[key] = copy(member) end
  end
  return copied
end
return copy
"#;

struct Copy(Function);

pub(crate) fn install(lua: &Lua) -> mlua::Result<()> {
    let rest = lua.create_function(|lua, value: Value| copy_slowly(lua, &value, 0))?;
    let copy = lua.load(COPY).set_name("=copy").call(rest)?;
    lua.set_app_data(Copy(copy));
    Ok(())
}

/// A deep copy: what a script does to it leaves the original alone.
pub(crate) fn copy(lua: &Lua, value: &Value) -> mlua::Result<Value> {
    let Value::Table(table) = value else { return Ok(value.clone()) };
    let copy = lua.app_data_ref::<Copy>().map(|copy| copy.0.clone());
    match copy {
        Some(copy) => copy.call(table),
        None => copy_slowly(lua, value, 0),
    }
}

fn copy_slowly(lua: &Lua, value: &Value, depth: usize) -> mlua::Result<Value> {
    let Value::Table(table) = value else { return Ok(value.clone()) };
    if depth > DEPTH_MAX {
        return Err(mlua::Error::runtime("a table is nested too deep or contains itself"));
    }
    let copied = lua.create_table()?;
    for pair in table.pairs::<Value, Value>() {
        let (key, member) = pair?;
        copied.raw_set(key, copy_slowly(lua, &member, depth + 1)?)?;
    }
    copied.set_metatable(table.metatable())?;
    Ok(Value::Table(copied))
}
