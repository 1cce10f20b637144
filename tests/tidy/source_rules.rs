//! Rules about what a source file may say.

use crate::{
    Findings,
    scan::{Kind, Source},
    sources,
};

/// Lines of a file, those of test items left out.
const FILE_LINES_MAX: usize = 800;

/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

/// The modules that may hold `unsafe` blocks.
const UNSAFE_MODULES: &[&str] = &[
    "store/src/crypto/lockmem.rs",
    "fs/src/fuse/sys.rs",
    "cli/src/sys.rs",
    "winfs/src/",
    "tests/mount/sys.rs",
    "tests/proofs/hold_up.rs",
];

const PROGRAMS: &[&str] = &["store/src/", "fs/src/", "cli/src/", "winfs/src/"];
const LIBRARIES: &[&str] = &["store/src/", "fs/src/", "winfs/src/"];
const EVERYTHING: &[&str] = &["store/", "fs/", "cli/", "winfs/", "tests/"];

/// Lists the places in the program part of `folders` for which `broken` names a fault.
fn check(rule: &'static str, folders: &[&str], mut broken: impl FnMut(&Source, usize) -> Option<String>) {
    let mut findings = Findings::of(rule);
    for source in sources(folders) {
        for (at, token) in source.program() {
            if let Some(what) = broken(source, at) {
                findings.add(&source.path, token.line, &what);
            }
        }
    }
    findings.assert_none();
}

/// The word at `at` if it is one of `words`.
fn one_of(source: &Source, at: usize, words: &[&str]) -> Option<String> {
    let token = &source.tokens[at];
    (token.kind == Kind::Word && words.contains(&token.text.as_str())).then(|| token.text.clone())
}

fn below(source: &Source, places: &[&str]) -> bool {
    places.iter().any(|place| source.path.starts_with(place))
}

#[test]
fn only_crypto_names_the_cipher() {
    check("only_crypto_names_the_cipher", PROGRAMS, |source, at| {
        let inside = below(source, &["store/src/crypto/", "store/src/crypto.rs"]);
        one_of(source, at, &["chacha20poly1305", "argon2", "subtle"]).filter(|_| !inside)
    });
}

#[test]
fn only_table_modules_name_sled() {
    check("only_table_modules_name_sled", PROGRAMS, |source, at| {
        let inside = source.module().iter().any(|part| part == "table");
        one_of(source, at, &["sled"]).filter(|_| !inside)
    });
}

#[test]
fn the_filesystem_outside_fuse_names_no_kernel_interface() {
    check("the_filesystem_outside_fuse_names_no_kernel_interface", &["fs/src"], |source, at| {
        let inside = below(source, &["fs/src/fuse/"]);
        one_of(source, at, &["libc", "errno", "Errno", "fuser", "nix", "raw_os_error", "from_raw_os_error"])
            .filter(|_| !inside)
    });
}

#[test]
fn the_store_knows_its_kernel_only_in_a_few_leaves() {
    let leaves = &["store/src/disk/local/", "store/src/lock/", "store/src/crypto/lockmem.rs"];
    check("the_store_knows_its_kernel_only_in_a_few_leaves", &["store/src"], |source, at| {
        one_of(source, at, &["libc", "nix"]).filter(|_| !below(source, leaves))
    });
}

#[test]
fn durable_files_are_touched_through_the_disk_alone() {
    check("durable_files_are_touched_through_the_disk_alone", LIBRARIES, |source, at| {
        // The front ends open devices, and the lock asks the kernel about itself; neither keeps anything there.
        let inside =
            below(source, &["store/src/disk/", "store/src/table/", "store/src/lock/", "fs/src/fuse/", "winfs/"]);
        let names = source.tokens[at].is("std") && names_below(source, at, "fs");
        (names && !inside).then(|| "std::fs".to_owned())
    });
}

#[test]
fn formats_do_no_input_or_output() {
    check("formats_do_no_input_or_output", &["store/src/format", "fs/src/format"], |source, at| {
        let token = &source.tokens[at];
        let outside = ["fs", "io", "net", "thread"].iter().find(|module| names_below(source, at, module));
        outside.filter(|_| token.is("std")).map(|module| format!("std::{module}"))
    });
}

#[test]
fn libraries_print_nothing_and_read_no_environment() {
    check("libraries_print_nothing_and_read_no_environment", LIBRARIES, |source, at| {
        let prints = one_of(source, at, &["print", "println", "eprint", "eprintln"]);
        let reads = source.tokens[at].is("std") && names_below(source, at, "env");
        match prints {
            Some(word) if source.follows(at + 1, &["!"]) => Some(format!("{word}!")),
            _ => reads.then(|| "std::env".to_owned()),
        }
    });
}

