#!/usr/bin/env bash
# Lets the reader in Python read repositories that vellum wrote, and damaged ones, and the example of docs/format.md.
#
#   tests/reader/run.sh [--program FILE] [--python FILE]
#
# Without --program, builds vellum; without --python, makes a Python with the reader's libraries in the target directory.
# What this machine cannot do is named in a line that starts with `skipped:`.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
cd "$here/../.."
# shellcheck source=scripts/needs.sh
. scripts/needs.sh

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
program=
python=
while [ $# -gt 0 ]; do
    case $1 in
        --program) program=$(realpath "${2:?--program needs a file}") ;;
        # Not resolved: a virtual environment is found by the name that its Python was called by.
        --python) python=${2:?--python needs a file} ;;
        *)
            printf 'usage: tests/reader/run.sh [--program FILE] [--python FILE]\n' >&2
            exit 2
            ;;
    esac
    shift 2
done

if [ -z "$python" ]; then
    python=$target/reader-venv/bin/python
    if ! cmp -s "$here/requirements.txt" "$target/reader-venv/installed.txt"; then
        if ! { mkdir -p "$target" && python3 -m venv --clear "$target/reader-venv" &&
            "$python" -m pip install --quiet --requirement "$here/requirements.txt"; }; then
            printf 'skipped: the reader in Python: its libraries cannot be installed\n'
            exit 0
        fi
        cp "$here/requirements.txt" "$target/reader-venv/installed.txt"
    fi
