//! `money`: integer minor units with a currency. No float ever holds an amount.

use mlua::{Lua, MetaMethod, MultiValue, UserData, UserDataFields, UserDataMethods, Value};
use serde_json::{Value as Json, json};

use super::args::{self, Args};
use crate::report::{self, Invalid};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Money {
    minor: i64,
    /// Three capital letters.
    currency: [u8; 3],
}

impl Money {
    pub fn new(minor: i64, currency: &str) -> mlua::Result<Self> {
        let currency = code(currency)
            .ok_or_else(|| mlua::Error::runtime(format!("`{currency}` is no currency code")))?;
        Ok(Self { minor, currency })
    }

    pub fn currency(&self) -> &str {
        std::str::from_utf8(&self.currency).expect("capital letters")
    }

    pub fn to_json(self) -> Json {
        json!({ "minor": self.minor.to_string(), "currency": self.currency() })
    }

    /// Only of an object with exactly these two members in exactly this form.
    pub fn from_json(json: &Json) -> Option<Self> {
        let members = json.as_object().filter(|members| members.len() == 2)?;
        let minor = members.get("minor")?.as_str()?;
        let currency = members.get("currency")?.as_str()?;
        Self::from_parts(minor, currency)
    }

    /// Money, if it is written the one way that it is written.
    pub fn from_parts(minor: &str, currency: &str) -> Option<Self> {
        let canonical = minor.parse::<i64>().ok().filter(|n| n.to_string() == minor)?;
        Some(Self { minor: canonical, currency: code(currency)? })
    }

    fn with(&self, other: &Self, what: &str, minor: Option<i64>) -> mlua::Result<Self> {
        if self.currency != other.currency {
            return Err(mlua::Error::runtime(format!(
                "cannot {what} {} and {}",
                self.currency(),
                other.currency()
            )));
        }
        let minor = minor.ok_or_else(|| mlua::Error::runtime(format!("{what}: the amount is too large")))?;
        Ok(Self { minor, currency: self.currency })
    }

    fn compare(&self, other: &Self) -> mlua::Result<std::cmp::Ordering> {
        self.with(other, "compare", Some(0))?;
        Ok(self.minor.cmp(&other.minor))
    }
}

fn code(text: &str) -> Option<[u8; 3]> {
    text.as_bytes().try_into().ok().filter(|code: &[u8; 3]| code.iter().all(u8::is_ascii_uppercase))
}

/// Decimals of the minor unit (ISO 4217) where they are not two.
fn decimals(currency: &str) -> usize {
    match currency {
        "JPY" | "KRW" | "VND" | "CLP" | "ISK" => 0,
        "BHD" | "KWD" | "JOD" | "OMR" | "TND" => 3,
        _ => 2,
    }
}

impl UserData for Money {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("currency", |lua, this| lua.create_string(this.currency()));
        // A string: a Lua number loses whole numbers above 2^53.
        fields.add_field_method_get("minor", |_, this| Ok(this.minor.to_string()));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        // Either side may be the one that is no amount: `money + 5` and `5 + money`.
        methods.add_meta_function(MetaMethod::Add, |_, (a, b): (Value, Value)| {
            let (a, b) = both("add", &a, &b)?;
            a.with(&b, "add", a.minor.checked_add(b.minor))
        });
        methods.add_meta_function(MetaMethod::Sub, |_, (a, b): (Value, Value)| {
            let (a, b) = both("subtract", &a, &b)?;
            a.with(&b, "subtract", a.minor.checked_sub(b.minor))
        });
        methods.add_meta_function(MetaMethod::Mul, |_, (a, b): (Value, Value)| {
            let (amount, times) = if a.is_userdata() { (a, b) } else { (b, a) };
            let amount = one(&amount).ok_or_else(|| refuse("multiply", &amount))?;
            let times = whole(&times).map_err(|_| {
                mlua::Error::runtime(
                    "an amount is multiplied by a whole number only: nothing rounds by itself",
                )
            })?;
            amount.with(&amount, "multiply", amount.minor.checked_mul(times))
        });
        for divide in [MetaMethod::Div, MetaMethod::IDiv, MetaMethod::Mod] {
            methods.add_meta_function(divide, |_, _: (Value, Value)| {
                Err::<(), _>(mlua::Error::runtime(
                    "an amount is not divided, because nothing rounds by itself: divide tonumber(amount.minor), \
                     and say with money.new who gets the rest",
                ))
            });
        }
        methods.add_meta_method(MetaMethod::Unm, |_, this, ()| {
            this.with(this, "negate", this.minor.checked_neg())
        });
        methods.add_meta_function(MetaMethod::Lt, |_, (a, b): (Value, Value)| {
            let (a, b) = both("compare", &a, &b)?;
            Ok(a.compare(&b)?.is_lt())
        });
        methods.add_meta_function(MetaMethod::Le, |_, (a, b): (Value, Value)| {
            let (a, b) = both("compare", &a, &b)?;
            Ok(a.compare(&b)?.is_le())
        });
        // An amount is no other value's equal, but asking about pounds and euros is a mistake.
        methods.add_meta_function(MetaMethod::Eq, |_, (a, b): (Value, Value)| match (one(&a), one(&b)) {
            (Some(a), Some(b)) => Ok(a.compare(&b)?.is_eq()),
            _ => Ok(false),
        });
        methods.add_meta_method(MetaMethod::Index, |_, _, name: Value| {
            Err::<Value, _>(args::unknown("an amount", &name, MEMBERS))
        });
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| Ok(format(this)));
        methods.add_method("format", |_, this, ()| Ok(format(this)));
        methods.add_method("is_zero", |_, this, ()| Ok(this.minor == 0));
        methods.add_method("is_negative", |_, this, ()| Ok(this.minor < 0));
        methods.add_method("is_positive", |_, this, ()| Ok(this.minor > 0));
    }
}

