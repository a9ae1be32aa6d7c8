//! One world with its questions, read from manifests as a person's would be, and asked of both engines.

use std::fmt;

use serde_json::Value;
use sluice_crds::{manifest, validate::Severity};
use sluice_reference::Evaluator;
use sluice_world::{Answer, Inputs, Learned, Mode, Query, World, build, query};
use sluice_worldgen::Generated;

use super::{Coverage, Engine};

/// A world and what to ask about it.
pub(crate) struct Case {
    pub(crate) world: World,
    pub(crate) learned: Learned,
    pub(crate) mode: Mode,
    pub(crate) queries: Vec<Query>,
}

/// A query on which the engines differ.
pub(crate) struct Difference {
    pub(crate) query: Query,
    pub(crate) expected: Answer,
    pub(crate) found: Answer,
}

impl Case {
    /// Reads what was generated.
    ///
    /// # Panics
    /// Where it is not valid: the generator's fault.
    pub(crate) fn read(generated: &Generated, mode: Mode) -> Self {
        Self::of(&generated.documents, generated, mode)
            .unwrap_or_else(|error| panic!("the generator made {error}"))
    }

    /// The same with other manifests, which need not be valid.
    pub(crate) fn of(
        documents: &[Value],
        generated: &Generated,
        mode: Mode,
    ) -> Result<Self, String> {
        let (objects, problems) =
            manifest::read("generated", &sluice_worldgen::manifest(documents));
        if let Some(error) = problems
            .iter()
            .find(|problem| problem.severity == Severity::Error)
        {
            return Err(format!("an invalid object: {error}"));
        }
        let world = build(objects.into_iter().collect::<Inputs>())
            .map_err(|error| format!("no world: {error}"))?;
        let learned =
            Learned::parse(&generated.learned_json()).map_err(|error| error.to_string())?;
        let queries =
            query::parse(&generated.query_lines(), &world).map_err(|error| error.to_string())?;
        // A pod may have no address of the family asked about; such a query has no answer to compare.
        let queries = queries.into_iter().filter_map(Result::ok).collect();
        Ok(Self {
            world,
            learned,
            mode,
            queries,
        })
    }

    /// Asks both engines everything.
    pub(crate) fn compare<E: Engine>(
        &self,
        coverage: &mut Coverage,
    ) -> Result<(), Box<Difference>> {
        let reference = Evaluator::new(&self.world, &self.learned, self.mode);
        let mut engine = E::new(&self.world, &self.learned, self.mode);
        let found = engine.answers(&self.queries);
        assert_eq!(found.len(), self.queries.len(), "one answer for each query");
        coverage.world();
        for (query, found) in self.queries.iter().zip(found) {
            let expected = reference.evaluate(query);
            coverage.answer(&expected);
            if found != expected {
                return Err(Box::new(Difference {
                    query: query.clone(),
                    expected,
                    found,
                }));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "query {:?}\nreference: {:?}\nengine:    {:?}",
            self.query, self.expected, self.found
        )
    }
}
