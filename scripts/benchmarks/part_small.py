"""Small files: what each step costs, beside gocryptfs and beside a FUSE filesystem that does nothing."""

import os

from data import write_small
from filesystems import Failed, Gocryptfs, Mounted, Vellum
from report import Samples, say

STEPS = ("create", "stat", "readdir", "rename", "unlink")
BYTES = 100


class Noop(Mounted):
    """The transport alone: the same library and settings, with answers from memory and nothing kept."""

    name = "no-op FUSE"

    def initialize(self):
        pass

    def mount_command(self):
        return [self.bench.noop, self.mountpoint]

    def unmount_command(self):
        return ["fusermount3", "-u", self.mountpoint]


def rate_text(rate):
    return f"{rate:.0f}/s"


def paths(directory, count):
    return [os.path.join(directory, f"{number // 1000:03}", f"file-{number}") for number in range(count)]


def list_all(directory, count):
    found = sum(1 for folder in os.scandir(directory) for _ in os.scandir(folder))
    if found != count:
        raise Failed(f"{directory}: {found} files are listed instead of {count}")


def steps(directory, count):
    """The steps in the order in which they are timed."""
    files = paths(directory, count)
    yield "create", lambda: write_small(directory, count, BYTES)
    yield "stat", lambda: [os.stat(path) for path in files]
    yield "readdir", lambda: list_all(directory, count)
    yield "rename", lambda: [os.rename(path, path + ".renamed") for path in files]
    yield "unlink", lambda: [os.unlink(path + ".renamed") for path in files]


def small(bench):
    """Files of 100 bytes, by one process, one step after the other; all peers in turn."""
    count = bench.sizes.small_files
    say(f"  settings: {bench.sizes.rounds} rounds of {count} files of {BYTES} bytes, a thousand to a directory, peers in turn; "
        "until the last call of a step has returned; stat and readdir find what the kernel has kept since the creation")
    if not bench.noop:
        raise Failed("--program was given without --noop: there is nothing to compare with")
    kinds = bench.kinds(Vellum, Noop, Gocryptfs)
    rates = {kind.name: {step: [] for step in STEPS} for kind in kinds}
    for round_number in range(bench.sizes.rounds):
        for kind in kinds:
            bench.settle()
            filesystem = kind(bench, f"small-{round_number}").mount()
            for step, work in steps(filesystem.mountpoint, count):
                started = bench.now()
                work()
                rates[kind.name][step].append(count / (bench.now() - started))
            filesystem.unmount()
            filesystem.remove()
    for step in STEPS:
        ours = Samples(rates[Vellum.name][step])
        for kind in kinds[1:]:
            theirs = Samples(rates[kind.name][step])
            bench.report.row("small", step, ours.text(rate_text), ours.spread(rate_text),
                             f"{kind.name} {theirs.text(rate_text)}", f"{ours.median / theirs.median:.2f}")
