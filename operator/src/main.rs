//! Starts the operator: arguments, logs, signals. Everything else is the library's.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use kube::{Client, Config};
use sluice_operator::{
    options::{Arguments, Command, LogFormat, Options},
    run::run,
    uninstall::uninstall,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match carry_out(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match arguments.command {
        Command::Run(options) => {
            start_logs(&options.log, options.log_format)?;
            runtime.block_on(operate(*options))
        }
        Command::Uninstall(options) => {
            start_logs("info", LogFormat::Text)?;
            runtime.block_on(async { uninstall(client().await?, &options).await })
        }
    }
}

/// The API server as kubeconfig or the pod says.
async fn client() -> anyhow::Result<Client> {
    let config = Config::infer()
        .await
        .context("how to reach the API server")?;
    Client::try_from(config).context("a client of the API server")
}

fn start_logs(wanted: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(wanted).context("what is to be logged")?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}

async fn operate(options: Options) -> anyhow::Result<()> {
    let client = client().await?;
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
