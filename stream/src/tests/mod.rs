//! Laws that hold for all histories of all worlds that the generator makes: what travels arrives, and what a node holds is what it
//! needs, however it came to hold it.

mod history;
mod hub;
mod views;
mod wire;
