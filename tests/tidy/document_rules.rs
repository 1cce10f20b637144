//! Rules about what documents say of the rest of the project.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    Findings,
    scan::{Source, files},
    sources, top,
};

/// A name of so many words is the sentence of a test.
const TEST_NAME_WORDS_MIN: usize = 4;

fn documents() -> Vec<(String, String)> {
    let (top, mut found) = (top(), BTreeSet::new());
    files(&top, &mut found);
    let documents = found.iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "md"));
    let read = |path: &Path| {
        let relative = path.strip_prefix(&top).expect("files are listed below the top");
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (relative.to_str().expect("paths of the project are text").replace('\\', "/"), text)
    };
    documents.map(|path| read(path)).collect()
}

#[test]
fn every_link_in_a_document_leads_somewhere() {
    let mut findings = Findings::of("every_link_in_a_document_leads_somewhere");
    for (path, text) in documents() {
        let beside = top().join(&path).parent().expect("a document lies in a directory").to_owned();
        for (index, line) in text.lines().enumerate() {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = link.split('#').next().unwrap_or_default();
                let elsewhere = link.contains("://") || file.is_empty();
                if !elsewhere && !beside.join(file).exists() {
                    findings.add(&path, index + 1, link);
                }
            }
        }
    }
    findings.assert_none();
}

#[test]
fn every_test_that_a_document_names_exists() {
    let sources = sources(&["store/", "fs/", "cli/", "winfs/", "tests/"]);
    let functions: BTreeSet<&str> = sources.iter().flat_map(|source| function_names(source)).collect();
    let mut findings = Findings::of("every_test_that_a_document_names_exists");
    for (path, text) in documents() {
        for (index, line) in text.lines().enumerate() {
            for quoted in line.split('`').skip(1).step_by(2).filter(|quoted| is_test_name(quoted)) {
                if !functions.contains(quoted) {
                    findings.add(&path, index + 1, quoted);
                }
            }
        }
    }
    findings.assert_none();
}

fn is_test_name(text: &str) -> bool {
    let word = |word: &str| word.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit());
    text.split('_').count() >= TEST_NAME_WORDS_MIN && text.split('_').all(|part| !part.is_empty() && word(part))
}

fn function_names(source: &Source) -> impl Iterator<Item = &str> {
    source.tokens.windows(2).filter(|pair| pair[0].is("fn")).map(|pair| pair[1].text.as_str())
}

#[test]
fn every_rule_that_the_code_cites_is_written_down() {
    let written = fs::read_to_string(top().join("docs/format.md")).expect("the format is described");
    let mut findings = Findings::of("every_rule_that_the_code_cites_is_written_down");
    for source in sources(&["store/", "fs/", "cli/", "winfs/", "tests/"]) {
        for (index, line) in source.text.lines().enumerate() {
            let Some((_, cited)) = line.split_once("// F") else { continue };
            let number: String = cited.chars().take_while(char::is_ascii_digit).collect();
            if !number.is_empty() && !written.contains(&format!("**F{number}**")) {
                findings.add(&source.path, index + 1, &format!("F{number}"));
            }
        }
    }
    findings.assert_none();
}
