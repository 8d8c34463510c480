//! `money`: integer minor units with a currency. No float ever holds an amount.

use mlua::{Lua, MetaMethod, Table, UserData, UserDataFields, UserDataMethods, Value};
use serde_json::{Value as Json, json};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Money {
    pub minor: i64,
    pub currency: String,
}

impl Money {
    pub fn new(minor: i64, currency: &str) -> mlua::Result<Self> {
        if !is_currency(currency) {
            return Err(mlua::Error::runtime(format!("`{currency}` is no currency code")));
        }
        Ok(Self { minor, currency: currency.to_owned() })
    }

    pub fn to_json(&self) -> Json {
        json!({ "minor": self.minor.to_string(), "currency": self.currency })
    }

    /// Only of an object with exactly these two members in exactly this form.
    pub fn from_json(json: &Json) -> Option<Self> {
        let members = json.as_object().filter(|members| members.len() == 2)?;
        let minor = members.get("minor")?.as_str()?;
        let currency = members.get("currency")?.as_str()?;
        let canonical = minor.parse::<i64>().ok().filter(|n| n.to_string() == minor)?;
        is_currency(currency).then(|| Self { minor: canonical, currency: currency.to_owned() })
    }

    fn with(&self, other: &Self, what: &str, minor: Option<i64>) -> mlua::Result<Self> {
        if self.currency != other.currency {
            return Err(mlua::Error::runtime(format!(
                "cannot {what} {} and {}",
                self.currency, other.currency
            )));
        }
        let minor = minor.ok_or_else(|| mlua::Error::runtime(format!("{what}: the amount is too large")))?;
        Ok(Self { minor, currency: self.currency.clone() })
    }

    fn compare(&self, other: &Self) -> mlua::Result<std::cmp::Ordering> {
        self.with(other, "compare", Some(0))?;
        Ok(self.minor.cmp(&other.minor))
    }
}

fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
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
        fields.add_field_method_get("currency", |_, this| Ok(this.currency.clone()));
        // A string: a Lua number loses whole numbers above 2^53.
        fields.add_field_method_get("minor", |_, this| Ok(this.minor.to_string()));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        type Other = mlua::UserDataRef<Money>;
        methods.add_meta_method(MetaMethod::Add, |_, this, other: Other| {
            this.with(&other, "add", this.minor.checked_add(other.minor))
        });
        methods.add_meta_method(MetaMethod::Sub, |_, this, other: Other| {
            this.with(&other, "subtract", this.minor.checked_sub(other.minor))
        });
        methods.add_meta_method(MetaMethod::Unm, |_, this, ()| {
            this.with(this, "negate", this.minor.checked_neg())
        });
        methods.add_meta_method(MetaMethod::Lt, |_, this, other: Other| Ok(this.compare(&other)?.is_lt()));
        methods.add_meta_method(MetaMethod::Le, |_, this, other: Other| Ok(this.compare(&other)?.is_le()));
        methods.add_meta_method(MetaMethod::Eq, |_, this, other: Other| Ok(*this == *other));
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| Ok(format(this)));
        methods.add_method("format", |_, this, ()| Ok(format(this)));
        methods.add_method("is_zero", |_, this, ()| Ok(this.minor == 0));
        methods.add_method("is_negative", |_, this, ()| Ok(this.minor < 0));
        methods.add_method("is_positive", |_, this, ()| Ok(this.minor > 0));
    }
}

fn format(money: &Money) -> String {
    let decimals = decimals(&money.currency);
    let digits = format!("{:0>width$}", money.minor.unsigned_abs(), width = decimals + 1);
    let (whole, rest) = digits.split_at(digits.len() - decimals);
    let sign = if money.minor < 0 { "-" } else { "" };
    let point = if decimals == 0 { "" } else { "." };
    format!("{sign}{whole}{point}{rest} {}", money.currency)
}

pub(super) fn install(lua: &Lua) -> mlua::Result<()> {
    let money = lua.create_table()?;
    money.set(
        "new",
        lua.create_function(|_, (minor, currency): (Value, String)| Money::new(whole(&minor)?, &currency))?,
    )?;
    money.set("zero", lua.create_function(|_, currency: String| Money::new(0, &currency))?)?;
    money.set(
        "parse",
        lua.create_function(|_, value: Value| match &value {
            Value::UserData(data) => data.borrow::<Money>().map(|money| money.clone()),
            Value::Table(table) => parse(table),
            other => Err(mlua::Error::runtime(format!(
                "money.parse: expected {{minor, currency}}, got {}",
                other.type_name()
            ))),
        })?,
    )?;
    lua.globals().set("money", money)
}

fn parse(table: &Table) -> mlua::Result<Money> {
    let minor: Value = table.get("minor")?;
    let currency: String =
        table.get("currency").map_err(|_| mlua::Error::runtime("money.parse: `currency` is missing"))?;
    match &minor {
        Value::String(_) => Money::new(whole(&minor)?, &currency),
        _ => Err(mlua::Error::runtime("money.parse: `minor` must be a string of digits")),
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
