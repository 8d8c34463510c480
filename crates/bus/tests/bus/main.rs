//! The group machine in a world of its own: its cases by name, and a random walk.

mod common;
mod failure;
mod lifecycle;
mod order;
mod poison;
mod walk;
mod window;
