//! The script API as editors read it.
//!
//! # Promises
//! The file names every global and member that the machine has, and no other:
//! the tests below compare it with the bindings' sources and a running machine.

/// Definitions for luau-lsp.
pub const TYPES: &str = include_str!("daybook.d.luau");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::TYPES;
    use crate::bindings::{entity, kv, money, service, tx};
    use crate::bundle::Bundle;
    use crate::machine::Machine;

    /// Members of `declare class NAME … end`, without operators.
    fn declared(class: &str) -> BTreeSet<&'static str> {
        let text = TYPES.split(&format!("declare class {class}\n")).nth(1).unwrap();
        let text = text.split("\nend").next().unwrap();
        let name = |line: &'static str| {
            let line = line.trim();
            let line = line.strip_prefix("function ").unwrap_or(line);
            line.split(['(', ':']).next().unwrap()
        };
        text.lines().map(name).filter(|name| !name.starts_with("__") && !name.is_empty()).collect()
    }

    /// Names that the bindings' source registers.
    fn registered(source: &'static str) -> BTreeSet<&'static str> {
        let mut found = BTreeSet::new();
        for call in
            ["add_method(\"", "add_async_method(\"", "add_field_method_get(\"", "add_method(\n            \""]
        {
            found.extend(source.split(call).skip(1).map(|rest| rest.split('"').next().unwrap()));
        }
        // Routes are registered in a loop over their names.
        let verbs = ["get", "post", "put", "patch", "delete"];
        found.extend(verbs.iter().filter(|verb| source.contains(&format!("(\"{verb}\", \"svc:{verb}("))));
        found
    }

    #[test]
    fn every_member_is_declared_listed_and_registered() {
        for (class, listed, source) in [
            ("Service", service::MEMBERS.as_slice(), include_str!("bindings/service.rs")),
            ("Entity", entity::METHODS.as_slice(), include_str!("bindings/entity.rs")),
            ("Tx", tx::METHODS.as_slice(), include_str!("bindings/tx.rs")),
            ("Kv", kv::METHODS.as_slice(), include_str!("bindings/kv.rs")),
            ("Money", money::MEMBERS.as_slice(), include_str!("bindings/money.rs")),
        ] {
            let listed: BTreeSet<&str> = listed.iter().copied().collect();
            assert_eq!(declared(class), listed, "{class}: daybook.d.luau and the list of names");
            assert_eq!(registered(source), listed, "{class}: the bindings and the list of names");
        }
    }

    #[test]
    fn what_a_test_may_say_is_declared() {
        let prelude = include_str!("testing/prelude.lua");
        let mut said: BTreeSet<&str> =
            prelude.split("\nfunction T:").skip(1).map(|rest| rest.split('(').next().unwrap()).collect();
        said.extend(["post", "put", "patch", "delete"]);
        assert_eq!(declared("Test"), said);
    }

    #[test]
    fn every_global_of_the_host_is_declared_and_there() {
        let plain = mlua::Lua::new();
        let text = "local svc = service('x', {})\nlocal names = {} for name in _G do table.insert(names, name) end\n_G_NAMES = table.concat(names, ' ')";
        let machine =
            Machine::load(&Arc::new(Bundle::of_text("x.lua", text)), crate::Limits::default()).unwrap();
        let names: String = machine.lua.globals().get("_G_NAMES").unwrap();
        // What plain Luau has as well needs no declaration of ours.
        let ours: BTreeSet<&str> = names
            .split(' ')
            .filter(|name| plain.globals().get::<mlua::Value>(*name).unwrap().is_nil())
            .collect();
        let declared: BTreeSet<&str> = TYPES
            .lines()
            .filter_map(|line| {
                line.strip_prefix("declare function ").or_else(|| line.strip_prefix("declare "))
            })
            .filter(|line| !line.starts_with("class "))
            .map(|line| line.split(['(', ':']).next().unwrap())
            .filter(|name| *name != "test")
            .collect();
        assert_eq!(declared, ours);
        for (table, members) in
            [("money", ["new", "parse", "zero"]), ("crypto", ["hash_password", "token", "verify_password"])]
        {
            let there: mlua::Table = machine.lua.globals().get(table).unwrap();
            let there: BTreeSet<String> =
                there.pairs::<String, mlua::Value>().map(|pair| pair.unwrap().0).collect();
            assert_eq!(there, members.map(str::to_owned).into());
            for member in members {
                assert!(TYPES.contains(&format!("\t{member}: (")), "{table}.{member} is not declared");
            }
        }
    }
}
