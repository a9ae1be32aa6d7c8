//! What to do next to get a toolchain, from what the machine has: a pure function. Looking and acting may not enter.

use std::path::PathBuf;

use super::{Compiler, Origin, Toolchain};

/// The oldest compiler that the workspace's `rust-version` admits.
pub(super) const OLDEST: (u32, u32) = (1, 95);

/// The majors of LLVM that the pinned bpf-linker can be built against.
const LINKABLE: std::ops::RangeInclusive<u32> = 21..=23;

/// What was found on the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Probe {
    /// Every compiler.
    pub(super) compilers: Vec<Compiler>,
    /// Development files of LLVM.
    pub(super) llvms: Vec<Llvm>,
    /// Linkers built earlier that still start, by LLVM major.
    pub(super) linkers: Vec<(u32, PathBuf)>,
    /// Whether packages can be installed with apt-get.
    pub(super) apt: bool,
    /// Whether this is Debian, which packages a recent Rust with its sources as `rustc-web`.
    pub(super) debian: bool,
    /// Whether rustup is here.
    pub(super) rustup: bool,
}

/// An LLVM that programs can be built against.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Llvm {
    /// Major version.
    pub(super) major: u32,
    /// The folder with its `bin`, `include` and `lib`.
    pub(super) prefix: PathBuf,
}

/// What to do next.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Nothing is missing.
    Ready(Toolchain),
    /// Do this and look again.
    Do(Step),
    /// Nothing is left to try; what the user can do.
    Stuck(String),
}

/// One change to the machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Debian's compiler with the standard library's sources.
    AptCompiler,
    /// LLVM's development files of this major version, from the system's packages.
    AptLlvm(u32),
    /// The standard library's sources for a toolchain of rustup.
    RustupSources(String),
    /// A nightly of rustup with the sources.
    RustupNightly,
    /// bpf-linker, against this LLVM.
    BuildLinker(Llvm),
}

impl Step {
    /// What the step does and why, for the user.
    pub(super) fn why(&self) -> String {
        match self {
            Self::AptCompiler => {
                "the eBPF target has no precompiled `core`, so the standard library's sources are needed: installing \
                 Debian's rustc-web, cargo-web and rust-web-src"
                    .to_owned()
            }
            Self::AptLlvm(major) => format!(
                "bpf-linker must be built against the LLVM that the compiler has, {major}: installing its development files"
            ),
            Self::RustupSources(name) => format!(
                "the eBPF target has no precompiled `core`: adding the standard library's sources to rustup's {name}"
            ),
            Self::RustupNightly => {
                "no compiler here is recent enough: installing rustup's nightly with the standard library's sources"
                    .to_owned()
            }
            Self::BuildLinker(llvm) => format!(
                "building bpf-linker against LLVM {} in {}; takes about a minute, once",
                llvm.major,
                llvm.prefix.display()
            ),
        }
    }
}

/// Decides. `given_up` are the steps already taken: none is taken twice, so that the loop around this ends.
///
/// A toolchain that is complete comes first, then the one that needs least: a linker, then LLVM, then a compiler. On
/// Debian its packages precede rustup, for they bring the matching LLVM along.
pub(super) fn next(probe: &Probe, given_up: &[Step]) -> Next {
    let usable = || probe.compilers.iter().filter(|c| is_usable(c));
    if let Some(toolchain) = usable().find_map(|compiler| ready(probe, compiler)) {
        return Next::Ready(toolchain);
    }
    let linkers = usable().filter_map(|compiler| {
        let llvm = probe
            .llvms
            .iter()
            .find(|llvm| llvm.major == compiler.llvm)?;
        Some(Step::BuildLinker(llvm.clone()))
    });
    let llvms = usable()
        .filter(|_| probe.apt)
        .map(|compiler| Step::AptLlvm(compiler.llvm));
    let debian = (probe.apt && probe.debian).then_some(Step::AptCompiler);
    linkers
        .chain(llvms)
        .chain(debian)
        .chain(rustup_steps(probe))
        .find(|step| !given_up.contains(step))
        .map_or_else(|| Next::Stuck(advice(probe)), Next::Do)
}

fn is_usable(compiler: &Compiler) -> bool {
    compiler.has_sources && could_be_used(compiler)
}

