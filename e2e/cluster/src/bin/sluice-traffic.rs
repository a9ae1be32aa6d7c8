//! `sluice-traffic`: makes and answers traffic in a pod, and counts. Its one argument is an order, as JSON.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use sluice_cluster::traffic::{self, Order};

fn main() -> ExitCode {
    let Some(text) = std::env::args().nth(1) else {
        eprintln!("error: the order is missing, as JSON");
        return ExitCode::FAILURE;
    };
    let ended = match serde_json::from_str::<Order>(&text) {
        Ok(order) => match traffic::run(&order) {
            Ok(never) => match never {},
            Err(error) => error.to_string(),
        },
        Err(error) => format!("the order: {error}"),
    };
    eprintln!("error: {ended}");
    ExitCode::FAILURE
}
