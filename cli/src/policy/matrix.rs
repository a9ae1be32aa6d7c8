//! `sluice policy matrix`: every pair of pods, who reaches whom, and by which rule.

mod ask;
mod draw;

use std::process::ExitCode;

use anyhow::bail;
use sluice_world::World;

use crate::{
    arguments::MatrixArguments,
    engine::Judge,
    manifests::{self, Manifests},
    output,
};

/// Runs the command.
///
/// # Errors
/// Where the manifests are invalid, or there is nobody to ask about.
pub(crate) fn run(arguments: &MatrixArguments) -> anyhow::Result<ExitCode> {
    let world = Manifests::read(&arguments.judge.manifests.paths)?.world()?;
    let learned = manifests::learned(arguments.judge.learned.as_deref())?;
    let ends = ends(&world, arguments);
    if ends.is_empty() {
        bail!(
            "the manifests hold no pod: give those of pods too (Pod, Deployment, StatefulSet, DaemonSet), or --with ip:<address>"
        );
    }
    let judge = Judge::new(
        arguments.engine,
        &world,
        &learned,
        arguments.judge.policy_mode.into(),
    )?;
    let matrix = ask::matrix(&world, &judge, &ends, arguments)?;
    output::document(arguments.output, &matrix, || {
        draw::text(&matrix, output::width())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Rows and columns: every pod, then what was asked for.
fn ends(world: &World, arguments: &MatrixArguments) -> Vec<String> {
    let pods = world
        .pods
        .keys()
        .map(|pod| format!("pod:{}/{}", pod.namespace, pod.name));
    pods.chain(arguments.ends.iter().cloned()).collect()
}
