//! `docs/cli.md` is what `--help` says of every command, neither older nor other.
#![forbid(unsafe_code)]

use sluice_help::Page;

const PAGE: Page<'_> = Page {
    name: "sluice",
    program: env!("CARGO_BIN_EXE_sluice"),
    file: "../docs/cli.md",
    test: "-p sluice --test docs",
    opening: "# The commands of `sluice`\n\n\
              What `--help` prints, for every command. [policy.md](policy.md) and [lab.md](lab.md) show them at work.",
};

#[test]
fn the_command_reference_is_what_help_says() {
    PAGE.check(env!("CARGO_MANIFEST_DIR"));
}

#[test]
fn every_command_is_found_however_deep() {
    let found: Vec<String> = PAGE
        .commands()
        .into_iter()
        .map(|(path, _)| path.join(" "))
        .collect();
    for command in [
        "",
        "status",
        "policy",
        "policy eval",
        "policy wait",
        "connectivity test",
        "lab",
        "lab up",
        "completion",
    ] {
        assert!(found.iter().any(|path| path == command), "{found:#?}");
    }
    // Hidden commands are for the program itself; `help` says nothing of its own.
    for absent in [
        "lab serve",
        "connectivity serve",
        "connectivity probe",
        "help",
        "lab help",
    ] {
        assert!(!found.iter().any(|path| path == absent), "{found:#?}");
    }
}
