//! The reader in Python, which knows `docs/format.md` and no code of this project, reads what the program writes.

use std::{path::Path, process::Command};

use vellum_tests::surroundings::{program, python, skip};

#[test]
fn a_reader_written_from_the_format_document_reads_repositories_and_refuses_damage() {
    let name = "tests/reader/run.sh";
    let Some(python) = python() else {
        skip(name, "no Python with the libraries of tests/reader/requirements.txt; scripts/test makes one");
        return;
    };
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace");
    let mut script = Command::new(top.join(name));
    script.arg("--program").arg(program()).arg("--python").arg(python);
    let ran = script.output().expect("the script can be started");
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}{}", String::from_utf8_lossy(&ran.stderr));
    for why in said.lines().filter_map(|line| line.strip_prefix("skipped: ")) {
        skip(name, why);
    }
    assert!(ran.status.success(), "{name} failed: {}", ran.status);
}
