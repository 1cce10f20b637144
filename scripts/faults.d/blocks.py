"""Images of a block device as power loss leaves it, with ext4 on it and the repository on ext4.

nbdkit records every write and every flush of a workload (recorder.py), nbdfuse shows its disk as a file, a loop device makes
that a block device, and ext4 is mounted on it. An image is made of all writes before a flush and some of those that were
under way: none, all, or a random part, some of them torn into sectors. ext4 recovers by its own means, vellum by its own, and
the ledger of the workload tells what has to be there.
"""

import contextlib
import os
import random
import shutil
import subprocess
import time

from deeds import Appender, Deeds
from ledger import Ledger
from place import Disk, Violation, kill_at_end, must, run, wait_until
from recorder import RECORD

DISK_BYTES = 256 << 20
SECTOR = 512
# How ext4 is made and mounted.
KINDS = (
    ("ext4", (), ""),
    ("ext4 with data=journal", (), "data=journal"),
    ("ext4 with data=writeback", (), "data=writeback"),
    ("ext4 with blocks of 1 KiB", ("-b", "1024"), ""),
    ("ext4 with journal_async_commit", (), "journal_async_commit,data=writeback"),
)


class Log:
    """The records of a recording: kind, offset, length, where the data is, and where the record ends."""

    def __init__(self, path):
        self.path = path
        self.records = []
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            at = 0
            while at + RECORD.size <= size:
                file.seek(at)
                kind, offset, length = RECORD.unpack(file.read(RECORD.size))
                data_at = at + RECORD.size
                at = data_at + (length if kind == b"W" else 0)
                if at <= size:
                    self.records.append((kind, offset, length, data_at, at))
        self.file = open(path, "rb")

    def data(self, record):
        kind, _, length, data_at, _ = record
        return os.pread(self.file.fileno(), length, data_at) if kind == b"W" else bytes(length)

    def bounds(self, cut):
        """How many records are in an image at `cut` for certain, and how many may be: up to the last flush, and up to the cut."""
        may = sum(1 for record in self.records if record[4] <= cut)
        certain = max([index + 1 for index in range(may) if self.records[index][0] == b"F"], default=0)
        return certain, may


def record(place, seed, kind, deeds):
    """A workload on a disk that is recorded. Returns its ledger, and the clock at the moment when the repository was made."""
    _, made, options = kind
    work = place.work
    image, log = os.path.join(work, "disk.img"), os.path.join(work, "disk.log")
    socket, window = os.path.join(work, "nbd.sock"), os.path.join(work, "nbd")
    Disk.make(image, DISK_BYTES, *made)
    must("cp", "--sparse=always", image, os.path.join(work, "base.img"))
    open(log, "wb").close()
    os.mkdir(window)
    recorder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorder.py")
    with contextlib.ExitStack() as stack:
        server = kill_at_end(stack, "nbdkit", "-f", "-U", socket, "python", recorder, f"disk={image}", f"log={log}")
        wait_until(lambda: os.path.exists(socket), 20, "nbdkit", server)
        fuse = kill_at_end(stack, "nbdfuse", os.path.join(window, "nbd"), f"nbd+unix:///?socket={socket}")
        stack.callback(lambda: run("umount", "-l", window))
        wait_until(lambda: os.path.exists(os.path.join(window, "nbd")), 20, "nbdfuse", fuse)
        disk = Disk(image, os.path.join(work, "recorded"), options)
        disk.mount(os.path.join(window, "nbd"))
        stack.callback(lambda: run("umount", "-l", disk.mountpoint))
        place.on(disk.mountpoint)
        ledger = Ledger(lambda: os.path.getsize(log))
        ledger.root = place.mountpoint
        place.init()
        initial = ledger.clock()
        work_in(place, ledger, seed, deeds)
    return ledger, initial


