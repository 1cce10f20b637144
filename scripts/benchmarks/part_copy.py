"""Copying a tree in, beside gocryptfs and the disk itself; and copying it in again."""

import os
import subprocess

from data import Tree, warm
from filesystems import Gocryptfs, Plain, Vellum, timed
from report import Samples, say, size_text, time_text


class Copy:
    """One `cp -a`, until the unmount has returned and the process is gone."""

    def __init__(self, bench, filesystem, source, name):
        bench.settle()
        # The mount, with its key derivation, is no part of the copy.
        filesystem.mount()
        started = bench.now()
        _, cp_seconds = timed(["cp", "-a", source, os.path.join(filesystem.mountpoint, name)])
        self.copied = bench.now() - started
        filesystem.unmount()
        self.seconds = bench.now() - started
        bench.sync()
        self.synced = bench.now() - started
        self.cpu = cp_seconds + filesystem.cpu_seconds
        _, self.stored = filesystem.bytes()


def same(first, second):
    """Whether two trees hold the same names, contents and link targets."""
    return subprocess.run(["diff", "-rq", "--no-dereference", first, second], check=False).returncode == 0


def first_and_second(bench, round_number, source):
    """Copies into a repository of its own, and once more beside the first copy. Returns both, and what the second added."""
    vellum = Vellum(bench, f"copy-{round_number}")
    first = Copy(bench, vellum, source, "first")
    before = vellum.stats()
    second = Copy(bench, vellum, source, "second")
    after = vellum.stats()
    added = {field: after[field] - before[field] for field in ("packs", "data_bytes", "node_bytes")}
    if round_number == 0:
        vellum.mount()
        for name in ("first", "second"):
            if not same(source, os.path.join(vellum.mountpoint, name)):
                bench.report.fault("copy", f"the {name} copy differs from the source")
        vellum.unmount()
    vellum.remove()
    return first, second, added


def other(bench, kind, round_number, source):
    filesystem = kind(bench, f"copy-{round_number}")
    copy = Copy(bench, filesystem, source, "first")
    filesystem.remove()
    return copy


def run(bench):
    source = bench.directory("source")
    tree = Tree(source, bench.sizes.tree_bytes)
    say(f"  data: {tree.text()}")
    say(f"  settings: {bench.sizes.rounds} rounds, one after the other in turn, source in the page cache, defaults of both")
    kinds = [kind for kind in (Gocryptfs, Plain) if kind is not Gocryptfs or bench.has_gocryptfs]
    firsts, seconds, added = [], [], []
    others = {kind.name: [] for kind in kinds}
    for round_number in range(bench.sizes.rounds):
        warm(source)
        first, second, more = first_and_second(bench, round_number, source)
        firsts.append(first)
        seconds.append(second)
        added.append(more)
        for kind in kinds:
            others[kind.name].append(other(bench, kind, round_number, source))
        say(f"  round {round_number + 1}: vellum {first.seconds:.2f} s, again {second.seconds:.2f} s, "
            + ", ".join(f"{name} {copies[-1].seconds:.2f} s" for name, copies in others.items()))
    tell_first(bench, firsts, others)
    tell_second(bench, firsts, seconds, added)
    bench.remove(source)


def tell_first(bench, firsts, others):
    fields = [
        ("until the process is gone", "seconds", time_text),
        ("cp -a alone", "copied", time_text),
        ("and sync of the disk", "synced", time_text),
        ("processor time, cp and the mount", "cpu", time_text),
        ("bytes stored", "stored", size_text),
    ]
    for name, copies in others.items():
        for what, field, unit in fields:
            ours = Samples(getattr(copy, field) for copy in firsts)
            theirs = Samples(getattr(copy, field) for copy in copies)
            ratio = ours.median / max(theirs.median, 1e-9)
            goal = "ratio <= 1" if (name, field) == (Gocryptfs.name, "seconds") else ""
            bench.report.row("copy", f"copy in, {what}", ours.text(unit), ours.spread(unit),
                             f"{name} {theirs.text(unit)} ({theirs.spread(unit)})", f"{ratio:.2f}", goal)


def tell_second(bench, firsts, seconds, added):
    first = Samples(copy.seconds for copy in firsts)
    second = Samples(copy.seconds for copy in seconds)
    bench.report.row("copy", "the same tree again", second.text(), second.spread(), f"first copy {first.text()}",
                     f"{second.median / first.median:.2f}", "ratio < 1")
    data = Samples(more["data_bytes"] for more in added)
    packs = Samples(more["packs"] for more in added)
    nodes = Samples(more["node_bytes"] for more in added)
    bench.report.row("copy", "content in new Data packs by the second copy", size_text(data.largest),
                     f"{packs.largest} packs of metadata, {size_text(nodes.largest)}", goal="0 B")
    if data.largest != 0:
        bench.report.fault("copy", f"the second copy stored {size_text(data.largest)} of content")