pub(crate) const MEMBERS: [&str; 6] =
    ["currency", "format", "is_negative", "is_positive", "is_zero", "minor"];

type Amount = mlua::UserDataRef<Money>;

fn one(value: &Value) -> Option<Amount> {
    match value {
        Value::UserData(data) => data.borrow::<Money>().ok(),
        _ => None,
    }
}

fn both(what: &str, a: &Value, b: &Value) -> mlua::Result<(Amount, Amount)> {
    let a = one(a).ok_or_else(|| refuse(what, a))?;
    let b = one(b).ok_or_else(|| refuse(what, b))?;
    Ok((a, b))
}

fn refuse(what: &str, other: &Value) -> mlua::Error {
    let name = if other.is_number() || other.is_integer() { "number" } else { other.type_name() };
    mlua::Error::runtime(format!(
        "cannot {what} an amount and a {name}: make one with money.new(minor, currency)"
    ))
}

fn format(money: &Money) -> String {
    let decimals = decimals(money.currency());
    let digits = format!("{:0>width$}", money.minor.unsigned_abs(), width = decimals + 1);
    let (whole, rest) = digits.split_at(digits.len() - decimals);
    let sign = if money.minor < 0 { "-" } else { "" };
    let point = if decimals == 0 { "" } else { "." };
    format!("{sign}{whole}{point}{rest} {}", money.currency())
}

const NEW: &str = "money.new(minor, currency)";
const PARSE: &str = "money.parse{ minor, currency }";

pub(super) fn install(lua: &Lua) -> mlua::Result<()> {
    let money = lua.create_table()?;
    let new = lua.create_function(|_, args: MultiValue| {
        let mut args = Args::new(NEW, args);
        let minor = args.value();
        let minor =
            whole(&minor).map_err(|_| args.wrong("minor", "a whole number of minor units", &minor))?;
        Money::new(minor, &args.string("currency")?)
    })?;
    money.set("new", new)?;
    let zero = lua.create_function(|_, args: MultiValue| {
        Money::new(0, &Args::new("money.zero(currency)", args).string("currency")?)
    })?;
    money.set("zero", zero)?;
    // What comes from outside and is no amount is the caller's mistake, not the script's.
    let parse = lua.create_function(|_, value: Value| {
        parse(&value).map_err(|error| mlua::Error::external(Invalid { reason: report::describe(&error) }))
    })?;
    money.set("parse", parse)?;
    lua.globals().set("money", money)
}

fn parse(value: &Value) -> mlua::Result<Money> {
    let table = match value {
        Value::Table(table) => table,
        other => {
            return one(other).map(|amount| *amount).ok_or_else(|| {
                let got = if other.is_null() { "null" } else { other.type_name() };
                mlua::Error::runtime(format!("{PARSE}: an amount is missing, there is {got}"))
            });
        }
    };
    let currency = args::text(&table.get("currency")?)
        .ok_or_else(|| mlua::Error::runtime(format!("{PARSE}: `currency` is missing")))?;
    match table.get("minor")? {
        minor @ Value::String(_) => Money::new(
            whole(&minor)
                .map_err(|_| mlua::Error::runtime(format!("{PARSE}: `minor` is no whole number")))?,
            &currency,
        ),
        _ => Err(mlua::Error::runtime(format!("{PARSE}: `minor` must be a string of digits, like \"1050\""))),
    }
}

fn whole(value: &Value) -> mlua::Result<i64> {
    let not_whole = || mlua::Error::runtime("an amount is a whole number of minor units");
    match value {
        Value::Integer(n) => Ok(*n),
        Value::Number(n) if n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => Ok(*n as i64),
        Value::String(text) => {
            let text = text.to_str()?;
            text.parse::<i64>().ok().filter(|n| n.to_string() == *text).ok_or_else(not_whole)
        }
        _ => Err(not_whole()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(script: &str) -> mlua::Result<String> {
        let lua = Lua::new();
        install(&lua)?;
        lua.load(script).eval::<mlua::Value>().and_then(|value| value.to_string())
    }

    #[test]
    fn amounts_add_compare_and_print() {
        assert_eq!(eval("return money.new(1050, 'GBP') + money.new('1', 'GBP')").unwrap(), "10.51 GBP");
        assert_eq!(eval("return -money.new(5, 'GBP')").unwrap(), "-0.05 GBP");
        assert_eq!(eval("return money.new(1050, 'JPY')").unwrap(), "1050 JPY");
        assert_eq!(eval("return money.new(1, 'GBP') < money.new(2, 'GBP')").unwrap(), "true");
        assert_eq!(
            eval("return money.parse{minor='9223372036854775807', currency='GBP'}.minor").unwrap(),
            "9223372036854775807"
        );
    }

    #[test]
    fn other_currencies_overflow_and_fractions_are_errors() {
        for script in [
            "return money.new(1, 'GBP') + money.new(1, 'EUR')",
            "return money.new(1, 'GBP') < money.new(1, 'EUR')",
            "return money.new('9223372036854775807', 'GBP') + money.new(1, 'GBP')",
            "return money.new(0.5, 'GBP')",
            "return money.new('01', 'GBP')",
            "return money.parse{minor=5, currency='GBP'}",
            "return money.new(1, 'pounds')",
        ] {
            assert!(eval(script).is_err(), "{script}");
        }
    }
}
