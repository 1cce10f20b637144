"""A disk that fails for a while below a running mount: nbdkit's error filter answers EIO as long as a file exists.

The mount may answer errors, and has to tell that something is wrong; whatever it answered as durable has to be on the disk
when that works again: not only in the memory of the kernel, which takes a page for clean after its write has failed.
"""

import contextlib
import os
import random
import shutil

from deeds import Appender, Deeds
from ledger import Ledger
from place import CannotRun, Disk, Violation, kill_at_end, run, wait_until

DISK_BYTES = 256 << 20
# Of a request that FUSE splits, a loop device takes the first part's success for that of the whole. These are not split.
BLOCK = 4096
REQUEST_KIB_MAX = 64
# What fails, how often, and what ext4 does then: with a journal it soon becomes read-only, without one it goes on.
KINDS = (
    ("writes", ("error-pwrite=EIO", "error-pwrite-rate=100%"), ()),
    ("some writes, without a journal of ext4", ("error-pwrite=EIO", "error-pwrite-rate=20%"), ("-O", "^has_journal")),
    ("some writes", ("error-pwrite=EIO", "error-pwrite-rate=5%"), ()),
    ("few writes, without a journal of ext4", ("error-pwrite=EIO", "error-pwrite-rate=1%"), ("-O", "^has_journal")),
    ("everything, without a journal of ext4", ("error=EIO", "error-rate=100%"), ("-O", "^has_journal")),
    ("reads and writes", ("error=EIO", "error-rate=30%"), ()),
)


class FailingDisk:
    """ext4 on a loop device on a disk of nbdkit, which fails while it is told to."""

    def __init__(self, place, kind):
        work = place.work
        self.switch = os.path.join(work, "failing")
        image = os.path.join(work, "disk.img")
        Disk.make(image, DISK_BYTES, "-b", str(BLOCK), *kind[2])
        self.disk = Disk(image, os.path.join(work, "disk"), "errors=continue")
        self.window = os.path.join(work, "nbd")
        self.kind = kind
        os.mkdir(self.window)

    @contextlib.contextmanager
    def served(self):
        socket = self.window + ".sock"
        with contextlib.ExitStack() as stack:
            filters = ["--filter=error", "file", self.disk.image, f"error-file={self.switch}", *self.kind[1]]
            server = kill_at_end(stack, "nbdkit", "-f", "-U", socket, *filters)
            wait_until(lambda: os.path.exists(socket), 20, "nbdkit", server)
            shown = os.path.join(self.window, "nbd")
            fuse = kill_at_end(stack, "nbdfuse", shown, f"nbd+unix:///?socket={socket}")
            stack.callback(lambda: run("umount", "-l", self.window))
            wait_until(lambda: os.path.exists(shown), 20, "nbdfuse", fuse)
            self.disk.mount(shown)
            self.shorten_requests()
            try:
                yield
            finally:
                self.work_again()
                self.disk.unmount()
        os.unlink(socket)

    def shorten_requests(self):
        try:
            with open(f"/sys/block/{self.disk.device()}/queue/max_sectors_kb", "w") as file:
                file.write(str(REQUEST_KIB_MAX))
        except OSError as error:
            raise CannotRun(f"requests of a loop device cannot be made shorter: {error}") from error

    def fail(self):
        open(self.switch, "wb").close()

    def work_again(self):
        if os.path.exists(self.switch):
            os.unlink(self.switch)


def told(mount, deeds, what):
    """After an fsync was answered with an error, the mount has to say what is wrong."""
    status = mount.status()
    if status is None:
        raise Violation(f"{what}: vellum status does not answer\n{mount.log()}")
    if deeds.failed_syncs and status["health"] == "good":
        raise Violation(f"{what}: {deeds.failed_syncs} calls of fsync failed, and vellum status says that all is good\n{mount.log()}")
    return status["health"]


def trouble(place, failing, ledger, seed, count, what):
    """Work while the disk fails, and after. Returns how the mount was then, and whether its unmount answered for everything."""
    mount = place.must_start(what)
    with mount.watched(), Appender(ledger, seed):
        deeds = Deeds(ledger, seed)
        deeds.run(count // 3)
        if deeds.refused:
            raise Violation(f"{what}: without a fault, {deeds.refused} calls were refused: {ledger.errors}")
        failing.fail()
        deeds.run(count)
        if not mount.alive():
            raise Violation(f"{what}: the mount died of an I/O error\n{mount.log()}")
        health = told(mount, deeds, what)
        failing.work_again()
        deeds.run(count // 3)
        health = told(mount, deeds, what) if health == "poisoned" else health
    # Names are all there. Content that was not synced may be gone (ext4 drops what it cannot place), but is never other bytes.
    place.compare(ledger, f"{what}: before the unmount", exact=True, snapshots=False, failing=True)
    if random.Random(f"{seed} kill").random() < 0.4:
        mount.kill()
        return health, False
    mount.end()
    return health, mount.told_durable


def job(place, seed, number, size, only=None):
    kind = KINDS[number % len(KINDS)]
    healths, ledger = [], Ledger()
    ledger.root = place.mountpoint
    failing = FailingDisk(place, kind)
    place.on(failing.disk.mountpoint)
    with failing.served():
        place.init()
    for turn in range(size["rounds"]):
        what = f"round {turn}, {kind[0]} fail"
        with failing.served():
            try:
                health, exact = trouble(place, failing, ledger, f"{seed} {turn}", size["deeds"], what)
            finally:
                # Whatever happened: the disk below it is to be unmounted.
                if place.mount:
                    place.mount.kill()
        if exact:
            ledger.all_durable()
        failing.disk.repair(thorough=True)
        failing.disk.mount()
        try:
            # Without a journal, ext4 may bring back a file that was deleted, with blocks that hold other files by then: what
            # nothing needs any more need not be clean.
            found, _ = place.judge(ledger, f"{what}, after {health}", exact=exact, check=not kind[2])
        finally:
            if place.mount:
                place.mount.kill()
            failing.disk.unmount()
        ledger = ledger.adopted(*found)
        healths.append(health + (" and unmounted" if exact else ""))
    return {"passed": size["rounds"], "told": f"{kind[0]} fail: {', '.join(healths)}"}


def why_not():
    for command in ("nbdkit", "nbdfuse", "mkfs.ext4", "e2fsck"):
        if not shutil.which(command):
            return f"{command} is not installed"
    return None
