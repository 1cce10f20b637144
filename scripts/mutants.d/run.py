"""Takes lines away in a copy of the tree, and runs the tests that have to notice."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from rules import MUTANTS

TEST_SECONDS_MAX = 900


class Unfit(Exception):
    """The list does not fit the sources any more."""


def copy_sources(top, tree):
    """Brings the copy to the state of the working tree; what did not change keeps its time, so that little is built again."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=top, check=True, capture_output=True).stdout
    wanted = {Path(os.fsdecode(name)) for name in listed.split(b"\0") if name}
    for path in wanted:
        source, target = top / path, tree / path
        if not source.is_file():
            continue
        if target.is_file() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    for path in [path for path in tree.rglob("*") if path.is_file() and path.relative_to(tree) not in wanted]:
        path.unlink()


def edited(tree, mutant):
    """The texts of the files that the mutant changes, before and after."""
    texts = {}
    for name, old, new in mutant.edits:
        before, after = texts.get(name, (None, None))
        if before is None:
            before = after = (tree / name).read_text()
        if after.count(old) != 1:
            raise Unfit(f"{mutant.name}: {name} has {after.count(old)} times:\n{old}")
        texts[name] = (before, after.replace(old, new))
    return texts


def test(tree, target, arguments, name):
    """Runs tests; returns whether they passed, and what they printed."""
    command = ["cargo", "test", "--quiet", "--locked", *arguments, *([name] if name else [])]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "RUST_BACKTRACE": "0"}
    run = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = run.communicate(timeout=TEST_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        # The group is this run's own: cargo and the test program.
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        return False, "it hangs"
    if "could not compile" in output:
        raise Unfit(output)
    return run.returncode == 0, output


def noticed(output):
    """The tests that failed, by the list that a test program ends with."""
    lines = output.splitlines()
    names = {line.strip().split("::", 1)[-1] for line in lines if line.startswith("    ") and "::" in line and " " not in line.strip()}
    return ", ".join(sorted(names)[:3]) + (" .." if len(names) > 3 else "") or output.strip().splitlines()[-1]


def main():
    top, target, names = Path(sys.argv[1]), Path(sys.argv[2]) / "mutants", sys.argv[3:]
    if names == ["--list"]:
        for mutant in MUTANTS:
            print(f"{mutant.name:26} {mutant.rule:8} {mutant.target[1]} {mutant.test}")
        return 0
    if names == ["--check"]:
        for mutant in MUTANTS:
            edited(top, mutant)
        return 0
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        print(f"no such mutant: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    tree = target / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    copy_sources(top, tree)
    for arguments, name in sorted({(mutant.target, mutant.test) for mutant in chosen}):
        passed, output = test(tree, target, arguments, name)
        if not passed:
            print(f"{output}\nFAILED   {arguments[1]} {name}: fails with all lines in place")
            return 1
    survived = 0
    for mutant in chosen:
        texts = edited(tree, mutant)
        try:
            for name, (_, after) in texts.items():
                (tree / name).write_text(after)
            passed, output = test(tree, target, mutant.target, mutant.test)
        finally:
            for name, (before, _) in texts.items():
                (tree / name).write_text(before)
        survived += passed
        what = "nothing noticed" if passed else noticed(output)
        print(f"{'FAILED  ' if passed else 'ok      '} {mutant.name:24} {mutant.rule:4} {what}", flush=True)
    print(f"mutants: {len(chosen) - survived} noticed, {survived} not")
    return 1 if survived else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unfit as error:
        print(f"FAILED   {error}", file=sys.stderr)
        sys.exit(1)
