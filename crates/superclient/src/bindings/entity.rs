//! `account:decide`, `account:evolve`, `account:state`, `account:send`.

use std::rc::Rc;

use mlua::{Function, Table, UserData, UserDataMethods, Value};

use crate::engine::{commands, entities};
use crate::machine::{self, Decide, Entity, Shared};

pub(crate) struct EntityHandle {
    pub shared: Shared,
    pub entity: Rc<Entity>,
}

const KINDS: [&str; 7] = ["id", "string", "integer", "boolean", "money", "currency", "table"];

impl UserData for EntityHandle {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("decide", |_, this, (name, fields, function): (String, Table, Function)| {
            let mut list = Vec::new();
            for pair in fields.pairs::<String, String>() {
                let (field, kind) = pair?;
                let optional = kind.ends_with('?');
                let kind = kind.trim_end_matches('?').to_owned();
                if !KINDS.contains(&kind.as_str()) {
                    return Err(mlua::Error::runtime(format!(
                        "the field `{field}` has the unknown kind `{kind}`"
                    )));
                }
                list.push((field, kind, optional));
            }
            list.sort();
            this.entity.decide.borrow_mut().insert(name, Decide { fields: list, function });
            Ok(())
        });
        methods.add_method("evolve", |_, this, (kind, function): (String, Function)| {
            this.entity.evolve.borrow_mut().insert(kind, function);
            Ok(())
        });
        methods.add_async_method("state", async |lua, this, (id, options): (String, Option<Table>)| {
            machine::effects("entity:state")?;
            let at = match options {
                Some(options) => options.get::<Option<String>>("at")?,
                None => None,
            };
            let (shared, entity) = (this.shared.clone(), this.entity.clone());
            drop(this);
            match at {
                Some(at) => entities::as_of(&lua, &shared, &entity, &id, &at).await,
                None => {
                    let loaded = entities::load(&lua, &shared, &entity, &id).await?;
                    crate::json::copy(&lua, &loaded.state)
                }
            }
        });
        methods.add_async_method(
            "send",
            async |lua,
                   this,
                   (id, name, command, options): (String, String, Option<Table>, Option<Table>)| {
                let call = machine::effects("entity:send")?;
                let (shared, entity) = (this.shared.clone(), this.entity.clone());
                drop(this);
                let command = match command {
                    Some(command) => command,
                    None => lua.create_table()?,
                };
                let command_id = match options {
                    Some(options) => options.get::<Option<String>>("id")?,
                    None => None,
                };
                let request = commands::Request { entity, id, name: name.clone(), command, command_id };
                let answer = commands::send(&lua, &shared, &call, request).await?;
                let receipt = shared.definitions.borrow().receipts.get(&name).cloned();
                if let Some(receipt) = receipt {
                    receipt.call_async::<()>((answer.clone(), super::ctx::ctx(&lua, &call)?)).await?;
                }
                Ok(Value::Table(answer))
            },
        );
    }
}
