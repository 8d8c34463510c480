//! The one place where refusals become problems, and problems HTTP statuses.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use daybook_model::{Code, Invalid, Problem};
use daybook_store::{AppendError, CheckpointError, ReadError};

/// What a client should wait before it sends again after `overloaded`.
const RETRY_AFTER_MS: u64 = 50;

pub(crate) fn status(code: Code) -> StatusCode {
    match code {
        Code::Conflict | Code::IdConflict | Code::Fenced => StatusCode::CONFLICT,
        Code::Invalid => StatusCode::BAD_REQUEST,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::UnknownOutcome => StatusCode::GATEWAY_TIMEOUT,
    }
}

pub(crate) fn append_problem(error: AppendError) -> Problem {
    let detail = error.to_string();
    match error {
        AppendError::Conflict { subject } => Problem::new(Code::Conflict, detail).subject(subject),
        AppendError::IdConflict { .. } | AppendError::PartlyKnown { .. } => {
            Problem::new(Code::IdConflict, detail)
        }
        AppendError::Invalid(invalid) => invalid.into(),
        AppendError::Fenced => Problem::new(Code::Fenced, detail),
        AppendError::Overloaded => overloaded(detail),
        AppendError::UnknownOutcome { .. } => Problem::new(Code::UnknownOutcome, detail),
        // Unavailable, and whatever a later store adds: not stored.
        _ => Problem::new(Code::Unavailable, detail),
    }
}

pub(crate) fn overloaded(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Overloaded, detail).retry_after_ms(RETRY_AFTER_MS)
}

pub(crate) fn read_problem(error: ReadError) -> Problem {
    // Damage is for the operator's log as well: the reader can do nothing.
    tracing::error!(%error, "a read failed");
    Problem::new(Code::Unavailable, error.to_string())
}

/// A problem as the answer of an HTTP handler.
pub(crate) struct Refused(pub Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<Invalid> for Refused {
    fn from(invalid: Invalid) -> Self {
        Self(invalid.into())
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        Self(append_problem(error))
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        Self(read_problem(error))
    }
}

impl From<CheckpointError> for Refused {
    fn from(error: CheckpointError) -> Self {
        Self(Problem::new(Code::Unavailable, error.to_string()))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut problem = self.0;
        let status = match problem.status {
            Some(status) => StatusCode::from_u16(status).unwrap_or_else(|_| status_of(&problem)),
            None => status_of(&problem),
        };
        problem.status = Some(status.as_u16());
        let retry_after = problem.retry_after_ms.map(|ms| ms.div_ceil(1000));
        let body = serde_json::to_vec(&problem).expect("a problem has string keys and is written to memory");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn status_of(problem: &Problem) -> StatusCode {
    status(problem.code)
}
