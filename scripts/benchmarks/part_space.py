"""Memory and space: peak RSS of the mount, what a large index takes, what small changes of large files cost."""

import os
import tempfile

from data import Numbers, warm, write_file, write_mixed, write_small
from filesystems import Failed, Vellum, run as run_command, timed
from report import MIB, say, size_text, time_text

RSS_GOAL = "< 512 MiB"
INDEX_COLUMN = 23
INDEX_ROWS = {"bytes an entry on disk": "", "opened in": "", "memory, open": "", "memory, probed": "<= 64 MiB", "hits": "", "misses": ""}


def tell_memory(bench, part, what, vellum, opened):
    peak = vellum.memory()
    bench.report.row(part, f"peak RSS {what}", size_text(max(peak, opened)),
                     f"{size_text(opened)} to open, {size_text(peak)} afterwards; at the end {size_text(vellum.memory('VmRSS'))}", goal=RSS_GOAL)


def mount_and_forget(vellum):
    """Mounts. Returns the peak until then, which is the key derivation, and starts the peak again."""
    vellum.mount()
    opened = vellum.memory()
    vellum.forget_peak()
    return opened


def rss_copy(bench):
    """Copies files of all sizes in, a piece at a time, so that the source needs the space of one piece only."""
    total, piece_bytes = bench.sizes.rss_bytes, bench.sizes.rss_piece_bytes
    pieces = max(total // piece_bytes, 1)
    bench.need_space(int(total * 0.8) + 2 * piece_bytes)
    say(f"  settings: {size_text(total)} in {pieces} pieces by cp -a; every tenth piece is one file, the others hold 5 % in files below 64 KiB, 20 % below "
        "1 MiB, the rest up to 256 MiB; every other file compresses 2:1")
    vellum = Vellum(bench, "rss-copy")
    opened = mount_and_forget(vellum)
    files, seconds = 0, 0.0
    for piece in range(pieces):
        source = bench.directory("piece")
        files += write_mixed(source, piece_bytes, 1000 + piece, one_file=piece % 10 == 0)
        taken, _ = timed(["cp", "-a", source, os.path.join(vellum.mountpoint, f"piece-{piece}")])
        seconds += taken
        bench.remove(source)
    tell_memory(bench, "rss-copy", f"while {size_text(total)} in {files} files are copied in", vellum, opened)
    bench.report.row("rss-copy", "copy in, sum of all pieces", f"{total / seconds / 1e6:.0f} MB/s", "until cp returned")
    vellum.unmount()
    vellum.remove()


def rss_files(bench):
    """Makes many files, then stats and reads them all, in the same mount and in a new one."""
    count = bench.sizes.many_files
    say(f"  settings: {count} files of 100 bytes, a thousand to a directory; then find -printf %s, and read all; the same after a new mount")
    vellum = Vellum(bench, "rss-files")
    opened = mount_and_forget(vellum)
    started = bench.now()
    write_small(vellum.mountpoint, count)
    say(f"  made in {bench.now() - started:.1f} s; then the peak is {size_text(vellum.memory())}")
    look_at_all(bench, vellum, count)
    tell_memory(bench, "rss-files", f"while {count} files are made, looked at and read", vellum, opened)
    vellum.unmount()
    opened = mount_and_forget(vellum)
    look_at_all(bench, vellum, count)
    tell_memory(bench, "rss-files", f"while {count} files are looked at and read after a new mount", vellum, opened)
    vellum.unmount()
    vellum.remove()


def look_at_all(bench, vellum, count):
    seconds, _ = timed(["find", vellum.mountpoint, "-type", "f", "-printf", "%s"])
    started = bench.now()
    warm(vellum.mountpoint)
    say(f"  find with stat {count / seconds:.0f} files/s, read {count / (bench.now() - started):.0f} files/s, peak {size_text(vellum.memory())}")


def index(bench):
    """Many entries of an index, opened and probed by a process of its own."""
    if not bench.index_scale:
        raise Failed("the example index_scale is not built; leave --program away, or give --index-scale FILE")
    entries = bench.sizes.index_entries
    with tempfile.TemporaryDirectory(dir=bench.work) as directory:
        told = run_command([bench.index_scale, str(entries)], env={**os.environ, "TMPDIR": directory}).decode()
    for line in told.splitlines():
        say(f"    {line}")
    for line in told.splitlines():
        # The example prints names and values in two columns.
        what, value = line[:INDEX_COLUMN].rstrip(), line[INDEX_COLUMN:]
        if what in INDEX_ROWS:
            bench.report.row("index", f"{entries} entries, {what}", value, goal=INDEX_ROWS[what])


class Growth:
    """How much the stored bytes grow by a change, from one unmount to the next."""

    def __init__(self, bench, vellum):
        self.bench, self.vellum = bench, vellum
        self.before = (vellum.bytes(), vellum.stats())

    def measure(self, what, change, goal):
        vellum = self.vellum.mount()
        started = self.bench.now()
        change(vellum.mountpoint)
        vellum.unmount()
        seconds = self.bench.now() - started
        (length, allocated), stats = vellum.bytes(), vellum.stats()
        (length_before, allocated_before), stats_before = self.before
        self.before = (length, allocated), stats
        content = stats["data_bytes"] - stats_before["data_bytes"]
        metadata = stats["node_bytes"] - stats_before["node_bytes"]
        grown, limit = length - length_before, goal
        self.bench.report.row("growth", what, size_text(grown),
                              f"content {size_text(content)}, metadata {size_text(metadata)}, allocated {size_text(allocated - allocated_before)}",
                              f"taking {time_text(seconds)}", goal=f"< {size_text(limit)}" if limit else "")
        if limit and grown > limit:
            self.bench.report.fault("growth", f"{what}: grew by {size_text(grown)}, more than {size_text(limit)}")


def shifted(numbers, size):
    """The content that `numbers` gives, after one byte more."""
    yield b"+"
    yield from numbers.blocks(size)


def rewrite(path, blocks):
    """Writes over a file in place, without truncating it first."""
    with open(path, "r+b", buffering=0) as file:
        for block in blocks:
            file.write(block)


def growth(bench):
    """One byte at the front of a large file, as a new file and in place; a file that is all hole."""
    size, hole = bench.sizes.grown_bytes, 100_000_000_000
    bench.need_space(size + (size >> 2))
    say(f"  settings: {size_text(size)} random; bytes of all files of the repository but the journal, from one unmount to the next")
    vellum = Vellum(bench, "growth")
    sparse = os.path.join(bench.work, "sparse")
    with open(sparse, "wb") as file:
        file.truncate(hole)
    grown = Growth(bench, vellum)
    grown.measure("an empty directory, for scale", lambda top: os.mkdir(os.path.join(top, "empty")), 0)
    grown.measure(f"a file of {size_text(size)}", lambda top: write_file(os.path.join(top, "old"), Numbers(5).blocks(size)), 0)
    grown.measure("one byte inserted at the front, as a new file",
                  lambda top: write_file(os.path.join(top, "new"), shifted(Numbers(5), size)), 2 * MIB)
    grown.measure("one byte inserted at the front, in place",
                  lambda top: rewrite(os.path.join(top, "old"), shifted(Numbers(5), size)), 2 * MIB)
    grown.measure("a sparse file of 100 GB by truncate", lambda top: os.truncate(make(os.path.join(top, "hole")), hole), 64 << 10)
    grown.measure("a sparse file of 100 GB by cp -a", lambda top: timed(["cp", "-a", sparse, os.path.join(top, "copied")]), 64 << 10)
    vellum.mount()
    check_growth(bench, vellum.mountpoint, size, hole)
    vellum.unmount()
    vellum.remove()


def make(path):
    with open(path, "xb"):
        return path


def check_growth(bench, top, size, hole):
    for name in ("old", "new"):
        with open(os.path.join(top, name), "rb") as file:
            if not all(file.read(len(block)) == block for block in shifted(Numbers(5), size)) or file.read(1):
                bench.report.fault("growth", f"the file {name} has another content than was written")
    for name in ("hole", "copied"):
        status = os.stat(os.path.join(top, name))
        if status.st_size != hole:
            bench.report.fault("growth", f"the file {name} has {status.st_size} bytes")
