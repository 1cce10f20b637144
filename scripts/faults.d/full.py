"""Small disks that are filled to the last byte: through the mount, until not even one byte is accepted, and then by another
program, until the disk itself has none left.

Errors are ENOSPC, and what was accepted is kept. On a disk that was filled through the mount, deleting, `vellum delete`,
`vellum gc` and unmounting work, and there is space again. While another program holds the last byte, nothing that was answered
for is lost, and once it lets go, all of that works.
"""

import contextlib
import errno
import os
import random
import shutil

from ledger import Ledger, Refused
from place import Disk, Violation, must, run

MIB = 1 << 20
# Filesystem, bytes, and how the mount is told to write.
KINDS = (
    ("tmpfs", 96 * MIB, ""),
    ("ext4", 128 * MIB, ""),
    ("ext4", 64 * MIB, ""),
    ("tmpfs", 64 * MIB, ""),
    ("ext4", 96 * MIB, "version-quiet=1,version-max-wait=1"),
    ("tmpfs", 128 * MIB, ""),
)
OPTIONS = "version-quiet=1,version-max-wait=2"
# Content of a file, and what is left when the mount gave up has to be less than this.
FILE_BYTES = 3 * MIB
WRITE_BYTES = 256 << 10
# How much a filling may leave to single bytes.
TRIES_MAX = 4000


class Filling:
    """Files that fill a mount, in a ledger; one snapshot holds half of them."""

    def __init__(self, place, seed, options):
        self.place = place
        self.options = options
        self.rng = random.Random(f"{seed} filling")
        self.ledger = Ledger()
        self.ledger.root = place.mountpoint
        self.number = 0

    def fill(self, snapshot_at=None):
        """Files, then ever smaller writes to the last one, until one byte is refused. Nothing but ENOSPC is right."""
        accepted = 0
        size = WRITE_BYTES
        path = None
        while size:
            try:
                if path is None or len(self.ledger.file(path).content) >= FILE_BYTES:
                    path = self.make()
                self.ledger.write(path, len(self.ledger.file(path).content), self.rng.randbytes(size))
                accepted += size
            except Refused as refused:
                if refused.errno != errno.ENOSPC:
                    raise Violation(f"a full disk was answered with {refused}\n{self.place.mount.log()}") from refused
                size //= 4
            if snapshot_at and accepted >= snapshot_at:
                snapshot_at = None
                self.ledger.snapshot("snap-half", lambda: os.mkdir(self.ledger.at(".snapshots/snap-half")))
        return accepted

    def make(self):
        self.number += 1
        path = f"full{self.number}"
        self.ledger.make(path)
        return path

    def sync(self):
        """A sync on a full disk may be refused, but not with success. How many were accepted."""
        synced = 0
        for path in self.ledger.paths("f"):
            with contextlib.suppress(Refused):
                self.ledger.fsync(path)
                synced += 1
        return synced

    def delete(self, share):
        """Deleting has to be possible. The oldest go, so that whole packs become unused."""
        files = self.ledger.paths("f")
        for path in files[: round(len(files) * share)]:
            try:
                self.ledger.unlink(path)
            except Refused as refused:
                raise Violation(f"a file cannot be deleted on a full disk: {refused}\n{self.place.mount.log()}") from refused

    def free(self):
        space = os.statvfs(os.path.dirname(self.place.repository))
        return space.f_bavail * space.f_frsize

    def command(self, *arguments):
        """A command that has to work on a full disk."""
        result = self.place.vellum(*arguments)
        if result.returncode != 0:
            raise Violation(f"on a full disk vellum {arguments[0]} ended with {result.returncode}: {result.stdout}\n{self.place.mount.log()}")
        return result.stdout