fn could_be_used(compiler: &Compiler) -> bool {
    compiler.version >= OLDEST && LINKABLE.contains(&compiler.llvm)
}

fn ready(probe: &Probe, compiler: &Compiler) -> Option<Toolchain> {
    let (_, linker) = probe
        .linkers
        .iter()
        .find(|(llvm, _)| *llvm == compiler.llvm)?;
    Some(Toolchain {
        compiler: compiler.clone(),
        linker: linker.clone(),
    })
}

fn rustup_steps(probe: &Probe) -> Vec<Step> {
    let mut steps: Vec<_> = probe
        .compilers
        .iter()
        .filter(|compiler| could_be_used(compiler) && !compiler.has_sources)
        .filter_map(|compiler| match &compiler.origin {
            Origin::Rustup(name) => Some(Step::RustupSources(name.clone())),
            Origin::System => None,
        })
        .collect();
    if probe.rustup {
        steps.push(Step::RustupNightly);
    }
    steps
}

fn advice(probe: &Probe) -> String {
    if let Some(compiler) = probe.compilers.iter().find(|c| is_usable(c)) {
        return format!(
            "{} would do, but there is no bpf-linker for LLVM {llvm} and none could be built. Install the development \
             files of LLVM {llvm} (llvm-{llvm}-dev and libpolly-{llvm}-dev on Debian), so that \
             /usr/lib/llvm-{llvm} or an llvm-config in PATH leads to them",
            compiler.describe(),
            llvm = compiler.llvm,
        );
    }
    format!(
        "it takes Rust {}.{} or newer, built on LLVM {} to {}, with the standard library's sources. With rustup: \
         `rustup component add rust-src`. On Debian, as root: `apt-get install rustc-web cargo-web rust-web-src`",
        OLDEST.0,
        OLDEST.1,
        LINKABLE.start(),
        LINKABLE.end(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(origin: Origin, version: (u32, u32), llvm: u32, has_sources: bool) -> Compiler {
        Compiler {
            origin,
            rustc: "/rustc".into(),
            cargo: "/cargo".into(),
            version,
            llvm,
            has_sources,
        }
    }

    fn debian_rust(has_sources: bool) -> Compiler {
        compiler(Origin::System, (1, 96), 22, has_sources)
    }

    fn rustup_rust(name: &str, has_sources: bool) -> Compiler {
        compiler(Origin::Rustup(name.into()), (1, 97), 22, has_sources)
    }

    fn llvm(major: u32) -> Llvm {
        Llvm {
            major,
            prefix: format!("/usr/lib/llvm-{major}").into(),
        }
    }

    fn linker(major: u32) -> (u32, PathBuf) {
        (major, format!("/tools/{major}/bpf-linker").into())
    }

    /// Plays the loop with a machine on which every step succeeds, and returns the steps.
    fn played(mut probe: Probe, fails: &[Step]) -> (Vec<Step>, Next) {
        let mut steps = Vec::new();
        loop {
            let step = match next(&probe, &steps) {
                Next::Do(step) => step,
                end => return (steps, end),
            };
            if !fails.contains(&step) {
                match &step {
                    Step::AptCompiler => probe.compilers.push(debian_rust(true)),
                    Step::AptLlvm(major) => probe.llvms.push(llvm(*major)),
                    Step::RustupSources(name) => {
                        for c in &mut probe.compilers {
                            c.has_sources |= c.origin == Origin::Rustup(name.clone());
                        }
                    }
                    Step::RustupNightly => probe.compilers.push(rustup_rust("nightly", true)),
                    Step::BuildLinker(llvm) => probe.linkers.push(linker(llvm.major)),
                }
            }
            steps.push(step);
        }
    }

    #[test]
    fn a_complete_toolchain_needs_nothing() {
        let probe = Probe {
            compilers: vec![rustup_rust("stable", false), debian_rust(true)],
            linkers: vec![linker(22)],
            ..Probe::default()
        };
        let ready = Toolchain {
            compiler: debian_rust(true),
            linker: linker(22).1,
        };
        assert_eq!(next(&probe, &[]), Next::Ready(ready));
    }

    #[test]
    fn debian_without_rustup_gets_there() {
        let probe = Probe {
            compilers: vec![compiler(Origin::System, (1, 63), 14, false)],
            apt: true,
            debian: true,
            ..Probe::default()
        };
        let (steps, end) = played(probe, &[]);
        assert_eq!(
            steps,
            [
                Step::AptCompiler,
                Step::AptLlvm(22),
                Step::BuildLinker(llvm(22))
            ]
        );
        assert!(matches!(end, Next::Ready(t) if t.compiler.origin == Origin::System));
    }

    #[test]
    fn rustup_with_a_nightly_that_has_the_sources_uses_it() {
        let probe = Probe {
            compilers: vec![rustup_rust("stable", false), rustup_rust("nightly", true)],
            llvms: vec![llvm(22)],
            apt: true,
            debian: true,
            rustup: true,
            ..Probe::default()
        };
        let (steps, end) = played(probe, &[]);
        assert_eq!(steps, [Step::BuildLinker(llvm(22))]);
        assert!(
            matches!(end, Next::Ready(t) if t.compiler.origin == Origin::Rustup("nightly".into()))
        );
    }

    #[test]
    fn rustup_off_debian_gets_the_sources_and_builds_against_the_llvm_it_finds() {
        let probe = Probe {
            compilers: vec![rustup_rust("stable", false)],
            llvms: vec![llvm(14), llvm(22)],
            rustup: true,
            ..Probe::default()
        };
        let (steps, end) = played(probe, &[]);
        assert_eq!(
            steps,
            [
                Step::RustupSources("stable".into()),
                Step::BuildLinker(llvm(22))
            ]
        );
        assert!(matches!(end, Next::Ready(_)));
    }

    #[test]
    fn where_one_way_is_closed_the_next_is_tried() {
        let probe = Probe {
            compilers: vec![rustup_rust("stable", false)],
            apt: true,
            debian: true,
            rustup: true,
            ..Probe::default()
        };
        let (steps, end) = played(probe, &[Step::AptCompiler]);
        assert_eq!(steps[0], Step::AptCompiler);
        assert_eq!(steps[1], Step::RustupSources("stable".into()));
        assert!(matches!(end, Next::Ready(_)));
    }

    #[test]
    fn an_old_rustup_toolchain_gets_a_nightly() {
        let probe = Probe {
            compilers: vec![compiler(Origin::Rustup("stable".into()), (1, 80), 18, true)],
            llvms: vec![llvm(22)],
            rustup: true,
            ..Probe::default()
        };
        let (steps, _) = played(probe, &[]);
        assert_eq!(steps[0], Step::RustupNightly);
    }

    #[test]
    fn a_linker_of_another_llvm_is_not_used() {
        let probe = Probe {
            compilers: vec![debian_rust(true)],
            linkers: vec![linker(21)],
            llvms: vec![llvm(22)],
            ..Probe::default()
        };
        assert_eq!(next(&probe, &[]), Next::Do(Step::BuildLinker(llvm(22))));
    }

    #[test]
    fn a_compiler_whose_llvm_no_linker_supports_is_not_used() {
        let probe = Probe {
            compilers: vec![compiler(Origin::System, (1, 120), 30, true)],
            llvms: vec![llvm(30)],
            ..Probe::default()
        };
        assert!(matches!(next(&probe, &[]), Next::Stuck(_)));
    }

    #[test]
    fn when_everything_fails_it_ends_and_says_what_a_person_can_do() {
        let probe = Probe {
            compilers: vec![rustup_rust("stable", false)],
            apt: true,
            debian: true,
            rustup: true,
            ..Probe::default()
        };
        let all = [
            Step::AptCompiler,
            Step::RustupSources("stable".into()),
            Step::RustupNightly,
        ];
        let (steps, end) = played(probe, &all);
        assert_eq!(steps.len(), 3);
        assert!(matches!(end, Next::Stuck(advice) if advice.contains("rust-src")));
    }

    #[test]
    fn without_llvm_the_advice_names_its_packages() {
        let probe = Probe {
            compilers: vec![debian_rust(true)],
            ..Probe::default()
        };
        assert!(matches!(next(&probe, &[]), Next::Stuck(advice) if advice.contains("llvm-22-dev")));
    }
}
