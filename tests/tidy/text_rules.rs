//! Rules about every text of the project: sources, scripts, manifests and documents.

use std::{collections::BTreeSet, fs};

use crate::{Findings, scan::files, top};

/// Phrases that hide a stub, an intention without a date, or a machine. Put together here so that this file passes.
const PHRASES: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("for", " now"),
    concat!("in a real", " "),
    concat!("place", "holder"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("C:\\Us", "ers"),
];

/// Suffixes of the files that are read as text.
const TEXTS: &[&str] = &["rs", "toml", "md", "py", "sh", "yml", "txt"];

fn texts() -> Vec<(String, String)> {
    let (top, mut found) = (top(), BTreeSet::new());
    files(&top, &mut found);
    let mut texts = Vec::new();
    for path in found {
        let relative = path.strip_prefix(&top).expect("files are listed below the top");
        let relative = relative.to_str().expect("paths of the project are text").replace('\\', "/");
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        let script = relative.starts_with("scripts/") || relative.starts_with(".ci/");
        if script || suffix.is_some_and(|suffix| TEXTS.contains(&suffix)) {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{relative}: {error}"));
            texts.push((relative, text));
        }
    }
    texts
}

#[test]
fn no_text_holds_a_phrase_that_hides_a_stub() {
    let mut findings = Findings::of("no_text_holds_a_phrase_that_hides_a_stub");
    for (path, text) in texts() {
        for (index, line) in text.lines().enumerate() {
            for phrase in PHRASES.iter().filter(|phrase| line.contains(**phrase)) {
                findings.add(&path, index + 1, phrase);
            }
        }
    }
    findings.assert_none();
}

#[test]
fn no_text_has_trailing_space_or_lacks_its_last_newline() {
    let mut findings = Findings::of("no_text_has_trailing_space_or_lacks_its_last_newline");
    for (path, text) in texts() {
        for (index, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                findings.add(&path, index + 1, "trailing space");
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            findings.add(&path, text.lines().count(), "no newline at the end");
        }
    }
    findings.assert_none();
}

#[test]
fn every_script_says_what_it_does_and_stops_at_the_first_fault() {
    let mut findings = Findings::of("every_script_says_what_it_does_and_stops_at_the_first_fault");
    for (path, text) in texts() {
        if !text.starts_with("#!") || path.ends_with(".rs") {
            continue;
        }
        let mut lines = text.lines().skip(1);
        if path.ends_with(".py") || text.starts_with("#!/usr/bin/env python3") {
            continue;
        }
        if !lines.next().is_some_and(|line| line.starts_with("# ")) {
            findings.add(&path, 2, "no header");
        }
        if !lines.any(|line| line.starts_with("set -euo pipefail")) {
            findings.add(&path, 1, "no `set -euo pipefail`");
        }
    }
    findings.assert_none();
}

#[test]
fn every_package_carries_its_licence() {
    for (package, licence) in [
        ("store", "license.workspace = true"),
        ("fs", "license.workspace = true"),
        ("cli", "license.workspace = true"),
        ("tests", "license.workspace = true"),
        ("winfs", "license = \"GPL-3.0-only\""),
    ] {
        let manifest = fs::read_to_string(top().join(package).join("Cargo.toml")).expect("the package has a manifest");
        assert!(manifest.lines().any(|line| line == licence), "{package} does not say `{licence}`");
    }
    for text in ["MIT", "Apache-2.0", "GPL-3.0-only"] {
        assert!(top().join("LICENSES").join(format!("{text}.txt")).is_file(), "LICENSES lacks {text}");
    }
}