def through_the_mount(place, seed, kind):
    """Filled by way of the mount, twice: with an unmount of the full disk in between."""
    filling = Filling(place, seed, OPTIONS if not kind[2] else kind[2])
    ledger = filling.ledger
    mount = place.must_start("an empty disk", options=filling.options)
    with mount.watched(300):
        accepted = filling.fill(snapshot_at=kind[1] // 6)
        synced = filling.sync()
        left = filling.free()
        if synced != len(ledger.paths("f")):
            raise Violation(f"on a full disk, {synced} of {len(ledger.paths('f'))} files could be synced\n{mount.log()}")
        place.compare(ledger, "on a full disk", exact=True)
    place.must_end("a full disk")
    ledger.all_durable()
    mount = place.must_start("a full disk", options=filling.options)
    with mount.watched(300):
        place.compare(ledger, "a full disk that is mounted again", exact=True, snapshots=False)
        filling.delete(0.6)
        ledger.drop_snapshot("snap-half", lambda: must_be_zero(place.vellum("delete", place.mountpoint, "snap-half")))
        # By default packs that are half used stay.
        collected = filling.command("gc", place.mountpoint) + filling.command("gc", "--max-unused", "5", place.mountpoint)
        freed = filling.free() - left
        again = filling.fill()
        place.compare(ledger, "a disk that was filled again", exact=True)
    if again < accepted // 4:
        raise Violation(f"of {accepted} bytes most were deleted, gc freed {freed}, and then {again} were accepted\n{collected}{mount.log()}")
    place.must_end("a disk that was filled again")
    place.judge(ledger, "after all", exact=True)
    return filling, f"{accepted // MIB} MiB until ENOSPC, {left // MIB} MiB held back, {freed // MIB} MiB freed by gc, {again // MIB} MiB again"


def must_be_zero(result):
    if result.returncode != 0:
        raise Violation(f"on a full disk vellum ended with {result.returncode}: {result.stdout}")


def by_another(place, filling, kill):
    """Another program takes the last byte of the disk while there is work that is not durable. Then it lets go."""
    ledger = filling.ledger
    hog = os.path.join(os.path.dirname(place.repository), "hog")
    mount = place.must_start("before the disk is taken", options=filling.options)
    with mount.watched(300):
        filling.delete(0.5)
        filling.command("gc", place.mountpoint)
        path = filling.make()
        ledger.write(path, 0, filling.rng.randbytes(WRITE_BYTES))
        fill_file(hog)
        left = filling.free()
        # From here on every answer is right, as long as it is true.
        for size in (WRITE_BYTES, 1):
            with contextlib.suppress(Refused):
                ledger.write(path, len(ledger.file(path).content), filling.rng.randbytes(size))
        synced = filling.sync()
        filling.delete(0.2)
        gc = place.vellum("gc", place.mountpoint).returncode
    if kill:
        mount.kill()
        ended = "killed"
    else:
        complaint = mount.end()
        ended = complaint or "unmounted"
        if mount.told_durable:
            ledger.all_durable()
    durable = not kill and mount.told_durable
    full = place.start(options=filling.options)
    mounted = "mounted" if full else f"not mounted (exit code {place.exit_code})"
    if full:
        place.compare(ledger, "on a disk that another program filled", exact=durable)
        full.kill()
    os.unlink(hog)
    found, _ = place.judge(ledger, "after another program let go", exact=durable)
    filling.ledger = ledger.adopted(*found)
    return f"{left} bytes left by another program: {synced} files synced, gc {gc}, {ended.splitlines()[0]}, then {mounted}"


def fill_file(path):
    """Takes all that is left."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    size = MIB
    try:
        while size:
            try:
                os.write(descriptor, os.urandom(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def job(place, seed, number, size, only=None):
    kind = KINDS[number % len(KINDS)]
    directory = os.path.join(place.work, "disk")
    os.mkdir(directory)
    if kind[0] == "tmpfs":
        must("mount", "-t", "tmpfs", "-o", f"size={kind[1]}", "tmpfs", directory)
    else:
        image = os.path.join(place.work, "disk.img")
        Disk.make(image, kind[1])
        Disk(image, directory).mount()
    try:
        place.on(directory)
        place.init()
        filling, told = through_the_mount(place, seed, kind)
        others = [by_another(place, filling, kill) for kill in (False, True)]
    finally:
        if place.mount:
            place.mount.kill()
        run("umount", "-l", directory)
    name = f"{kind[0]} of {kind[1] // MIB} MiB"
    return {"passed": 3, "told": "; ".join([f"{name}: {told}", *others])}


def why_not():
    return None if shutil.which("mkfs.ext4") else "mkfs.ext4 is not installed"
