"""Small files and streams: how many a second, how much a second."""

import os

from data import Numbers, write_file, write_small
from filesystems import Gocryptfs, Plain, Vellum, evict
from report import Samples, say, size_text


def rate_text(rate):
    return f"{rate:.0f}/s"


def stream_text(rate):
    return f"{rate / 1e6:.0f} MB/s"


def create(bench):
    """Files of 1 KiB, made one after the other by one process."""
    count = bench.sizes.created_files
    say(f"  settings: {bench.sizes.rounds} rounds of {count} files of 1 KiB, a thousand to a directory, in turn; until close(2) of the last, "
        "and until everything is unmounted")
    kinds = bench.kinds(Vellum, Plain, Gocryptfs)
    made = {kind.name: ([], []) for kind in kinds}
    for round_number in range(bench.sizes.rounds):
        for kind in kinds:
            bench.settle()
            filesystem = kind(bench, f"create-{round_number}").mount()
            started = bench.now()
            write_small(filesystem.mountpoint, count, 1024)
            made[kind.name][0].append(count / (bench.now() - started))
            filesystem.unmount()
            made[kind.name][1].append(count / (bench.now() - started))
            filesystem.remove()
    for when, number in (("closed", 0), ("unmounted", 1)):
        ours = Samples(made[Vellum.name][number])
        for kind in kinds[1:]:
            theirs = Samples(made[kind.name][number])
            bench.report.row("create", f"small files, until {when}", ours.text(rate_text), ours.spread(rate_text),
                             f"{kind.name} {theirs.text(rate_text)}", f"{ours.median / theirs.median:.2f}")


def read_through(bench, path):
    """Reads a file in pieces of 1 MiB; answers bytes a second."""
    started, total = bench.now(), 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            total += len(piece)
    return total / (bench.now() - started)


def read(bench):
    """One large file from end to end: fresh from the disk, and once more."""
    size = bench.sizes.stream_bytes
    say(f"  settings: {bench.sizes.rounds} rounds; {size_text(size)} random and as many that compress 2:1; cold: after a new mount, with what is stored "
        "taken out of the page cache; warm: once more")
    kinds = bench.kinds(Vellum, Plain, Gocryptfs)
    filesystems = [kind(bench, "read").mount() for kind in kinds]
    for filesystem in filesystems:
        for compressible, name in ((False, "random"), (True, "compressible")):
            write_file(os.path.join(filesystem.mountpoint, name), Numbers(7).blocks(size, compressible))
        filesystem.unmount()
    for name in ("random", "compressible"):
        rates = {kind.name: ([], []) for kind in kinds}
        for _ in range(bench.sizes.rounds):
            for filesystem in filesystems:
                evict(filesystem.stored)
                filesystem.mount()
                for taken in rates[filesystem.name]:
                    taken.append(read_through(bench, os.path.join(filesystem.mountpoint, name)))
                filesystem.unmount()
        for number, state in ((0, "cold"), (1, "warm")):
            ours = Samples(rates[Vellum.name][number])
            for kind in kinds[1:]:
                theirs = Samples(rates[kind.name][number])
                bench.report.row("read", f"sequential read, {state}, {name}", ours.text(stream_text), ours.spread(stream_text),
                                 f"{kind.name} {theirs.text(stream_text)}", f"{ours.median / theirs.median:.2f}")
    for filesystem in filesystems:
        filesystem.remove()
