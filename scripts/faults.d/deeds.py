"""Random work in a mount, all of it noted in a ledger: names, content, links, snapshots, and what makes them durable.

Whatever the mount refuses is left as it is; the work ends when the mount is dead.
"""

import errno
import os
import random
import threading
import time

from ledger import SNAPSHOTS, Gone, Refused

FILES_MAX = 60
DIRECTORIES_MAX = 12
SNAPSHOTS_MAX = 3
# Of one file, and of all of them together.
SIZE_MAX = 1 << 20
CONTENT_MAX = 16 << 20
RECORD_MAX = 6000

# How often what is done, among the others.
WEIGHTS = {
    "make": 14,
    "write": 26,
    "overwrite": 8,
    "truncate": 5,
    "set_time": 3,
    "fsync": 14,
    "fsync_directory": 5,
    "rename": 6,
    "rename_over": 6,
    "rename_directory": 2,
    "link": 3,
    "unlink": 6,
    "mkdir": 4,
    "rmdir": 2,
    "symlink": 2,
    "chmod": 3,
    "setxattr": 3,
    "snapshot": 2,
    "drop_snapshot": 1,
}


class Deeds:
    """Work in the mount at the root of a ledger."""

    def __init__(self, ledger, seed):
        self.ledger = ledger
        self.rng = random.Random(f"{seed} deeds")
        self.number = 0
        self.refused = 0
        self.failed_syncs = 0
        self.kinds = list(WEIGHTS)
        self.weights = list(WEIGHTS.values())

    def run(self, count, until=lambda: False):
        """So many deeds; false if the mount died meanwhile."""
        for _ in range(count):
            if until():
                break
            kind = self.rng.choices(self.kinds, self.weights)[0]
            try:
                getattr(self, kind)()
            except Refused as refused:
                self.refused += 1
                self.failed_syncs += kind.startswith("fsync")
                if refused.errno == errno.EROFS:
                    break
            except Gone:
                return False
        return True

    # Choices. None of them asks the mount.

    def fresh(self, what):
        where = self.rng.choice([""] + self.directories())
        while True:
            self.number += 1
            path = os.path.join(where, f"{what}{self.number}")
            if path not in self.ledger.names:
                return path

    def directories(self):
        return [path for path in self.ledger.paths("d") if path != "streams"]

    def a_file(self):
        files = self.ledger.paths("f")
        return self.rng.choice(files) if files else None

    def data(self, length):
        """Half of it compresses, and some of it was there before."""
        kind = self.rng.randrange(4)
        if kind == 0:
            return (b"%d " % self.rng.randrange(1000) * length)[:length]
        if kind == 1:
            return random.Random(self.rng.randrange(20)).randbytes(length)
        return self.rng.randbytes(length)

    def length(self):
        return self.rng.choice([1, 100, 4096, 10_000, self.rng.randrange(1, 40_000), self.rng.randrange(1, 260_000)])

    # Deeds, by the names in WEIGHTS.

    def make(self):
        if len(self.ledger.paths("f")) >= FILES_MAX:
            self.unlink()
            return
        path = self.fresh("file")
        self.ledger.make(path, self.rng.choice([0o644, 0o600]))
        if self.rng.random() < 0.8:
            self.ledger.write(path, 0, self.data(self.length()))

    def write(self):
        """At the end, mostly."""
        path = self.a_file()
        if path is None:
            return
        size = len(self.ledger.file(path).content)
        gap = self.rng.choice([0, 0, 0, 0, 5000])
        total = sum(len(file.content) for file in self.ledger.files.values())
        if size > SIZE_MAX or total > CONTENT_MAX:
            self.ledger.truncate(path, size // 8)
            return
        self.ledger.write(path, size + gap, self.data(self.length()))

    def overwrite(self):
        path = self.a_file()
        if path and self.ledger.file(path).content:
            offset = self.rng.randrange(len(self.ledger.file(path).content))
            self.ledger.write(path, offset, self.data(self.rng.randrange(1, 20_000)))

    def truncate(self):
        path = self.a_file()
        if path:
            self.ledger.truncate(path, self.rng.randrange(len(self.ledger.file(path).content) + 3000))

    def set_time(self):
        path = self.a_file()
        if path:
            self.ledger.set_time(path, self.rng.randrange(10**18, 2 * 10**18))

    def fsync(self):
        path = self.a_file()
        if path:
            self.ledger.fsync(path, self.rng.choice([os.fsync, os.fdatasync]))

    def fsync_directory(self):
        directories = self.directories()
        if directories:
            self.ledger.fsync(self.rng.choice(directories))

    def rename(self):
        path = self.a_file()
        if path:
            self.ledger.rename(path, self.fresh("file"))

    def rename_over(self):
        """As editors save: another file, often synced, then moved to where the old one is."""
        path = self.a_file()
        if not path:
            return
        name = self.fresh("new")
        self.ledger.make(name)
        self.ledger.write(name, 0, self.data(self.length()))
        if self.rng.random() < 0.5:
            self.ledger.fsync(name)
        self.ledger.rename(name, path)

    def rename_directory(self):
        directories = self.directories()
        if directories:
            path = self.rng.choice(directories)
            other = self.fresh("directory")
            if not other.startswith(path + "/"):
                self.ledger.rename(path, other)

    def link(self):
        path = self.a_file()
        if path and len(self.ledger.paths("f")) < FILES_MAX:
            self.ledger.link(path, self.fresh("link"))

    def unlink(self):
        path = self.a_file()
        if path:
            self.ledger.unlink(path)

    def mkdir(self):
        if len(self.directories()) < DIRECTORIES_MAX:
            self.ledger.mkdir(self.fresh("directory"))

    def rmdir(self):
        names = self.ledger.names
        for path in self.directories():
            if not any(name.startswith(path + "/") for name in names):
                self.ledger.rmdir(path)
                return

    def symlink(self):
        links = self.ledger.paths("l")
        if len(links) < 10:
            self.ledger.symlink(f"nowhere/{self.number}", self.fresh("symlink"))
        else:
            self.ledger.unlink(self.rng.choice(links))

    def chmod(self):
        path = self.a_file()
        if path:
            self.ledger.chmod(path, self.rng.choice([0o600, 0o640, 0o644, 0o755]))

    def setxattr(self):
        path = self.a_file()
        if path:
            self.ledger.setxattr(path, self.rng.randbytes(self.rng.randrange(1, 300)))

    def snapshot(self):
        live = self.ledger.live_snapshots()
        if len(live) >= SNAPSHOTS_MAX:
            self.drop_snapshot()
            return
        name = f"snap-{len(self.ledger.snapshots)}"
        self.ledger.snapshot(name, lambda: os.mkdir(self.ledger.at(f"{SNAPSHOTS}/{name}")))

    def drop_snapshot(self):
        live = self.ledger.live_snapshots()
        if live:
            name = self.rng.choice(live)
            self.ledger.drop_snapshot(name, lambda: os.rmdir(self.ledger.at(f"{SNAPSHOTS}/{name}")))


class Appender:
    """A second program beside the deeds: appends records to a file and syncs each."""

    def __init__(self, ledger, seed, path="streams/0"):
        self.ledger = ledger
        self.path = path
        self.rng = random.Random(f"{seed} stream")
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.append)
        if os.path.dirname(path) not in ledger.names:
            ledger.mkdir(os.path.dirname(path))
        if path in ledger.names:
            self.stream = ledger.streams[ledger.names[path][1]]
        else:
            self.stream = ledger.make_stream(path)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()

    def append(self):
        while not self.ending.is_set():
            try:
                self.ledger.append(self.stream, self.path, self.rng.randbytes(self.rng.randrange(1, RECORD_MAX)))
            except Refused as refused:
                if refused.errno == errno.EROFS:
                    return
            except Gone:
                return
            time.sleep(0.005)
