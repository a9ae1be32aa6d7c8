//! `docs/operator.md` is what `--help` says of every command, neither older nor other.
#![forbid(unsafe_code)]

use sluice_help::Page;

#[test]
fn the_page_is_what_help_says() {
    let page = Page {
        name: "sluice-operator",
        program: env!("CARGO_BIN_EXE_sluice-operator"),
        file: "../docs/operator.md",
        test: "-p sluice-operator --test docs",
        opening: "# The operator\n\n\
              What `--help` prints, for every command of `sluice-operator`. The chart sets what is to be set; see [install.md](install.md).",
    };
    page.check(env!("CARGO_MANIFEST_DIR"));
}
