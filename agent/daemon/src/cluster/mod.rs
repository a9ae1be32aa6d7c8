//! The way to the operator: where operators are, and the stream of what they say. What is said is the engine's.

mod operators;
mod reports;
mod subscriber;
mod watch;

pub use operators::{Operators, Tokens};
pub use reports::StreamReports;
pub use subscriber::{Session, run};
pub use watch::{Discovery, follow};
