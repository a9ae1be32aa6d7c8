#![forbid(unsafe_code)]
//! Pages that say what a program's `--help` says, for tests that keep them so. The text comes from the built program and not from its
//! argument types, so what the reader finds is what the reader would see.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

/// Set, the pages are written instead of compared.
const WRITE: &str = "SLUICE_WRITE_DOCS";
/// The width of every help text, whatever terminal the test runs in.
const COLUMNS: &str = "100";

/// A page about one program.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// What people type.
    pub name: &'a str,
    /// The built program.
    pub program: &'a str,
    /// The file, from the package's folder on.
    pub file: &'a str,
    /// What cargo is told to run the test: `-p sluice --test docs`.
    pub test: &'a str,
    /// Heading and first words.
    pub opening: &'a str,
}

impl Page<'_> {
    /// Fails if the page is not what help says; writes it where `SLUICE_WRITE_DOCS` is set.
    ///
    /// # Panics
    /// The page is stale, can't be written, or the program does not start.
    pub fn check(&self, package: &str) {
        let path = Path::new(package).join(self.file);
        let fresh = self.text();
        if env::var_os(WRITE).is_some() {
            fs::write(&path, fresh).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            return;
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        let differs = first_difference(&fresh, &kept);
        assert!(
            fresh == kept,
            "{} is not what `--help` says: run `{}`\nfirst difference: {differs}",
            self.file,
            self.refresh()
        );
    }

    /// Every command, however deep, in the order of the help, each with its help.
    ///
    /// # Panics
    /// The program does not start.
    #[must_use]
    pub fn commands(&self) -> Vec<(Vec<String>, String)> {
        self.below(&[])
    }

    fn refresh(&self) -> String {
        format!("{WRITE}=1 cargo test {}", self.test)
    }

    fn text(&self) -> String {
        let commands = self.commands();
        let contents: String = commands
            .iter()
            .map(|(path, _)| self.title(path))
            .map(|name| ["- [`", &name, "`](#", &name.replace(' ', "-"), ")\n"].concat())
            .collect();
        let sections: String = commands
            .iter()
            .map(|(path, help)| {
                let title = self.title(path);
                ["\n## ", &title, "\n\n```text\n", &tidy(help), "\n```\n"].concat()
            })
            .collect();
        format!(
            "<!-- Generated from the program's help: change that, then run `{}`. -->\n\n{}\n\n{contents}{sections}",
            self.refresh(),
            self.opening
        )
    }

    fn title(&self, path: &[String]) -> String {
        let mut words = vec![self.name];
        words.extend(path.iter().map(String::as_str));
        words.join(" ")
    }

    fn below(&self, path: &[String]) -> Vec<(Vec<String>, String)> {
        let help = self.help(path);
        let names = subcommands(&help);
        let mut all = vec![(path.to_vec(), help)];
        for name in names {
            all.extend(self.below(&[path, &[name]].concat()));
        }
        all
    }

    /// The help of a command, at a width and with values that neither the terminal nor the environment of the test decides.
    fn help(&self, path: &[String]) -> String {
        let output = Command::new(self.program)
            .args(path)
            .arg("--help")
            .env_clear()
            // The width of a terminal goes before COLUMNS, so none may be there: not even as standard input.
            .stdin(Stdio::null())
            .env("COLUMNS", COLUMNS)
            .env("NO_COLOR", "1")
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program));
        assert!(
            output.status.success(),
            "{} --help: {output:?}",
            self.title(path)
        );
        String::from_utf8(output.stdout).expect("help is UTF-8")
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
