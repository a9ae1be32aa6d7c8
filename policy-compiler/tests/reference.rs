//! The compiled engine answers as the reference evaluator does. A quick look for this crate's authors; the full differential tests,
//! with shrinking and all engines, are elsewhere.

use sluice_policy::Engine;
use sluice_reference::Evaluator;
use sluice_world::{Inputs, Learned, Mode, build, query};
use sluice_worldgen::{Parameters, generate_seeded};

#[test]
fn answers_agree() {
    let worlds: u64 = std::env::var("WORLDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(300);
    let first: u64 = std::env::var("FIRST")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let (mut wrong, mut judged) = (0, 0);
    for seed in first..first + worlds {
        let generated = generate_seeded(&Parameters::small(), seed);
        let (objects, _) = sluice_crds::manifest::read("generated", &generated.manifest());
        let world = build(objects.into_iter().collect::<Inputs>()).expect("a world");
        let learned = Learned::parse(&generated.learned_json()).expect("names");
        let queries = query::parse(&generated.query_lines(), &world).expect("lines");
        for mode in [Mode::Default, Mode::Always, Mode::Never] {
            let engine = Engine::new(&world, &learned, mode);
            let reference = Evaluator::new(&world, &learned, mode);
            for query in queries.iter().flatten() {
                judged += 1;
                let (expected, actual) = (reference.evaluate(query), engine.answer(query));
                if expected != actual {
                    wrong += 1;
                    if wrong <= 5 {
                        eprintln!(
                            "seed {seed} mode {mode:?} {query:?}\nexpected {expected:#?}\nactual {actual:#?}"
                        );
                    }
                }
            }
        }
    }
    assert_eq!(wrong, 0, "of {judged}");
    assert!(judged > 0);
}
