#!/usr/bin/env bash
# A repository in a temporary directory, and its mounts, which are always gone when the script ends. Sourced by scripts/posix,
# which says in $program what to run and in $options
# how to mount.
#
#   $work    the temporary directory, on a plain disk
#   $files   the mountpoint in it
set -euo pipefail

work=
files=
mount_pid=
mount_options=
mount_number=0
# shellcheck disable=SC2154 # the script that sources this sets it
vellum() { "$program" "$@"; }

make_place() {
    trap clean_up EXIT
    trap 'exit 130' INT TERM
    work=$(mktemp -d "${TMPDIR:-/tmp}/vellum-posix.XXXXXX")
    files=$work/files
    # Other users have to reach the mountpoint.
    chmod 0755 "$work"
    mkdir "$files" "$work/elsewhere"
    # A secret for this run alone.
    VELLUM_PASSPHRASE=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    export VELLUM_PASSPHRASE
    export VELLUM_STATE_DIR=$work/state
}

clean_up() {
    local status=$?
    cd /
    trap '' INT TERM
    [ -z "$files" ] || umount -l "$files" 2>/dev/null || true
    if [ -n "$mount_pid" ]; then
        kill -KILL "$mount_pid" 2>/dev/null || true
        wait "$mount_pid" 2>/dev/null || true
    fi
    if [ -n "$work" ] && ! mountpoint -q "$files" 2>/dev/null; then
        rm -rf --one-file-system "$work"
    fi
    exit $status
}

# new_mount [OPTIONS]
# A new repository, mounted as root would mount it for everybody.
new_mount() {
    # shellcheck disable=SC2154 # as above
    mount_options=allow_other,suid,dev${options:+,$options}${1:+,$1}
    mount_number=$((mount_number + 1))
    rm -rf "$work/repo" "$work/state"
    vellum init --kdf-memory-kib 65536 "$work/repo" >/dev/null
    start_mount
}

start_mount() {
    : >"$work/mount.log"
    # In a session of its own: an interrupt from the terminal is for this script, which then ends the mount.
    setsid "$program" mount --foreground -v -o "$mount_options" "$work/repo" "$files" >"$work/mount.log" 2>&1 &
    mount_pid=$!
    until grep -q 'is mounted at' "$work/mount.log"; do
        if ! kill -0 "$mount_pid" 2>/dev/null; then
            cat "$work/mount.log" >&2
            mount_pid=
            return 1
        fi
        sleep 0.02
    done
}

# Unmounts. A process that does not end well, or had something to complain about, counts as a failure.
end_mount() {
    local status=0
    vellum umount "$files"
    wait "$mount_pid" || status=$?
    mount_pid=
    if [ $status -ne 0 ] || grep -E '^(error|warning)|panicked' "$work/mount.log"; then
        printf 'FAILED   the mount ended with exit code %d and complained, see above\n' "$status"
        failed=$((failed + 1))
    fi
}

again_mount() {
    end_mount
    start_mount
}

remount_mount() { again_mount; }

# The process dies without a word.
kill_server() {
    kill -KILL "$mount_pid"
    wait "$mount_pid" 2>/dev/null || true
    mount_pid=
}

# A new process takes over.
kill_mount() {
    kill_server
    umount -l "$files"
    start_mount
}
