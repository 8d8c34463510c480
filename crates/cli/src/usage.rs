//! What is said of a value that a flag cannot take: where it came from, if nobody
//! gave the flag, and what was expected, in words of people.

use std::error::Error as _;
use std::net::AddrParseError;
use std::num::{IntErrorKind, ParseIntError};

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use crate::settings::Settings;

/// The same error, better told. `args` are those of the process.
pub fn explained(mut error: Error, command: &Command, settings: &Settings, args: &[String]) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let is_of_value = matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue);
    let (Some(flag), Some(value), true) =
        (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue), is_of_value)
    else {
        return error;
    };
    let source = origin(&flag, &value, command, settings, args).unwrap_or(flag);
    if let Some(expected) = error.source().and_then(expected) {
        let what = format!("invalid value '{value}' for '{source}': expected {expected}");
        return Error::raw(error.kind(), format!("{what}\n\nFor more information, try '--help'.\n"));
    }
    error.insert(ContextKind::InvalidArg, ContextValue::String(source));
    error
}

/// Where the standard library says less than a person needs.
fn expected(why: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if why.is::<AddrParseError>() {
        return Some("an address and a port, such as 127.0.0.1:7400");
    }
    match why.downcast_ref::<ParseIntError>()?.kind() {
        IntErrorKind::InvalidDigit | IntErrorKind::Empty => Some("a whole number, not negative"),
        _ => None,
    }
}

/// Who said it, if it was not the flag: `flag` is as clap names it, like `--data <DATA>`.
fn origin(
    flag: &str,
    value: &str,
    command: &Command,
    settings: &Settings,
    args: &[String],
) -> Option<String> {
    let long = flag.strip_prefix("--")?.split([' ', '=']).next()?;
    let is_given = |arg: &String| {
        arg.strip_prefix("--")
            .and_then(|arg| arg.strip_prefix(long))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    if args.iter().any(is_given) {
        return None;
    }
    if let Some(variable) = variable(command, long, value) {
        return Some(format!("{variable} ({flag})"));
    }
    settings.found.then(|| format!("{long} in {} ({flag})", settings.path.display()))
}

/// The environment variable that gives this flag the value.
fn variable(command: &Command, long: &str, value: &str) -> Option<String> {
    let mut named =
        command.get_arguments().filter(|arg| arg.get_long() == Some(long)).filter_map(|arg| arg.get_env());
    let own = named.find(|name| std::env::var(name).is_ok_and(|set| set == value));
    own.map(|name| name.to_string_lossy().into_owned())
        .or_else(|| command.get_subcommands().find_map(|below| variable(below, long, value)))
}
