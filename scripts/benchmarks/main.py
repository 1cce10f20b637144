"""Runs the chosen parts of scripts/bench, and cleans up behind them. Started by scripts/bench, which explains the options."""

import argparse
import dataclasses
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import part_copy
import part_latency
import part_rates
import part_small
import part_space
from filesystems import Failed, Gocryptfs
from report import Report, describe_machine, quiet_note, read_line, say, size_text

PARTS = {
    "copy": part_copy.run,
    "snapshot": part_latency.snapshots,
    "checkpoint": part_latency.checkpoint,
    "fsync": part_latency.fsync,
    "create": part_rates.create,
    "small": part_small.small,
    "read": part_rates.read,
    "index": part_space.index,
    "growth": part_space.growth,
    "rss-files": part_space.rss_files,
    "rss-copy": part_space.rss_copy,
}
GROUPS = {"rss": ["rss-files", "rss-copy"], "all": list(PARTS)}
HALT_POLL = "/sys/module/haltpoll/parameters/guest_halt_poll_ns"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything: the full sizes are those that the project's goals name."""

    rounds: int = 5
    tree_bytes: int = 2_000_000_000
    many_files: int = 500_000
    snapshots: int = 20
    checkpoints: int = 5
    idle_seconds: float = 10.0
    syncs: int = 500
    created_files: int = 20_000
    small_files: int = 100_000
    stream_bytes: int = 1 << 30
    index_entries: int = 20_000_000
    grown_bytes: int = 1 << 30
    rss_bytes: int = 20_000_000_000
    rss_piece_bytes: int = 1_000_000_000


QUICK = Sizes(rounds=3, tree_bytes=200_000_000, many_files=20_000, checkpoints=2, idle_seconds=3.0, syncs=200, created_files=3000, small_files=5000,
              stream_bytes=128 << 20, index_entries=2_000_000, grown_bytes=256 << 20, rss_bytes=1_000_000_000, rss_piece_bytes=250_000_000)
TINY = Sizes(rounds=1, tree_bytes=5_000_000, many_files=1000, snapshots=3, checkpoints=1, idle_seconds=0.5, syncs=20, created_files=200, small_files=2000,
             stream_bytes=16 << 20, index_entries=100_000, grown_bytes=16 << 20, rss_bytes=40_000_000, rss_piece_bytes=20_000_000)


class Bench:
    """One run: its directory, its mounts, its report."""

    def __init__(self, arguments, sizes, work):
        self.sizes = sizes
        self.program = arguments.program
        self.index_scale = arguments.index_scale
        self.noop = arguments.noop
        self.has_gocryptfs = shutil.which("gocryptfs") is not None
        self.work = work
        self.mounts = []
        self.report = Report()
        self.now = time.monotonic
        self.passphrase_file = os.path.join(work, "passphrase")
        passphrase = secrets.token_hex(16)
        with open(self.passphrase_file, "x", encoding="ascii") as file:
            file.write(passphrase + "\n")
        for variable in [name for name in os.environ if name.startswith("VELLUM_")]:
            del os.environ[variable]
        os.environ["VELLUM_PASSPHRASE"] = passphrase
        os.environ["VELLUM_STATE_DIR"] = os.path.join(work, "state")

    def directory(self, name):
        path = os.path.join(self.work, name)
        os.mkdir(path)
        return path

    def remove(self, path):
        shutil.rmtree(path)

    def kinds(self, *kinds):
        return [kind for kind in kinds if kind is not Gocryptfs or self.has_gocryptfs]

    def sync(self):
        os.sync()

    def settle(self):
        """Lets the disk finish what came before, so that it is not paid for by what comes next."""
        os.sync()
        time.sleep(0.2)

    def need_space(self, count):
        space = os.statvfs(self.work)
        free = space.f_bavail * space.f_frsize
        if free < count:
            raise Failed(f"{self.work} has {size_text(free)} free, and {size_text(count)} are needed; --dir names another place")

    def leave(self):
        """Takes all mounts away, and then the directory."""
        for mounted in reversed(self.mounts):
            mounted.abandon()
        left = [name for name in os.listdir(self.work) if os.path.ismount(os.path.join(self.work, name))]
        if left:
            say(f"still mounted, and left alone: {', '.join(os.path.join(self.work, name) for name in left)}")
        else:
            shutil.rmtree(self.work)


