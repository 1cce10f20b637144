#!/usr/bin/env bash
# What every program of scripts/posix begins with. Sourced; the program is called as
#
#   PROGRAM use DIR PLAIN      do what there is to do in DIR, an empty directory in a mount; PLAIN is one on a plain disk
#   PROGRAM again DIR PLAIN    look at it again after umount and mount
#   PROGRAM crash DIR PLAIN    (some) work, tell by a file PLAIN/ready when the mount is to be killed, end when it is dead
#   PROGRAM crashed DIR PLAIN  (some) see that nothing is lost or torn that was synced
#
# Exit code 77: it cannot run here. The last line that is printed tells why, or what was done.
set -euo pipefail
# The sources of vellum, which some use as files to work with.
top=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
# shellcheck source=scripts/needs.sh
. "$top/scripts/needs.sh"

# shellcheck disable=SC2034 # for those that source this
phase=$1 dir=$2 plain=$3

cannot() {
    printf '%s\n' "$*"
    exit 77
}

# need_all COMMAND:PACKAGE...
need_all() {
    need "$@"
    [ ${#lacking[@]} -eq 0 ] || cannot "missing: ${lacking[*]}"
}

die() {
    printf '%s\n' "$*" >&2
    exit 1
}
