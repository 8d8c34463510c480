//! One error per operation, each with the server's own code where it has one.

use daybook_model::{Code, Problem};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    #[error("`{url}` is no address of a bus: expected http://HOST:PORT")]
    Address { url: String },
    #[error("cannot reach the bus at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// The bus answered, and said no.
    #[error("the bus at {url} refused the connection: {problem}")]
    Refused { url: String, problem: Box<Problem> },
}

/// Why a batch has no receipt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    #[error("{0}")]
    Refused(Box<Problem>),
    /// No answer until the deadline: publish the same ids again to find out.
    #[error("unknown-outcome: no answer in time; publish the same ids again to find out")]
    UnknownOutcome,
    #[error("the client was closed")]
    Closed,
}

impl PublishError {
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(problem) => problem.code,
            Self::UnknownOutcome | Self::Closed => Code::UnknownOutcome,
        }
    }

    /// Whether the same batch, ids included, can succeed later.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

macro_rules! simple {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, thiserror::Error)]
        #[non_exhaustive]
        pub enum $name {
            #[error("{0}")]
            Refused(Box<Problem>),
            #[error("no answer in time")]
            TimedOut,
            #[error("the client was closed")]
            Closed,
        }

        impl $name {
            /// The server's code, if it answered.
            pub fn code(&self) -> Option<Code> {
                match self {
                    Self::Refused(problem) => Some(problem.code),
                    Self::TimedOut | Self::Closed => None,
                }
            }
        }
    )*};
}

simple! {
    /// Why a read gave no page.
    ReadError
    /// Why there is no subscription.
    SubscribeError
    /// Why there is no membership.
    JoinError
}
