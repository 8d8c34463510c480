//! Groups as an operator sees them, over HTTP and in the CLI.

use daybook_bus::GroupReport;
use daybook_model::Position;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct GroupInfo {
    pub name: String,
    /// Positions between the earliest event that is not settled (nor waits behind
    /// a parked one) and the head of the log, whether the group wants them or not.
    pub lag_events: Position,
    /// Age of the earliest unsettled event; 0 when there is none.
    pub lag_seconds: u64,
    #[serde(flatten)]
    pub report: GroupReport,
}
