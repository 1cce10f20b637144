//! Style and layer rules that a machine can hold.
//!
//! Each test is one rule over the sources, the manifests or the documents of the project, and lists every place that
//! breaks it. If a rule is wrong, the rule is changed here; the table of exceptions stays empty or justified.

#[path = "tidy/document_rules.rs"]
mod document_rules;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/scan.rs"]
mod scan;
#[path = "tidy/source_rules.rs"]
mod source_rules;
#[path = "tidy/text_rules.rs"]
mod text_rules;

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use scan::Source;

/// Places that may break a rule: the rule, the file, and the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "threads_are_started_by_the_spawner_alone",
    "store/src/backend/conformance.rs",
    "the suite runs in the tests of each backend alone, where two callers race for one name",
)];

/// The top of the project.
fn top() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("the package of the tests lies in the workspace").to_owned()
}

/// The sources below `folders`; all are read once for all rules.
fn sources(folders: &[&str]) -> Vec<&'static Source> {
    static ALL: OnceLock<Vec<Source>> = OnceLock::new();
    let all = ALL.get_or_init(|| scan::sources(&top())).iter();
    let found: Vec<_> = all.filter(|source| folders.iter().any(|folder| source.path.starts_with(folder))).collect();
    assert!(!found.is_empty(), "no source lies below {folders:?}");
    found
}

/// What breaks one rule.
struct Findings {
    rule: &'static str,
    found: Vec<String>,
}

impl Findings {
    fn of(rule: &'static str) -> Self {
        Self { rule, found: Vec::new() }
    }

    /// Notes that `path` breaks the rule at `line`, unless that is a listed exception.
    fn add(&mut self, path: &str, line: usize, what: &str) {
        let excepted = EXCEPTIONS.iter().any(|(rule, file, _)| *rule == self.rule && *file == path);
        if !excepted {
            self.found.push(format!("{path}:{line}: {what}"));
        }
    }

    /// Fails the test if anything was found.
    fn assert_none(self) {
        assert!(self.found.is_empty(), "{}: {} found\n{}", self.rule, self.found.len(), self.found.join("\n"));
    }
}

#[test]
fn every_exception_says_why_and_names_a_file_that_exists() {
    for (rule, file, reason) in EXCEPTIONS {
        assert!(top().join(file).is_file(), "{rule}: {file} does not exist");
        assert!(reason.split_whitespace().count() >= 5, "{rule}: {file} gives no reason");
    }
}
