//! Kubernetes' own end-to-end tests against a running cluster, and what came of each.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde::Deserialize;

use crate::{
    build,
    cache::Cache,
    cluster::Cluster,
    command,
    error::{Error, Result},
};

/// Conformance tests of the network, which any cluster must pass.
pub const CONFORMANCE: &str = r"\[sig-network\].*\[Conformance\]";
/// In the name of every test of [`CONFORMANCE`].
const IS_CONFORMANCE: &str = "[Conformance]";
/// So many there are in the version of Kubernetes that `modules/` pins.
pub const CONFORMANCE_TESTS: usize = 47;
/// Tests of `NetworkPolicy`.
pub const NETPOL: &str = r"\[sig-network\].*Netpol";

/// Which tests to run.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Tests whose full name matches this regular expression.
    pub focus: String,
    /// But none whose full name matches this one; nothing is left out if empty.
    pub skip: String,
    /// How many run at once.
    pub parallel: u8,
}

/// What came of the tests that were selected, by full name.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Those that passed.
    pub passed: Vec<String>,
    /// Those that failed, with the failure's message.
    pub failed: BTreeMap<String, String>,
    /// Those that were selected and then left themselves out, with the reason they give.
    pub skipped: BTreeMap<String, String>,
    /// How long everything took.
    pub time: Duration,
}

impl Report {
    /// Of those that passed, how many are of [`CONFORMANCE`].
    #[must_use]
    pub fn conformance(&self) -> usize {
        let is = |name: &&String| name.contains(IS_CONFORMANCE);
        self.passed.iter().filter(is).count()
    }

    /// Whether something ran and nothing failed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failed.is_empty() && !self.passed.is_empty()
    }
}

impl Cluster {
    /// Runs upstream tests. Their output goes to `upstream.log` in the cluster's folder.
    ///
    /// # Errors
    ///
    /// If the tests can't be run at all. A test that fails is in the report.
    pub fn run_e2e(&self, selection: &Selection) -> Result<Report> {
        let folder = self.folder().join("upstream");
        fs::create_dir_all(&folder).map_err(Error::at("creating", &folder))?;
        let report = folder.join("report.json");
        if report.exists() {
            fs::remove_file(&report).map_err(Error::at("removing", &report))?;
        }
        let log_path = self.folder().join("upstream.log");
        let log = fs::File::create(&log_path).map_err(Error::at("creating", &log_path))?;
        let errors = log.try_clone().map_err(Error::at("opening", &log_path))?;
        let cache = Cache::find()?;
        build::check_upstream_tests(&cache)?;
        let mut ginkgo = self.kubectl().command("ginkgo");
        ginkgo
            .args([
                &format!("--procs={}", selection.parallel),
                "--no-color",
                "--silence-skips",
                "--json-report=report.json",
            ])
            .arg(format!("--output-dir={}", folder.display()))
            .arg(format!("--focus={}", selection.focus));
        if !selection.skip.is_empty() {
            ginkgo.arg(format!("--skip={}", selection.skip));
        }
        ginkgo
            .arg(cache.programs().join("e2e.test"))
            .arg("--")
            .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
            .args([
                "--provider=local",
                "--minStartupPods=0",
                &format!("--num-nodes={}", self.options().nodes),
            ])
            .current_dir(&folder)
            .stdout(log)
            .stderr(errors);
        // Fails also when a test does; the report tells.
        let ended = command::attended(ginkgo.stdin(std::process::Stdio::null()))?;
        if !report.exists() {
            return Err(Error::Failed {
                command: command::shown(&ginkgo),
                status: ended,
                stderr: format!("see {}", log_path.display()),
            });
        }
        read(&report)
    }
}

/// The parts of ginkgo's JSON report that are read; it has many others.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    run_time: u64,
    /// JSON's null if no test ran.
    spec_reports: Option<Vec<Spec>>,
    #[serde(default)]
    special_suite_failure_reasons: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    #[serde(default)]
    leaf_node_type: String,
    #[serde(default)]
    leaf_node_text: String,
    state: String,
    failure: Option<Failure>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

fn read(path: &Path) -> Result<Report> {
    let text = fs::read(path).map_err(Error::at("reading", path))?;
    parse(&text).map_err(|error| Error::Unreadable {
        what: path.display().to_string(),
        why: error.to_string(),
    })
}

fn parse(text: &[u8]) -> serde_json::Result<Report> {
    let suites: Vec<Suite> = serde_json::from_slice(text)?;
    let mut report = Report::default();
    for suite in suites {
        report.time += Duration::from_nanos(suite.run_time);
        for spec in suite.spec_reports.unwrap_or_default() {
            sort(spec, &mut report);
        }
        // Such as that a process of several died: what it would have run is in no list.
        for reason in suite.special_suite_failure_reasons.unwrap_or_default() {
            if !reason.contains("--focus") {
                report
                    .failed
                    .entry("(the suite)".to_owned())
                    .or_insert(reason);
            }
        }
    }
    Ok(report)
}

fn sort(spec: Spec, report: &mut Report) {
    let mut words = spec.container_hierarchy_texts.unwrap_or_default();
    words.push(spec.leaf_node_text);
    let name = words.join(" ");
    let message = spec
        .failure
        .map(|failure| failure.message)
        .unwrap_or_default();
    match (spec.leaf_node_type.as_str(), spec.state.as_str()) {
        ("It", "passed") => report.passed.push(name),
        // Not selected; a test that leaves itself out says why.
        ("It", "skipped" | "pending") if message.is_empty() => {}
        ("It", "skipped" | "pending") => {
            report.skipped.insert(name, message);
        }
        (_, "passed" | "skipped" | "pending") => {}
        // What prepares or cleans up can fail as well.
        (kind, _) => {
            let name = if name.trim().is_empty() {
                format!("({kind})")
            } else {
                name
            };
            report.failed.insert(name, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_apart_from_preparations_and_from_those_not_selected() {
        let text = br#"[{"RunTime": 1500000000, "SpecReports": [
            {"ContainerHierarchyTexts": ["[sig-network] A"], "LeafNodeType": "It", "LeafNodeText": "works", "State": "passed"},
            {"ContainerHierarchyTexts": ["[sig-network] A"], "LeafNodeType": "It", "LeafNodeText": "fails", "State": "failed",
             "Failure": {"Message": "no answer"}},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "It", "LeafNodeText": "other", "State": "skipped"},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "It", "LeafNodeText": "sctp", "State": "skipped",
             "Failure": {"Message": "no SCTP"}},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "BeforeSuite", "LeafNodeText": "", "State": "panicked",
             "Failure": {"Message": "no nodes"}},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "ReportBeforeSuite", "LeafNodeText": "", "State": "passed"}
        ]}]"#;
        let report = parse(text).unwrap();
        assert_eq!(report.passed, ["[sig-network] A works"]);
        assert_eq!(report.failed["[sig-network] A fails"], "no answer");
        assert_eq!(report.failed["(BeforeSuite)"], "no nodes");
        assert_eq!(report.skipped.len(), 1);
        assert_eq!(report.skipped["sctp"], "no SCTP");
        assert_eq!(report.time, Duration::from_millis(1500));
        assert!(!report.is_good());
    }

    #[test]
    fn a_run_of_nothing_is_not_good() {
        let report = parse(br#"[{"SpecReports": null}]"#).unwrap();
        assert!(report.failed.is_empty() && !report.is_good());
    }
}