def work_in(place, ledger, seed, count):
    """The workload: two mounts with an unmount between them, and a gc."""
    work = Deeds(ledger, seed)
    for part in range(2):
        mount = place.must_start("before any fault")
        with mount.watched(), Appender(ledger, f"{seed} {part}"):
            work.run(count // 2)
            if part == 1:
                place.vellum("gc", place.mountpoint)
                work.run(count // 8)
        if not mount.alive():
            raise Violation(f"the mount died without a fault\n{mount.log()}")
        place.must_end("before any fault")
        ledger.all_durable()
    if work.refused:
        raise Violation(f"without a fault, {work.refused} calls were refused: {ledger.errors}")


def cuts(log, ledger, initial, count, rng):
    """Where the power fails: just as a flush is answered, just as an answer of vellum came, and anywhere."""
    flushes = [record[4] for record in log.records if record[0] == b"F" and record[4] >= initial]
    answers = [position for position in ledger.answers() if position >= initial]
    anywhere = [record[4] for record in log.records if record[4] >= initial]
    chosen = []
    for number in range(count):
        among = (flushes, answers, flushes, anywhere)[number % 4]
        chosen.append((rng.choice(among), number))
    return sorted(chosen)


def torn(data, rng):
    """Sectors of a write that reached the disk, as (offset in it, bytes)."""
    share = rng.random()
    for at in range(0, len(data), SECTOR):
        if rng.random() < share:
            yield at, data[at : at + SECTOR]


def add_under_way(image, log, records, rng):
    """Some of the writes that no flush covers. How many is told."""
    share = rng.choice([0, 0.2, 0.5, 0.8, 1, rng.random()])
    added = 0
    with open(image, "r+b") as file:
        for record in records:
            if record[0] == b"F" or rng.random() >= share:
                continue
            added += 1
            data = log.data(record)
            pieces = torn(data, rng) if share < 1 and rng.random() < 0.3 else [(0, data)]
            for at, piece in pieces:
                os.pwrite(file.fileno(), piece, record[1] + at)
    return added


def replay(place, seed, kind, ledger, initial, count, only=None):
    """Makes the images, in the order of the recording, and looks what is in each. Yields what is told of each."""
    rng = random.Random(f"{seed} cuts")
    log = Log(os.path.join(place.work, "disk.log"))
    base, image = os.path.join(place.work, "base.img"), os.path.join(place.work, "image.img")
    disk = Disk(image, os.path.join(place.work, "replayed"), kind[2])
    place.on(disk.mountpoint)
    applied = 0
    with open(base, "r+b") as file:
        for cut, number in cuts(log, ledger, initial, count, rng):
            certain, may = log.bounds(cut)
            # A flush that ends exactly here: half of the time as if it had not been answered yet.
            own = random.Random(f"{seed} image {number}")
            if certain == may and own.random() < 0.5:
                certain = max([index + 1 for index in range(may - 1) if log.records[index][0] == b"F"], default=0)
                certain = max(certain, applied)
                cut = log.records[may - 1][4] - 1
            for record in log.records[applied:certain]:
                if record[0] != b"F":
                    os.pwrite(file.fileno(), log.data(record), record[1])
            applied = max(applied, certain)
            if only is not None and number != only:
                continue
            must("cp", "--sparse=always", base, image)
            added = add_under_way(image, log, log.records[applied:may], own)
            what = f"image {number} of {kind[0]}: {applied} records of {len(log.records)}, {added} of {may - applied} under way"
            yield look_at_image(place, disk, ledger, what, cut, own)


def look_at_image(place, disk, ledger, what, cut, rng):
    """What ext4 recovers, vellum has to open. Returns seconds that the mount took, and the exit code of e2fsck (None: not run)."""
    code = disk.repair() if rng.random() < 0.5 else None
    disk.mount()
    try:
        _, seconds = place.judge(ledger, what, cut)
    finally:
        if place.mount:
            place.mount.kill()
        disk.unmount()
    return seconds, code


def job(place, seed, number, size, only=None):
    """One recording and its images. Returns what is told."""
    kind = KINDS[number % len(KINDS)]
    began = time.monotonic()
    ledger, initial = record(place, seed, kind, size["deeds"])
    recorded = time.monotonic() - began
    results = list(replay(place, seed, kind, ledger, initial, size["images"], only))
    asked = sum(1 for _, code in results if code is not None and code & ~1)
    return {"passed": len(results), "told": f"{kind[0]}: recorded in {recorded:.0f} s; e2fsck -p had to ask {asked} times; slowest mount {max(s for s, _ in results):.1f} s"}


def why_not():
    """Why images cannot be made here; None if they can."""
    for command in ("nbdkit", "nbdfuse", "mkfs.ext4", "e2fsck"):
        if not shutil.which(command):
            return f"{command} is not installed"
    try:
        if subprocess.run(["nbdkit", "--dump-plugin", "python"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
            return "nbdkit has no plugin for Python (Debian package nbdkit-plugin-python)"
    except OSError as error:
        return str(error)
    return None
