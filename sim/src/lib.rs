//! Whole-system runs: in virtual time from a seed, and as real processes.
//!
//! See README.md beside this for how to run one seed and read a failure.

pub mod chaos;
pub mod entropy;
pub mod history;
pub mod workload;
pub mod world;
