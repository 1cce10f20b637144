//! Which package may use which, and which module may import which.

use std::fs;

use crate::{Findings, scan::Source, sources, top};

/// The packages from the bottom up, and what each may depend on.
const PACKAGES: &[(&str, &[&str])] = &[
    ("tests/fuzzing", &[]),
    ("store", &["vellum-fuzzing"]),
    ("fs", &["vellum-store", "vellum-fuzzing"]),
    ("winfs", &["vellum-fs", "vellum-store"]),
    ("cli", &["vellum-fs", "vellum-store", "vellum-winfs", "vellum-fuzzing"]),
    ("tests", &["vellum-fs", "vellum-store", "vellum-cli", "vellum-fuzzing"]),
    ("tests/interleavings", &["vellum-fs", "vellum-store"]),
];

/// Dependencies that belong to some packages alone.
const RESERVED: &[(&str, &[&str])] = &[
    ("argon2", &["store"]),
    ("chacha20poly1305", &["store"]),
    ("subtle", &["store"]),
    ("sled", &["store"]),
    ("fastcdc", &["store"]),
    ("fuser", &["fs"]),
    ("winfsp", &["winfs"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("rpassword", &["cli"]),
];

/// The modules of a package from the bottom up. A module imports from the rows below its own and from its own row.
type Layers = &'static [&'static [&'static str]];

/// `crypto` and `format` share a row: sealed forms are laid out in `format`, and `format` seals what must not be told.
const STORE: Layers = &[
    &["id", "error"],
    &["config", "codec", "spawn"],
    &["chunker", "compress", "disk"],
    &["crypto", "format"],
    &["backend", "cache", "lock", "state", "table"],
    &["heads", "journal", "pack"],
    &["index"],
    &["pipeline"],
    &["reader"],
    &["reachability", "gc", "scrub", "rebuild"],
    &["repository"],
    &["fuzz"],
];

const FS: Layers = &[
    &["ino", "time", "error"],
    &["name"],
    &["format"],
    &["attr", "tree"],
    &["content", "namespace"],
    &["volume"],
    &["fuse"],
    &["fuzz"],
];

#[test]
fn manifests_depend_downwards_only() {
    let mut findings = Findings::of("manifests_depend_downwards_only");
    for (package, below) in PACKAGES {
        let path = format!("{package}/Cargo.toml");
        let manifest = fs::read_to_string(top().join(&path)).expect("every package has a manifest");
        let mut section = "";
        for (number, line) in manifest.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
                continue;
            }
            if !section.ends_with("dependencies") {
                continue;
            }
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if name.starts_with("vellum-") && !below.contains(&name) {
                findings.add(&path, number, &format!("{package} lies below {name}"));
            }
            let owners = RESERVED.iter().find(|(dependency, _)| *dependency == name);
            if owners.is_some_and(|(_, owners)| !owners.contains(package)) && *package != "tests" {
                findings.add(&path, number, &format!("{name} is not for {package}"));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn every_package_is_in_the_table_of_layers() {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).expect("the workspace has a manifest");
    let members = manifest.lines().find(|line| line.starts_with("members")).expect("the workspace lists its members");
    for member in members.split('"').skip(1).step_by(2) {
        assert!(PACKAGES.iter().any(|(package, _)| *package == member), "{member} has no layer");
    }
}

#[test]
fn modules_of_the_store_import_downwards_only() {
    check("modules_of_the_store_import_downwards_only", "store", STORE);
}

#[test]
fn modules_of_the_filesystem_import_downwards_only() {
    check("modules_of_the_filesystem_import_downwards_only", "fs", FS);
}

fn check(rule: &'static str, package: &str, layers: Layers) {
    let mut findings = Findings::of(rule);
    for source in sources(&[&format!("{package}/src/")]) {
        if source.test {
            continue;
        }
        let module = source.module();
        let Some(own) = module.first() else { continue };
        let Some(own_layer) = layer(layers, own) else {
            findings.add(&source.path, 1, &format!("module {own} has no layer"));
            continue;
        };
        for (line, other) in imports(source) {
            match layer(layers, &other) {
                Some(other_layer) if other_layer <= own_layer => {}
                Some(_) => findings.add(&source.path, line, &format!("{own} lies below {other}")),
                None => findings.add(&source.path, line, &format!("module {other} has no layer")),
            }
        }
    }
    findings.assert_none();
}

fn layer(layers: Layers, module: &str) -> Option<usize> {
    layers.iter().position(|row| row.contains(&module))
}

/// The other top modules that `source` names. Types that the root re-exports come from `error`.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let own = source.module().first().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for (line, path) in source.crate_paths() {
        let Some(first) = path.first() else { continue };
        let type_or_glob = first.starts_with(|char: char| char.is_uppercase() || char == '*') || first == "self";
        let other = if type_or_glob { "error".to_owned() } else { first.clone() };
        if other != own {
            found.push((line, other));
        }
    }
    found
}