#[test]
fn threads_are_started_by_the_spawner_alone() {
    check("threads_are_started_by_the_spawner_alone", PROGRAMS, |source, at| {
        let inside = below(source, &["store/src/spawn"]);
        let starts = ["spawn", "scope", "Builder"];
        let found = starts.iter().find(|call| source.follows(at, &["thread", ":", ":", call]));
        found.filter(|_| !inside).map(|call| format!("thread::{call}"))
    });
}

#[test]
fn nothing_sleeps() {
    let mut findings = Findings::of("nothing_sleeps");
    for source in sources(EVERYTHING) {
        for (at, token) in source.tokens.iter().enumerate() {
            if source.follows(at, &["thread", ":", ":", "sleep"]) {
                findings.add(&source.path, token.line, "thread::sleep");
            }
        }
    }
    findings.assert_none();
}

#[test]
fn unsafe_code_lives_in_its_modules_and_says_why_it_holds() {
    let mut findings = Findings::of("unsafe_code_lives_in_its_modules_and_says_why_it_holds");
    for source in sources(EVERYTHING) {
        for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| token.is("unsafe")) {
            if !below(source, UNSAFE_MODULES) {
                findings.add(&source.path, token.line, "unsafe code");
            } else if source.follows(at + 1, &["{"]) && !explained(source, token.line) {
                findings.add(&source.path, token.line, "an unsafe block without a SAFETY note");
            }
        }
    }
    findings.assert_none();
}

/// Whether one of the few lines above `line` says `SAFETY:`.
fn explained(source: &Source, line: usize) -> bool {
    let lines: Vec<&str> = source.text.lines().collect();
    lines[line.saturating_sub(6)..line].iter().any(|line| line.contains("SAFETY:"))
}

#[test]
fn nothing_is_left_undone() {
    check("nothing_is_left_undone", EVERYTHING, |source, at| {
        let word = one_of(source, at, &["todo", "unimplemented", "dbg"])?;
        source.follows(at + 1, &["!"]).then(|| format!("{word}!"))
    });
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    check("nothing_is_unwrapped_outside_tests", PROGRAMS, |source, at| {
        let unwraps = ["unwrap", "unwrap_err"].iter().find(|call| source.follows(at, &[".", call, "("]));
        unwraps.map(|call| format!(".{call}()"))
    });
}

#[test]
fn every_expectation_says_why_it_holds() {
    check("every_expectation_says_why_it_holds", PROGRAMS, |source, at| {
        if !source.follows(at, &[".", "expect", "("]) {
            return None;
        }
        let reason = source.tokens.get(at + 3).filter(|token| token.kind == Kind::Text)?;
        (reason.text.split_whitespace().count() < 3).then(|| format!("expect({:?}) gives no reason", reason.text))
    });
}

#[test]
fn every_module_opens_with_what_it_is() {
    let mut findings = Findings::of("every_module_opens_with_what_it_is");
    for source in sources(EVERYTHING) {
        let first = source.text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        if !first.starts_with("//! ") {
            findings.add(&source.path, 1, "no module header");
        }
    }
    findings.assert_none();
}

#[test]
fn files_stay_under_their_limit() {
    let mut findings = Findings::of("files_stay_under_their_limit");
    for source in sources(EVERYTHING) {
        let lines = if source.test { source.text.lines().count() } else { source.program_lines() };
        if lines > FILE_LINES_MAX {
            findings.add(&source.path, 1, &format!("{lines} lines"));
        }
    }
    findings.assert_none();
}

#[test]
fn functions_fit_a_screen() {
    let mut findings = Findings::of("functions_fit_a_screen");
    for source in sources(PROGRAMS) {
        for function in source.functions().iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
            findings.add(&source.path, function.line, &format!("fn {} has {} lines", function.name, function.lines));
        }
    }
    findings.assert_none();
}

#[test]
fn modules_have_names_that_tell_their_duty() {
    let mut findings = Findings::of("modules_have_names_that_tell_their_duty");
    for source in sources(EVERYTHING) {
        for part in source.module() {
            if ["util", "utils", "misc", "common", "manager", "helpers"].contains(&part.as_str()) {
                findings.add(&source.path, 1, &format!("module {part}"));
            }
        }
    }
    findings.assert_none();
}

/// Whether `std` at `at` leads to its module `module`, on its own or in a `use` tree.
fn names_below(source: &Source, at: usize, module: &str) -> bool {
    if !source.follows(at + 1, &[":", ":"]) {
        return false;
    }
    if !source.follows(at + 3, &["{"]) {
        return source.follows(at + 3, &[module]);
    }
    let mut depth = 0;
    for (step, token) in source.tokens.iter().enumerate().skip(at + 3) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return false;
        }
        let starts = source.tokens[step - 1].is("{") || source.tokens[step - 1].is(",");
        if depth == 1 && starts && token.is(module) {
            return true;
        }
    }
    false
}
