#![forbid(unsafe_code)]
//! The program: flags in, exit code out. Everything else is the library's.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use sluice_agentd::{
    cleanup, install,
    options::{Arguments, Command},
    run,
};
use sluice_datapath::probe;
use tracing_subscriber::{EnvFilter, fmt};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match carry_out(&arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: &Command) -> Result<()> {
    match command {
        Command::Run(options) => {
            log(options.log_json);
            // The only provider that is built in; a second call finds it there.
            let _ = rustls::crypto::ring::default_provider().install_default();
            run::run(options)
        }
        Command::InstallCni { files, plugin } => {
            let plugin = plugin.clone().unwrap_or_else(run::plugin_beside_us);
            install::install_plugin(&plugin, &files.cni_bin_dir).with_context(|| {
                format!(
                    "copying {} to {}",
                    plugin.display(),
                    files.cni_bin_dir.display()
                )
            })
        }
        Command::Cleanup {
            files,
            datapath,
            wait,
        } => {
            for what in cleanup::cleanup(files, datapath)? {
                println!("removed: {what}");
            }
            wait.map_or(Ok(()), run::stay_clean)
        }
        Command::Probe => {
            for feature in probe::probe() {
                println!("{feature}");
            }
            Ok(probe::require()?)
        }
        Command::Show { what, files } => {
            let body = cleanup::ask(&files.status_socket(), "GET", &format!("/{what}"))
                .context("asking the agent")?;
            println!("{body}");
            Ok(())
        }
    }
}

/// `RUST_LOG` says how much.
fn log(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    if json {
        fmt().json().with_env_filter(filter).init();
    } else {
        fmt().with_env_filter(filter).with_ansi(false).init();
    }
}
