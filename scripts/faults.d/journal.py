"""How long a mount takes after a crash with a full journal: told, and not judged, since it depends on the machine."""

import os
import random
import shutil

from ledger import Ledger, Refused
from place import Disk, Violation, run

MIB = 1 << 20
FILES = 64
# A sync takes this with it; more would go into packs, and not into the journal.
WRITE_BYTES = 96 << 10
# The journal is full when syncs have written so much of it.
FULL = 0.9


def journal_bytes(place):
    """Length of the journal's segments, all of which are there once it has been full."""
    total = 0
    for directory, _, names in os.walk(os.path.join(place.repository, "journal")):
        total += sum(os.path.getsize(os.path.join(directory, name)) for name in names)
    return total


def job(place, seed, number, size, only=None):
    directory = os.path.join(place.work, "disk")
    image = os.path.join(place.work, "disk.img")
    Disk.make(image, size["disk"])
    Disk(image, directory).mount()
    try:
        place.on(directory)
        place.init()
        return {"passed": 1, "told": fill_and_time(place, seed)}
    finally:
        if place.mount:
            place.mount.kill()
        run("umount", "-l", directory)


def fill_and_time(place, seed):
    """Small writes and syncs, until just before the journal asks for a checkpoint; then the process dies."""
    rng = random.Random(f"{seed} journal")
    ledger = Ledger()
    ledger.root = place.mountpoint
    mount = place.must_start("an empty disk", options="version-quiet=3600,version-max-wait=3600")
    written = 0
    with mount.watched(600):
        for number in range(FILES):
            ledger.make(f"file{number}")
        while written < MIB or written < FULL * journal_bytes(place):
            path = f"file{rng.randrange(FILES)}"
            offset = rng.randrange(4) * WRITE_BYTES
            try:
                ledger.write(path, offset, rng.randbytes(WRITE_BYTES))
                ledger.fsync(path)
            except Refused as refused:
                raise Violation(f"without a fault, a call was refused: {refused}\n{mount.log()}") from refused
            written += WRITE_BYTES
        status = mount.status()
    full = journal_bytes(place)
    mount.kill()
    _, seconds = place.judge(ledger, "after a crash with a full journal")
    return f"{written / MIB:.0f} MiB synced into a journal of {full / MIB:.0f} MiB, head {status['head']}; mount after the crash took {seconds:.2f} s"


def why_not():
    return None if shutil.which("mkfs.ext4") else "mkfs.ext4 is not installed"
