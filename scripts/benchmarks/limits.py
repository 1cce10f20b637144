"""Goes to the limits of sizes on vellum and on the disk itself. Started by scripts/limits, which explains the options."""

import argparse
import errno
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time

from filesystems import Failed, Plain, Vellum
from report import describe_machine, say, size_text, time_text

MEMORY_MAX = 512 << 20
# The second half of the work may take so much longer than the first before it counts as growth: machines are shared.
GROWTH_MAX = 3.0
# Halves shorter than this say nothing.
HALF_SECONDS_MIN = 2.0
BLOCK = 4096
STRIDE = 128 << 10
EDGE = 1 << 20
SAMPLES = 2000


class Wrong(Exception):
    """Something is not as it was made."""


class Run:
    """One filesystem under one part: what took how long, and what memory the mount had at its peak."""

    def __init__(self, filesystem):
        self.filesystem = filesystem
        self.at = None
        self.times = {}
        self.halves = {}
        self.peak = 0

    def mount(self):
        self.filesystem.mount()
        self.at = os.path.join(self.filesystem.mountpoint, "limits")

    def unmount(self):
        if isinstance(self.filesystem, Vellum):
            self.peak = max(self.peak, self.filesystem.memory())
        self.filesystem.unmount()

    def timed(self, what, work):
        started = time.monotonic()
        result = work()
        self.times[what] = time.monotonic() - started
        return result

    def each(self, what, count, work):
        """Does the work for each number below `count`, and keeps how long both halves took."""
        started = time.monotonic()
        for number in range(count // 2):
            work(number)
        middle = time.monotonic()
        for number in range(count // 2, count):
            work(number)
        ended = time.monotonic()
        self.times[what] = ended - started
        self.halves[what] = (middle - started, ended - middle)


def expect(found, wanted, what):
    if found != wanted:
        raise Wrong(f"{what}: {found} instead of {wanted}")


def count_entries(path):
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries]
    expect(len(set(names)), len(names), f"names of {path} that are listed once")
    return len(names)


def sampled(count):
    return range(0, count, max(count // SAMPLES, 1))


def entries(run, count):
    """A directory of very many files, empty ones: names are what is measured."""

    def make(number):
        os.close(os.open(f"{run.at}/entry-{number:08}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    def look():
        for number in sampled(count):
            expect(os.stat(f"{run.at}/entry-{number:08}").st_size, 0, "the size of an empty file")

    os.mkdir(run.at)
    run.each("make", count, make)
    expect(run.timed("list", lambda: count_entries(run.at)), count, "entries")
    run.timed("read", look)
    yield
    expect(run.timed("list again", lambda: count_entries(run.at)), count, "entries after a new mount")
    look()
    run.each("remove", count, lambda number: os.unlink(f"{run.at}/entry-{number:08}"))
    os.rmdir(run.at)


def block(number):
    return f"{number:015}\n".encode() * (BLOCK // 16)


def next_data(handle, offset):
    try:
        return os.lseek(handle, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def extents(run, count):
    """A file of blocks with holes between them."""

    def make():
        handle = os.open(run.at, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        run.each("make", count, lambda number: os.pwrite(handle, block(number), number * STRIDE))
        os.close(handle)

    def walk(handle):
        """All extents, as long as they are few; else those of the first and the last thousands."""
        offset, found = 0, 0
        while (data := next_data(handle, offset)) is not None:
            expect(data, found * STRIDE, "where data begins")
            offset = os.lseek(handle, data, os.SEEK_HOLE)
            expect(offset, data + BLOCK, "where data ends")
            found += 1
            if found == 10 * SAMPLES < count - 10 * SAMPLES:
                found = count - 10 * SAMPLES
                offset = (found - 1) * STRIDE + BLOCK
        expect(found, count, "extents")

    def look(handle):
        for number in sampled(count):
            if os.pread(handle, BLOCK, number * STRIDE) != block(number):
                raise Wrong(f"block {number} is not what was written")

    def open_to(work):
        handle = os.open(run.at, os.O_RDONLY)
        work(handle)
        os.close(handle)

    make()
    run.timed("list", lambda: open_to(walk))
    run.timed("read", lambda: open_to(look))
    yield
    run.timed("list again", lambda: open_to(walk))
    open_to(look)
    run.timed("remove", lambda: os.unlink(run.at))


def levels(run, count):
    """Directories in each other, with a file in the last."""

    def down(make):
        handle = os.open(run.at, os.O_RDONLY | os.O_DIRECTORY)

        def step(number):
            nonlocal handle
            if make:
                os.mkdir("d", dir_fd=handle)
            below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below

        return handle, step, lambda: handle

    os.mkdir(run.at)
    _, step, last = down(True)
    run.each("make", count, step)
    with open(os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=last()), "wb") as file:
        file.write(b"at the bottom")
    os.close(last())

    def look():
        _, step, last = down(False)
        for number in range(count):
            step(number)
        with open(os.open("file", os.O_RDONLY, dir_fd=last()), "rb") as file:
            expect(file.read(), b"at the bottom", "content of the file in the last directory")
        os.close(last())

    run.timed("list", lambda: expect(sum(1 for _ in os.walk(run.at)), count + 1, "directories") if count <= 900 else look())
    run.timed("read", look)
    yield
    run.timed("list again", look)

    def remove():
        handles = [os.open(run.at, os.O_RDONLY | os.O_DIRECTORY)]
        for _ in range(count):
            handles.append(os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=handles[-1]))
        os.unlink("file", dir_fd=handles[-1])
        while len(handles) > 1:
            os.close(handles.pop())
            os.rmdir("d", dir_fd=handles[-1])
        os.close(handles.pop())
        os.rmdir(run.at)

    run.timed("remove", remove)


def links(run, count):
    """Names of one file, a thousand to a directory."""

    def name(number):
        return f"{run.at}/{number // 1000:03}/link-{number}"

    os.mkdir(run.at)
    for folder in range((count + 999) // 1000):
        os.mkdir(f"{run.at}/{folder:03}")
    with open(name(0), "wb") as file:
        file.write(b"one file")

    def listed():
        return sum(count_entries(f"{run.at}/{folder}") for folder in os.listdir(run.at))

    def look():
        for number in sampled(count):
            expect(os.stat(name(number)).st_nlink, count, "names that stat tells of")
        with open(name(count - 1), "rb") as file:
            expect(file.read(), b"one file", "content")

    run.each("make", count - 1, lambda number: os.link(name(0), name(number + 1)))
    expect(run.timed("list", listed), count, "names")
    run.timed("read", look)
    yield
    expect(run.timed("list again", listed), count, "names after a new mount")
    look()
    run.each("remove", count, lambda number: os.unlink(name(number)))
    shutil.rmtree(run.at)


def sparse(run, size):
    """A file with data at both ends."""
    first, last = os.urandom(EDGE), os.urandom(EDGE)

    def make():
        with open(run.at, "xb", buffering=0) as file:
            file.write(first)
            file.seek(size - EDGE)
            file.write(last)

    def walk():
        handle = os.open(run.at, os.O_RDONLY)
        expect(os.fstat(handle).st_size, size, "the size")
        expect(os.lseek(handle, 0, os.SEEK_DATA), 0, "where data begins")
        expect(os.lseek(handle, 0, os.SEEK_HOLE), EDGE, "where the hole begins")
        expect(os.lseek(handle, EDGE, os.SEEK_DATA), size - EDGE, "where the hole ends")
        expect(os.lseek(handle, size - EDGE, os.SEEK_HOLE), size, "where the data ends")
        os.close(handle)

    def look():
        with open(run.at, "rb", buffering=0) as file:
            expect(os.pread(file.fileno(), EDGE, 0) == first, True, "the first data")
            expect(os.pread(file.fileno(), EDGE, size - EDGE) == last, True, "the last data")
            for number in range(200):
                offset = EDGE + number * ((size - 3 * EDGE) // 200)
                expect(os.pread(file.fileno(), BLOCK, offset), bytes(BLOCK), "what is read of the hole")

    run.timed("make", make)
    run.timed("list", walk)
    run.timed("read", look)
    yield
    run.timed("list again", walk)
    look()

    def remove():
        os.truncate(run.at, EDGE // 2)
        os.unlink(run.at)

    run.timed("remove", remove)


PARTS = {"entries": (entries, 5_000_000), "extents": (extents, 1_000_000), "levels": (levels, 1000), "links": (links, 60_000), "sparse": (sparse, 1 << 40)}
STEPS = ("make", "list", "read", "unmount", "mount", "list again", "remove")


class Limits:
    """What the filesystems need to know: where things are, and which mounts there are."""

    def __init__(self, program, work):
        self.program = program
        self.work = work
        self.mounts = []
        self.passphrase_file = os.path.join(work, "passphrase")
        for variable in [name for name in os.environ if name.startswith("VELLUM_")]:
            del os.environ[variable]
        os.environ["VELLUM_PASSPHRASE"] = secrets.token_hex(16)
        os.environ["VELLUM_STATE_DIR"] = os.path.join(work, "state")

    def directory(self, name):
        path = os.path.join(self.work, name)
        os.mkdir(path)
        return path

    def run(self, part, kind, size):
        run = Run(kind(self, part))
        run.mount()
        steps = PARTS[part][0](run, size)
        next(steps)
        run.timed("unmount", run.unmount)
        run.timed("mount", run.mount)
        next(steps, None)
        run.unmount()
        run.filesystem.remove()
        return run

    def leave(self):
        for mounted in reversed(self.mounts):
            mounted.abandon()
        if not any(os.path.ismount(os.path.join(self.work, name)) for name in os.listdir(self.work)):
            shutil.rmtree(self.work)


def faults(part, run):
    """What went beyond its bound."""
    if run.peak > MEMORY_MAX:
        yield f"{part}: the mount took {size_text(run.peak)} at its peak, and {size_text(MEMORY_MAX)} is its limit"
    for what, (first, second) in run.halves.items():
        if second > max(first, HALF_SECONDS_MIN) * GROWTH_MAX:
            yield f"{part}: the second half of {what} took {time_text(second)}, the first {time_text(first)}"


def parse():
    parser = argparse.ArgumentParser(prog="scripts/limits", description="Goes to the limits of sizes; see the head of scripts/limits.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is named")
    parser.add_argument("--scale", type=float, default=100.0, metavar="PERCENT", help="of the full sizes")
    for name, (_, size) in PARTS.items():
        parser.add_argument(f"--{name}", type=int, help=f"instead of {size}")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/tmp"), help="where all of it happens")
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}: {', '.join(PARTS)}")
    return arguments


def size_of(part, arguments):
    size = getattr(arguments, part) or max(int(PARTS[part][1] * arguments.scale / 100), 10)
    # Filesystems with blocks tell of holes in blocks.
    return size // EDGE * EDGE if part == "sparse" else size


def main():
    arguments = parse()
    for kind in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, lambda *_: sys.exit(130))
    limits = Limits(arguments.program, tempfile.mkdtemp(prefix="vellum-limits.", dir=arguments.dir))
    rows, wrong = [("part", "size", "where", *STEPS, "second half : first", "peak memory")], []
    rows.append(("---",) * len(rows[0]))
    try:
        describe_machine(limits.work, [])
        for part in arguments.parts or PARTS:
            size = size_of(part, arguments)
            for kind in (Vellum, Plain):
                try:
                    run = limits.run(part, kind, size)
                except (Failed, Wrong, OSError) as error:
                    wrong.append(f"{part} on {kind.name}: {error}")
                    say(f"FAULT {wrong[-1]}")
                    continue
                wrong.extend(faults(part, run))
                halves = ", ".join(f"{what} {second / max(first, 1e-9):.2f}" for what, (first, second) in run.halves.items())
                row = (part, f"{size:,}", kind.name, *(time_text(run.times[step]) for step in STEPS), halves, size_text(run.peak) if run.peak else "")
                rows.append(row)
                say("  " + "; ".join(f"{name} {value}" for name, value in zip(rows[0], row) if value))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(kind, signal.SIG_IGN)
        limits.leave()
        say("\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    for what in wrong:
        say(f"\nFAULT {what}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
