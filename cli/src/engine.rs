//! The engines behind one door, so that commands don't care which one judges.

use anyhow::Context;
use sluice_agent::KernelEngine;
use sluice_policy::Engine;
use sluice_reference::Evaluator;
use sluice_world::{Answer, Learned, Mode, Query, World};

use crate::arguments::EngineKind;

/// Something that judges queries in one world.
pub(crate) enum Judge<'w> {
    /// Reads the rules one by one.
    Reference(Evaluator<'w>),
    /// Looks compiled tables up.
    Compiled(Box<Engine>),
    /// Has the kernel judge packets.
    Kernel(Box<KernelEngine>),
}

impl<'w> Judge<'w> {
    /// Makes the engine of this kind ready.
    ///
    /// # Errors
    /// Where the kernel or the rights of this process do not suffice.
    pub(crate) fn new(
        kind: EngineKind,
        world: &'w World,
        learned: &'w Learned,
        mode: Mode,
    ) -> anyhow::Result<Self> {
        Ok(match kind {
            EngineKind::Reference => Self::Reference(Evaluator::new(world, learned, mode)),
            EngineKind::Compiled => Self::Compiled(Box::new(Engine::new(world, learned, mode))),
            EngineKind::Kernel => {
                let engine = KernelEngine::new(world, learned, mode).context(
                    "the kernel engine can't be made ready (it needs root and kernel 6.6 or later; \
                     --engine compiled needs neither and gives the same answers)",
                )?;
                Self::Kernel(Box::new(engine))
            }
        })
    }

    /// Judges one query.
    ///
    /// # Errors
    /// Where the kernel can't be asked; the other engines always answer.
    pub(crate) fn answer(&self, query: &Query) -> anyhow::Result<Answer> {
        Ok(match self {
            Self::Reference(evaluator) => evaluator.evaluate(query),
            Self::Compiled(engine) => engine.answer(query),
            Self::Kernel(engine) => engine.answer(query)?,
        })
    }
}
