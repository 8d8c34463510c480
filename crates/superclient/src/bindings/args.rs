//! Arguments of what a script calls: taken one by one, refused by name.
//!
//! `what` is the call as the guide writes it, so that a refusal shows its whole shape.

use mlua::{Function, MultiValue, Table, Value};

pub(crate) struct Args {
    what: &'static str,
    values: std::vec::IntoIter<Value>,
}

impl Args {
    pub fn new(what: &'static str, values: MultiValue) -> Self {
        Self { what, values: values.into_iter().collect::<Vec<_>>().into_iter() }
    }

    pub fn wrong(&self, name: &str, wanted: &str, got: &Value) -> mlua::Error {
        mlua::Error::runtime(format!("{}: `{name}` must be {wanted}, not {}", self.what, shown(got)))
    }

    /// The next one, `nil` if there is none.
    pub fn value(&mut self) -> Value {
        self.values.next().unwrap_or(Value::Nil)
    }

    /// What comes next, left where it is.
    pub fn peek(&self) -> &Value {
        self.values.as_slice().first().unwrap_or(&Value::Nil)
    }

    pub fn optional_string(&mut self, name: &str) -> mlua::Result<Option<String>> {
        let value = self.value();
        if value.is_nil() || value.is_null() {
            return Ok(None);
        }
        text(&value).map(Some).ok_or_else(|| self.wrong(name, "a string", &value))
    }

    pub fn string(&mut self, name: &str) -> mlua::Result<String> {
        let value = self.value();
        text(&value).ok_or_else(|| self.wrong(name, "a string", &value))
    }

    pub fn function(&mut self, name: &str) -> mlua::Result<Function> {
        match self.value() {
            Value::Function(function) => Ok(function),
            other => Err(self.wrong(name, "a function", &other)),
        }
    }

    pub fn optional_table(&mut self, name: &str) -> mlua::Result<Option<Table>> {
        match self.value() {
            Value::Nil => Ok(None),
            Value::Table(table) => Ok(Some(table)),
            other if other.is_null() => Ok(None),
            other => Err(self.wrong(name, "a table", &other)),
        }
    }

    pub fn table(&mut self, name: &str) -> mlua::Result<Table> {
        match self.value() {
            Value::Table(table) => Ok(table),
            other => Err(self.wrong(name, "a table", &other)),
        }
    }

    /// One name, or a list of them.
    pub fn strings(&mut self, name: &str) -> mlua::Result<Vec<String>> {
        let value = self.value();
        let refuse = |got: &Value| self.wrong(name, "a string or a list of strings", got);
        let list = match &value {
            Value::String(_) => return Ok(text(&value).into_iter().collect()),
            Value::Table(list) => list,
            other => return Err(refuse(other)),
        };
        let mut found = Vec::new();
        for item in list.clone().sequence_values::<Value>() {
            match item? {
                Value::String(item) => found.push(item.to_str()?.to_owned()),
                other => return Err(refuse(&other)),
            }
        }
        if found.is_empty() {
            return Err(self.wrong(name, "a string or a list of strings", &value));
        }
        Ok(found)
    }
}

/// Strings, and whole numbers as people write ids.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.to_str().ok().map(|text| text.to_owned()),
        Value::Integer(n) => Some(n.to_string()),
        Value::Number(n) if n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0 => {
            Some((*n as i64).to_string())
        }
        _ => None,
    }
}

pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Nil => "nil".into(),
        value if value.is_null() => "null".into(),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(n) => n.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(text) => {
            let text = text.to_string_lossy();
            let short: String = text.chars().take(40).collect();
            if short.len() < text.len() { format!("`{short}…`") } else { format!("`{short}`") }
        }
        Value::Table(table) if table.is_empty() => "an empty table".into(),
        Value::UserData(_) => "a value of the host".into(),
        other => format!("a {}", other.type_name()),
    }
}

/// A name that is not there, with the one that was probably meant.
pub(crate) fn unknown<'a>(
    place: &str,
    name: &Value,
    known: impl IntoIterator<Item = &'a str>,
) -> mlua::Error {
    let name = text(name).unwrap_or_else(|| shown(name));
    let known: Vec<&str> = known.into_iter().collect();
    let advice = match nearest(&name, &known) {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; it has {}", known.join(", ")),
    };
    mlua::Error::runtime(format!("{place} has no `{name}`{advice}"))
}

/// The known name that a slip of the fingers could have made into `name`.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), *known));
    let (distance, nearest) = close.min()?;
    (distance <= 1 + name.len() / 4).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_finds_what_was_meant_and_nothing_else_does() {
        let known = ["entity", "on", "view", "publish"];
        for (slip, meant) in [
            ("entitty", Some("entity")),
            ("veiw", Some("view")),
            ("publsh", Some("publish")),
            ("table", None),
        ] {
            assert_eq!(nearest(slip, &known), meant, "{slip}");
        }
    }
}
