//! Every time and cap of a group in one place, each with its reason.

#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a lost session's keys wait for the same boot to come back.
    pub grace_ms: u64,
    /// How long an overdue session may stay silent before its claim ends.
    pub overdue_answer_ms: u64,
    /// `progress` extends a delivery to at most this many times `max_processing_ms`:
    /// a loop that only says it is alive must not hold a key for ever.
    pub longest_factor: u64,
    /// A settled event is in a checkpoint after this time …
    pub save_after_ms: u64,
    /// … or when so many are settled, …
    pub save_after_acks: u32,
    /// … and while somebody waits for it, no more often than this.
    pub save_gap_ms: u64,
    /// When only unwanted events were passed over, saving them spares a restart some reading.
    pub save_idle_ms: u64,
    pub backoff_first_ms: u64,
    pub backoff_max_ms: u64,
    /// The longest delay a `nack` may ask for.
    pub delay_max_ms: u64,
    /// Events and bytes in memory; reading stops beyond either.
    pub buffered_events: usize,
    pub buffered_bytes: usize,
    /// Events of one key in memory; the others wait in the log.
    pub lane_events: usize,
    /// Distance between the oldest unsettled event and where the group reads. The
    /// key that holds it up is detached, so that a restart has less to read again.
    pub lag_positions: u64,
    /// Keys that are parked or behind; reading stops beyond.
    pub detached_keys: usize,
    pub page_events: usize,
    pub page_bytes: usize,
    /// What is kept of the reason that a session gives: a line for a person, in
    /// memory and in every checkpoint.
    pub reason_bytes: usize,
    /// How long a failed read or save waits before it is tried again.
    pub retry_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace_ms: 5_000,
            overdue_answer_ms: 5_000,
            longest_factor: 20,
            save_after_ms: 100,
            save_after_acks: 1_000,
            save_gap_ms: 10,
            save_idle_ms: 5_000,
            backoff_first_ms: 100,
            backoff_max_ms: 60_000,
            delay_max_ms: 3_600_000,
            buffered_events: 10_000,
            buffered_bytes: 64 << 20,
            lane_events: 64,
            lag_positions: 100_000,
            detached_keys: 100_000,
            page_events: 256,
            page_bytes: 1 << 20,
            reason_bytes: 1_000,
            retry_ms: 500,
        }
    }
}
