//! `docs/agent.md` is what `--help` says of every command, neither older nor other.
#![forbid(unsafe_code)]

use sluice_help::Page;

#[test]
fn the_page_is_what_help_says() {
    let page = Page {
        name: "sluice-agent",
        program: env!("CARGO_BIN_EXE_sluice-agent"),
        file: "../../docs/agent.md",
        test: "-p sluice-agentd --test docs",
        opening: "# The node's agent\n\n\
              What `--help` prints, for every command of `sluice-agent`. The chart sets what is to be set; see [install.md](install.md).",
    };
    page.check(env!("CARGO_MANIFEST_DIR"));
}
