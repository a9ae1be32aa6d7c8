//! The engines behind one door, so that commands don't care which one judges.

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
}

impl<'w> Judge<'w> {
    /// Makes the engine of this kind ready.
    pub(crate) fn new(kind: EngineKind, world: &'w World, learned: &'w Learned, mode: Mode) -> Self {
        match kind {
            EngineKind::Reference => Self::Reference(Evaluator::new(world, learned, mode)),
            EngineKind::Compiled => Self::Compiled(Box::new(Engine::new(world, learned, mode))),
        }
    }

    /// Judges one query.
    pub(crate) fn answer(&self, query: &Query) -> Answer {
        match self {
            Self::Reference(evaluator) => evaluator.evaluate(query),
            Self::Compiled(engine) => engine.answer(query),
        }
    }
}
