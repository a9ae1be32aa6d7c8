//! `docs/cli.md` is what `--help` says of every command, neither older nor other. The text comes from the built program and not from
//! its argument types, so what the reader finds is what the reader would see.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Set, the file is written instead of compared.
const WRITE: &str = "SLUICE_WRITE_DOCS";
/// What whoever finds the file stale should run.
const REFRESH: &str = "SLUICE_WRITE_DOCS=1 cargo test -p sluice --test docs";
/// The width of every help text, whatever terminal the test runs in.
const COLUMNS: &str = "100";

#[test]
fn the_command_reference_is_what_help_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let fresh = reference();
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, fresh).expect("docs/cli.md can be written");
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = first_difference(&fresh, &kept);
    assert!(
        fresh == kept,
        "docs/cli.md is not what `--help` says: run `{REFRESH}`\nfirst difference: {differs}"
    );
}

#[test]
fn every_command_is_found_however_deep() {
    let found: Vec<String> = commands(&[])
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

/// The first line that is not the same in both, each as it is.
fn first_difference(fresh: &str, kept: &str) -> String {
    let lines = fresh.lines().count().max(kept.lines().count());
    let line = |text: &str, number| text.lines().nth(number).unwrap_or("(nothing)").to_owned();
    (0..lines)
        .map(|number| (number, line(fresh, number), line(kept, number)))
        .find(|(_, new, old)| new != old)
        .map_or_else(
            || "the end of the last line".to_owned(),
            |(number, new, old)| format!("line {}: help `{new}`, file `{old}`", number + 1),
        )
}

/// The whole page.
fn reference() -> String {
    let commands = commands(&[]);
    let contents: String = commands
        .iter()
        .map(|(path, _)| title(path))
        .map(|name| ["- [`", &name, "`](#", &name.replace(' ', "-"), ")\n"].concat())
        .collect();
    let sections: String = commands
        .iter()
        .map(|(path, help)| {
            [
                "\n## ",
                &title(path),
                "\n\n```text\n",
                &tidy(help),
                "\n```\n",
            ]
            .concat()
        })
        .collect();
    format!(
        "<!-- Generated from the program's help: change that, then run `{REFRESH}`. -->\n\n\
         # The commands of `sluice`\n\n\
         What `--help` prints, for every command. [policy.md](policy.md) and [lab.md](lab.md) show them at work.\n\n\
         {contents}{sections}"
    )
}

fn title(path: &[String]) -> String {
    let mut words = vec!["sluice"];
    words.extend(path.iter().map(String::as_str));
    words.join(" ")
}

/// This command and all below it, in the order of the help, each with its help.
fn commands(path: &[String]) -> Vec<(Vec<String>, String)> {
    let help = help(path);
    let below = subcommands(&help);
    let mut all = vec![(path.to_vec(), help)];
    for name in below {
        all.extend(commands(&[path, &[name]].concat()));
    }
    all
}

/// The help of a command, at a width that neither the terminal nor the environment of the test decides.
fn help(path: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(path)
        .arg("--help")
        // The width of a terminal goes before COLUMNS, so none may be there: not even as standard input.
        .stdin(Stdio::null())
        .env("COLUMNS", COLUMNS)
        .env("NO_COLOR", "1")
        .env_remove("CLICOLOR_FORCE")
        .output()
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{} --help: {output:?}",
        title(path)
    );
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The names under `Commands:`. A name is indented by two; the rest of a long description by more.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Without the blanks at the ends of lines that the help's layout leaves.
fn tidy(help: &str) -> String {
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n")
}
