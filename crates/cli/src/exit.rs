//! How a command fails: a message and the exit code that scripts branch on.

use std::process::ExitCode;

use daybook_client::{ConnectError, JoinError, PublishError, ReadError, SubscribeError};
use daybook_model::{Code, Problem};

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const NOT_FOUND: u8 = 3;
pub const CONFLICT: u8 = 4;
pub const DENIED: u8 = 5;
pub const UNREACHABLE: u8 = 6;
pub const PARTLY: u8 = 7;
pub const VERIFICATION: u8 = 8;

#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(FAILED, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    pub fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("daybook: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

/// The exit code that belongs to a code of the protocol.
pub fn of(code: Code) -> u8 {
    match code {
        Code::Conflict | Code::IdConflict | Code::Fenced => CONFLICT,
        Code::Invalid | Code::TooLarge => USAGE,
        Code::Unauthorized | Code::Forbidden => DENIED,
        Code::NotFound => NOT_FOUND,
        Code::Overloaded | Code::Unavailable | Code::UnknownOutcome => FAILED,
    }
}

fn refused(problem: &Problem) -> Failure {
    Failure::new(of(problem.code), problem.to_string())
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match &error {
            ConnectError::Address { .. } => Self::usage(error.to_string()),
            ConnectError::Refused { problem, .. } => Self::new(of(problem.code), error.to_string()),
            _ => Self::new(
                UNREACHABLE,
                format!("{error}; is `daybook serve` or `daybook demo` running there?"),
            ),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        Self::new(of(error.code()), error.to_string())
    }
}

macro_rules! from_client {
    ($($name:ident)*) => {$(
        impl From<$name> for Failure {
            fn from(error: $name) -> Self {
                match &error {
                    $name::Refused(problem) => refused(problem),
                    _ => Self::new(UNREACHABLE, format!("the bus went away: {error}")),
                }
            }
        }
    )*};
}

from_client!(ReadError SubscribeError JoinError);

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // `daybook read | head` closes our stdout: that is how it is meant.
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::new(0, ""),
            _ => Self::failed(error.to_string()),
        }
    }
}