fi
if [ -z "$program" ]; then
    need_to_build
    cargo build --quiet --locked --package vellum-cli
    program=$target/debug/vellum
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/vellum-reader.XXXXXX")
mounted() { mountpoint -q "$work/mnt" 2>/dev/null; }
clean_up() {
    local status=$?
    cd /
    ! mounted || vellum umount "$work/mnt" >/dev/null 2>&1 || fusermount3 -uz "$work/mnt" || true
    mounted || rm -rf --one-file-system "$work"
    [ $status -eq 0 ] || printf 'tests/reader/run.sh failed (exit code %d); see above\n' "$status" >&2
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT TERM
cd "$work"
export VELLUM_STATE_DIR=$work/state VELLUM_PASSPHRASE_FILE=$work/passphrase PYTHONDONTWRITEBYTECODE=1

step() { printf '%s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
vellum() { "$program" "$@"; }
# reader REPOSITORY OPTION|COMMAND...
secret=--passphrase-file=passphrase
reader() { "$python" "$here/vellum_reader.py" "$1" "$secret" "${@:2}"; }
# Runs the reader, which must find something wrong and say so.
refused() {
    local status=0
    reader "$@" >refused.out 2>refused.err || status=$?
    if [ $status -ne 1 ] || ! grep -q '^refused: ' refused.err; then
        cat refused.err >&2
        fail "reader $* was not refused (exit code $status)"
    fi
}
# flip FILE OFFSET: turns one bit; twice is as if never.
flip() {
    "$python" - "$@" <<'END'
import os, sys
at = int(sys.argv[2])
with open(sys.argv[1], "r+b") as file:
    file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
    byte = file.read(1)[0]
    file.seek(-1, os.SEEK_CUR)
    file.write(bytes([byte ^ 1]))
END
}

step 'the example of docs/format.md is a repository'
echo 'correct horse' >passphrase
"$python" "$here/example.py" "$here/../../docs/format.md" example
[ "$(reader example --no-index cat hello.txt)" = 'hello, vellum' ] || fail 'the example says something else'
flip "$(find example/packs -type f)" 40
refused example --no-index cat hello.txt

step 'every kind of key slot opens'
printf 'Correct  horse, na\xc3\xafve cafe\xcc\x81 ' >passphrase
echo 'another one' >other
vellum init repo >/dev/null
vellum key add repo other --new-passphrase-file other >/dev/null
vellum key add repo file --generate-key-file key-file >/dev/null
vellum key add repo code --recovery-code 2>&1 | grep -oE '([0-9A-Z]{4}-){7}[0-9A-Z]{4}' | tr '0A-Z' 'oa-z' >recovery
[ -s recovery ] || fail 'no recovery code'
for given in --passphrase-file=passphrase --passphrase-file=other --key-file=key-file --recovery-file=recovery; do
    "$python" "$here/vellum_reader.py" repo "$given" ls >listed || fail "$given does not open"
    [ ! -s listed ] || fail 'a new volume is not empty'
done
echo 'yet another one' >wrong
refused repo --passphrase-file wrong ls
tr o 7 <recovery >wrong
if ! cmp -s recovery wrong && "$python" "$here/vellum_reader.py" repo --recovery-file=wrong ls 2>/dev/null; then
    fail 'a wrong recovery code opens'
fi

# From here on with the key file, whose slot opens without a costly derivation.
secret=--key-file=key-file
export VELLUM_KEY_FILE=$work/key-file
unset VELLUM_PASSPHRASE_FILE
why=$(why_no_mount)
if [ -n "$why" ]; then
    printf 'skipped: the reader in Python reads nothing that was mounted: %s\n' "$why"
    exit 0
fi

step 'files are written through a mount'
mkdir mnt
"$python" "$here/trees.py" make original
vellum mount repo mnt >/dev/null
cp -a original mnt/tree
vellum snapshot mnt before -m 'as it was made' >/dev/null
# Every attribute a file can have fits no other filesystem: this one is read with another command.
"$python" -c 'print("x" * 30000, end="")' >long
touch mnt/long
"$python" -c 'import os; os.setxattr("mnt/long", "user.long", open("long", "rb").read())'
cp -a original after
"$python" "$here/trees.py" change after mnt/tree
vellum snapshot mnt passing >/dev/null
vellum snapshot mnt gone >/dev/null
vellum rename mnt passing renamed >/dev/null
vellum delete mnt gone >/dev/null 2>&1
vellum umount mnt >/dev/null
vellum mount 'repo#second' mnt --create >/dev/null
echo 'in another volume' >mnt/file
vellum umount mnt >/dev/null

step 'what was written is read, with the index and without'
refused repo ls
# read_with OPTION|COMMAND...: reads the volume in the way of the loop around it, $how
read_with() { reader repo --volume "${volume:-main}" ${how:+"$how"} "$@"; }
for how in '' --no-index; do
    rm -rf restored restored.before
    read_with restore tree restored
    "$python" "$here/trees.py" same after restored
    read_with --snapshot before restore tree restored.before
    "$python" "$here/trees.py" same original restored.before
    read_with cat tree/random | cmp - after/random
    [ "$(read_with --snapshot renamed ls tree)" = "$(read_with ls tree)" ] || fail 'a renamed snapshot is another'
    [ "$(read_with ls tree | sed 's/.* //')" = "$(LC_ALL=C ls -A after)" ] || fail 'another listing'
    [ "$(read_with snapshots | cut -f 1 | tr '\n' ' ')" = 'before renamed ' ] || fail 'other snapshots'
    [ "$(read_with xattrs long)" = "user.long $(od -An -v -tx1 long | tr -d ' \n')" ] || fail 'another attribute'
    [ "$(volume=second read_with cat file)" = 'in another volume' ] || fail 'another second volume'
done
read_with --snapshot before places tree/random >listed
[ "$(wc -l <listed)" -gt 3 ] || fail 'a large file is no more than three chunks'

step 'a flipped byte is refused'
read -r _ _ pack start size < <(sed -n 2p listed)
for at in "$start" $((start + size / 2)) $((start + size - 1)); do
    flip "repo/$pack" "$at"
    for how in '' --no-index; do
        refused repo --volume main ${how:+"$how"} --snapshot before cat tree/random
        refused repo --volume main ${how:+"$how"} --snapshot before restore tree refused.tree
        rm -rf refused.tree
    done
    flip "repo/$pack" "$at"
done
# The tail and the trailer of a pack: the index does without them.
for at in -1 -100; do
    flip "repo/$pack" "$at"
    refused repo --volume main --no-index --snapshot before cat tree/random
    reader repo --volume main --snapshot before cat tree/random | cmp - original/random
    flip "repo/$pack" "$at"
done
newest=$(find repo/heads/main -type f | sort | tail -n 1)
flip "$newest" 500
refused repo --volume main ls
flip "$newest" 500
for number in '' .1 .2; do
    reader repo --volume main ls >/dev/null 2>&1 || fail 'damaged copies of config and slot hide a good one'
    flip "repo/config$number" 100
    flip "repo/keys/file$number" 100
done
for damaged in config keys/file; do
    refused repo --volume main ls
    for number in '' .1 .2; do
        flip "repo/$damaged$number" 100
    done
done
for file in repo/index/* repo/manifests/*; do
    flip "$file" 1000
done
refused repo --volume main ls
reader repo --volume main --no-index cat tree/random | cmp - after/random
for file in repo/index/* repo/manifests/*; do
    flip "$file" 1000
done
reader repo --volume main cat tree/random | cmp - after/random

step 'the reader in Python agrees'
