//! Starts the operator: arguments, logs, signals. Everything else is the library's.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use kube::{Client, Config};
use sluice_operator::{
    options::{LogFormat, Options},
    run::run,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let options = Options::parse();
    let result = start_logs(&options).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(operate(options))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logs(options: &Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.log).context("what is to be logged")?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}

async fn operate(options: Options) -> anyhow::Result<()> {
    let config = Config::infer()
        .await
        .context("how to reach the API server")?;
    let client = Client::try_from(config).context("a client of the API server")?;
    let (stop, stopping) = watch::channel(false);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        tracing::info!("told to end");
        stop.send_replace(true);
        // The channel lives as long as someone may look.
        stop.closed().await;
    });
    // The future is large: it holds the whole operator.
    Box::pin(run(options, client, stopping)).await?;
    Ok(())
}
