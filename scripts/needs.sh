#!/usr/bin/env bash
# Finds out what this machine lacks, and installs it where that is allowed: as root, with apt-get. Sourced by scripts.
set -euo pipefail

# install_packages PACKAGE...
# Fails where nothing may be installed, or where apt-get fails; then it shows the end of what apt-get said.
install_packages() {
    local said
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
    printf 'installing %s\n' "$*"
    if ! said=$(export DEBIAN_FRONTEND=noninteractive
        { apt-get update -q && apt-get install -q -y --no-install-recommends "$@"; } 2>&1); then
        tail -n 5 <<<"$said"
        return 1
    fi
    hash -r
}

# What `need` could not find, as `COMMAND (Debian package PACKAGE)`.
lacking=()

# need COMMAND:PACKAGE...
# Installs the Debian packages of the commands that are missing. Names those that are missing afterwards in $lacking.
need() {
    local pair packages=() name
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
    done
    [ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}" || true
    lacking=()
    for pair in "$@"; do
        name=${pair%%:*}
        command -v "$name" >/dev/null || lacking+=("$name (Debian package ${pair#*:})")
    done
}

# Stops if there is no Rust or no C compiler: nothing can be built without them.
need_to_build() {
    PATH=$PATH:${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}/bin
    if ! command -v cargo >/dev/null; then
        printf 'missing: cargo. Install Rust from https://rustup.rs, then run this again.\n' >&2
        exit 1
    fi
    need cc:build-essential make:build-essential
    if [ ${#lacking[@]} -gt 0 ]; then
        printf 'missing: %s. Install it, then run this again.\n' "${lacking[*]}" >&2
        exit 1
    fi
}

# Prints why this process cannot mount a FUSE filesystem, in one line; prints nothing if it can.
why_no_mount() {
    if [ ! -e /dev/fuse ]; then
        echo '/dev/fuse does not exist (load the kernel module fuse; in a container, pass the device in)'
    elif ! { : <>/dev/fuse; } 2>/dev/null; then
        echo '/dev/fuse cannot be opened by this user'
    elif ! command -v fusermount3 >/dev/null; then
        echo 'fusermount3 is not installed (Debian package fuse3)'
    elif [ "$(id -u)" -ne 0 ]; then
        if [ ! -u "$(command -v fusermount3)" ] || grep -q '^NoNewPrivs:[[:space:]]*1' /proc/self/status; then
            echo 'fusermount3 cannot become root here (not set-user-id, or privileges are locked)'
        fi
    elif [ $((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) >> 21 & 1)) -eq 0 ]; then
        echo 'root may not mount here (the container lacks CAP_SYS_ADMIN)'
    fi
}