def parse():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures vellum; see the head of scripts/bench.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join([*PARTS, *GROUPS])}; all if none is named")
    parser.add_argument("--quick", action="store_const", dest="sizes", const=QUICK, default=Sizes(), help="small sizes: about five minutes")
    parser.add_argument("--tiny", action="store_const", dest="sizes", const=TINY, help="only shows that the script works: figures mean nothing")
    parser.add_argument("--rounds", type=int, help="how often parts that take turns are repeated")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/tmp"), help="where all of it happens: the disk that is measured")
    parser.add_argument("--halt-poll", type=int, metavar="NS", help="guest_halt_poll_ns while this runs, for all peers; set back afterwards")
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--index-scale", default="", help=argparse.SUPPRESS)
    parser.add_argument("--noop", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = []
    for name in arguments.parts or ["all"]:
        if name not in PARTS and name not in GROUPS:
            parser.error(f"there is no part {name}: {', '.join([*PARTS, *GROUPS])}")
        chosen.extend(part for part in GROUPS.get(name, [name]) if part not in chosen)
    if arguments.rounds:
        arguments.sizes = dataclasses.replace(arguments.sizes, rounds=arguments.rounds)
    if arguments.halt_poll is not None and not os.access(HALT_POLL, os.W_OK):
        parser.error(f"--halt-poll: {HALT_POLL} cannot be written")
    return arguments, chosen


def versions(bench):
    def first_line(command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]

    commit = subprocess.run(["git", "-C", os.path.dirname(__file__), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False).stdout.strip()
    yield f"{first_line([bench.program, '--version'])}{f' at {commit}' if commit else ''} ({bench.program})"
    yield first_line(["gocryptfs", "--version"]) if bench.has_gocryptfs else "gocryptfs: not installed; what is compared with it is left out"
    yield f"sizes: {', '.join(f'{name} {value}' for name, value in dataclasses.asdict(bench.sizes).items())}"


def run_parts(bench, chosen):
    """Runs the parts. One that fails does not keep the others from running."""
    for name in chosen:
        started = time.monotonic()
        say(f"\n## {name}\n\n  {quiet_note()}")
        try:
            PARTS[name](bench)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            bench.report.fault(name, str(error))
            clear(bench)
        say(f"  took {time.monotonic() - started:.0f} s")


def clear(bench):
    """Removes what a failed part left, so that the space is there for the next."""
    for mounted in reversed(bench.mounts):
        mounted.abandon()
    bench.mounts.clear()
    for name in os.listdir(bench.work):
        path = os.path.join(bench.work, name)
        if os.path.isdir(path) and name != "state" and not os.path.ismount(path):
            shutil.rmtree(path, ignore_errors=True)


def set_halt_poll(value):
    with open(HALT_POLL, "w", encoding="ascii") as file:
        file.write(f"{value}\n")


def main():
    arguments, chosen = parse()
    # Both end the run the way an interrupt does, through the clean-up below.
    for kind in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, lambda *_: sys.exit(130))
    polled = read_line(HALT_POLL)
    bench = Bench(arguments, arguments.sizes, tempfile.mkdtemp(prefix="vellum-bench.", dir=arguments.dir))
    try:
        if arguments.halt_poll is not None:
            set_halt_poll(arguments.halt_poll)
        describe_machine(bench.work, versions(bench))
        run_parts(bench, chosen)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # An impatient second signal would leave mounts behind.
        for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(kind, signal.SIG_IGN)
        if arguments.halt_poll is not None:
            set_halt_poll(polled)
        bench.leave()
        if bench.report.rows:
            say(f"\n{bench.report.markdown()}")
    for fault in bench.report.faults:
        say(f"\nFAULT {fault}")
    sys.exit(1 if bench.report.faults else 0)


if __name__ == "__main__":
    main()
