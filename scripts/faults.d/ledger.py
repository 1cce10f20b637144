"""What was done in a mount, what of it was answered for, and whether what is found later is allowed (docs/durability.md, P1).

A Ledger keeps every state that names had (one after each change of a name, owner, mode, link or xattr) and every state that
each file's content had (one after each write), with the position of the clock when the change began. What is found after a
crash is allowed if names are those of one state, each file's content is one of its own states, and neither is older than
what an fsync, a snapshot or an unmount answered for. Snapshots that are found are exactly what they were taken of.

The clock counts what reached the disk (for images of it), or stands still (where the crash comes after everything).
"""

import errno
import hashlib
import os
import stat

# What a program is answered when the process of the mount is dead.
GONE = (errno.ENOTCONN, errno.ECONNABORTED)
# Of the kernel's cache.
PAGE = 4096
# Attributes and snapshots of the tests.
XATTR = "user.faults"
SNAPSHOTS = ".snapshots"


class Gone(Exception):
    """The process of the mount died; whether the call that was under way had its effect is not known."""


class Refused(Exception):
    """The mount lives and answered an error; the call had no effect."""

    def __init__(self, error):
        super().__init__(str(error))
        self.errno = error.errno


def digest_of(data):
    return hashlib.blake2b(data, digest_size=16).digest()


class File:
    """Content of one inode: what it is, what it was after each change, and which states were answered for."""

    def __init__(self, start, content=b""):
        self.content = bytearray(content)
        # (position at which the change began, digest, length, mtime in nanoseconds if it was set, digests of it half done)
        self.states = []
        # (position of the answer, index of the state that is durable from there on)
        self.synced = []
        self.add(start)

    def add(self, start, mtime=None, partly=()):
        self.states.append((start, digest_of(self.content), len(self.content), mtime, partly))

    def write(self, start, offset, data):
        self.content.extend(bytes(max(0, offset - len(self.content))))
        # The kernel sends the first and the last page of a write alone if it has not all of it: a checkpoint may lie between.
        partly = []
        end = offset + len(data)
        for cut in {(offset // PAGE + 1) * PAGE, (end - 1) // PAGE * PAGE}:
            if offset < cut < end:
                content = self.content[:offset] + data[: cut - offset] + self.content[cut:]
                partly.append(digest_of(content))
        self.content[offset:end] = data
        self.add(start, partly=partly)

    def allowed(self, lower, cut):
        return [state for state in self.states[lower:] if state[0] <= cut]

    def lower(self, cut):
        return max([index for position, index in self.synced if position <= cut], default=0)


class Stream:
    """A file to which one thread appends: what it holds is always a beginning of `data`."""

    def __init__(self):
        self.data = bytearray()
        self.answered = 0
        self.begun = []
        self.synced = []

    def bounds(self, cut):
        least = max([length for position, length in self.synced if position <= cut], default=0)
        most = max([length for position, length in self.begun if position <= cut], default=0)
        return least, most


class Snapshot:
    """A snapshot that was asked for: the tree that it has to show, and when it came and went."""

    def __init__(self, ledger):
        self.start = ledger.clock()
        self.names = ledger.names
        self.files = ledger.files
        self.states = {ino: file.states[-1] for ino, file in ledger.files.items()}
        self.streams = ledger.streams
        self.answered = {ino: stream.answered for ino, stream in ledger.streams.items()}
        self.made = None
        self.drop_start = None
        self.dropped = None

    def differs(self, found):
        wrong = names_differ(self.names, {path: seen.shape() for path, seen in found.items()})
        if wrong:
            return wrong
        for path, (kind, ino, _, _) in self.names.items():
            if ino in self.streams:
                stream = self.streams[ino]
                wrong += stream_differs(path, stream, found[path], self.answered[ino], len(stream.data))
            elif kind == "f":
                wrong += file_differs(path, [self.states[ino]], found[path], self.files[ino])
        return wrong


class Seen:
    """What is found at one path: `kind` is d, f or l; `extra` the target or the xattr; `data` is None if it cannot be read."""

    def __init__(self, path, failing):
        status = os.lstat(path)
        self.ino = status.st_ino
        self.mode = stat.S_IMODE(status.st_mode)
        self.mtime = status.st_mtime_ns
        self.data = b""
        self.extra = b""
        if stat.S_ISLNK(status.st_mode):
            self.kind = "l"
            self.extra = os.readlink(os.fsencode(path))
            return
        self.kind = "d" if stat.S_ISDIR(status.st_mode) else "f"
        try:
            self.extra = os.getxattr(path, XATTR)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
        if self.kind == "f":
            try:
                with open(path, "rb", buffering=0) as file:
                    parts = iter(lambda: file.read(1 << 20), b"")
                    self.data = b"".join(parts)
            except OSError as error:
                if not failing or error.errno != errno.EIO:
                    raise
                self.data = None

    def shape(self):
        return (self.kind, self.mode, self.extra)


def look(root, failing=False):
    """All that is below a directory, by relative path. Raises OSError where something cannot be read; with `failing`, content
    may be answered with EIO."""
    found = {}
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        for name in os.listdir(os.path.join(root, inner)):
            path = os.path.join(inner, name)
            seen = found[path] = Seen(os.path.join(root, path), failing)
            if seen.kind == "d":
                waiting.append(path)
    return found


def look_at_snapshots(root):
    """The named snapshots of the tests, each with its tree."""
    place = os.path.join(root, SNAPSHOTS)
    return {name: look(os.path.join(place, name)) for name in os.listdir(place) if name.startswith("snap-")}


class Ledger:
    """All states of one volume, written by one thread; streams have a thread of their own."""

    def __init__(self, clock=None):
        self.clock = clock or (lambda: 0)
        # (position at which the change began, {path: (kind, inode, mode, extra)})
        self.shapes = [(self.clock(), {})]
        self.names_synced = []
        # A rename over a file: (index of the shape, inode, index of its state then)
        self.overs = []
        self.files = {}
        self.streams = {}
        self.snapshots = {}
        self.inodes = 0
        self.root = None
        self.errors = {}

    # What there is.

    @property
    def names(self):
        return self.shapes[-1][1]

    def paths(self, kind):
        return [path for path, name in self.names.items() if name[0] == kind and name[1] not in self.streams]

    def file(self, path):
        return self.files[self.names[path][1]]

    def at(self, path):
        return os.path.join(self.root, path)

    # What is done. A change that is answered with an error has not happened, unless the mount died meanwhile.

    def attempt(self, call, change=None):
        start = self.clock()
        try:
            result = call()
        except OSError as error:
            self.errors[error.errno] = self.errors.get(error.errno, 0) + 1
            if error.errno in GONE:
                if change:
                    change(start)
                raise Gone() from error
            raise Refused(error) from error
        if change:
            change(start)
        return result

    def rename_all(self, call, edit):
        """A change of names: `edit` makes it in a copy of the newest shape."""

        def change(start):
            names = dict(self.names)
            edit(names)
            self.shapes.append((start, names))

        self.attempt(call, change)

    def new_inode(self):
        self.inodes += 1
        return self.inodes

    def make(self, path, mode=0o644):
        ino = self.new_inode()

        def call():
            os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

        def edit(names):
            names[path] = ("f", ino, mode, b"")
            # Wherever there is the name, the empty file is allowed.
            self.files[ino] = File(0)

        self.rename_all(call, edit)
        return ino

    def make_stream(self, path):
        ino = self.make(path)
        del self.files[ino]
        self.streams[ino] = Stream()
        return self.streams[ino]

    def mkdir(self, path):
        ino = self.new_inode()
        self.rename_all(lambda: os.mkdir(self.at(path), 0o755), lambda names: names.__setitem__(path, ("d", ino, 0o755, b"")))

    def symlink(self, target, path):
        ino = self.new_inode()
        self.rename_all(lambda: os.symlink(target, self.at(path)), lambda names: names.__setitem__(path, ("l", ino, 0o777, os.fsencode(target))))

    def link(self, path, other):
        self.rename_all(lambda: os.link(self.at(path), self.at(other)), lambda names: names.__setitem__(other, names[path]))

    def unlink(self, path):
        self.rename_all(lambda: os.unlink(self.at(path)), lambda names: names.pop(path))

    def rmdir(self, path):
        self.rename_all(lambda: os.rmdir(self.at(path)), lambda names: names.pop(path))

    def rename(self, path, other):
        def edit(names):
            moved = names[path]
            replaced = names.get(other)
            if replaced and replaced[1] == moved[1]:
                # Two names of one file: rename(2) does nothing.
                return
            for inner in [inner for inner in names if inner == path or inner.startswith(path + "/")]:
                names[other + inner[len(path) :]] = names.pop(inner)
            if replaced and moved[0] == "f":
                self.overs.append((len(self.shapes), moved[1], len(self.files[moved[1]].states) - 1))

        self.rename_all(lambda: os.rename(self.at(path), self.at(other)), edit)

    def change_inode(self, path, call, replace):
        def edit(names):
            ino = names[path][1]
            for inner, name in names.items():
                if name[1] == ino:
                    names[inner] = replace(name)

        self.rename_all(call, edit)

    def chmod(self, path, mode):
        self.change_inode(path, lambda: os.chmod(self.at(path), mode), lambda name: (name[0], name[1], mode, name[3]))

    def setxattr(self, path, value):
        self.change_inode(path, lambda: os.setxattr(self.at(path), XATTR, value), lambda name: (*name[:3], value))

    def write(self, path, offset, data):
        """One write; what is answered as written is what was written."""
        file = self.file(path)

        def put(start, length):
            file.write(start, offset, data[:length])

        descriptor = self.attempt(lambda: os.open(self.at(path), os.O_WRONLY))
        try:
            start = self.clock()
            # Should the mount die, all of it may be there.
            length = self.attempt_write(lambda: os.pwrite(descriptor, data, offset), lambda: put(start, len(data)))
            put(start, length)
        finally:
            self.close(descriptor)

    def attempt_write(self, call, maybe):
        try:
            return self.attempt(call)
        except Gone:
            maybe()
            raise

    def close(self, descriptor):
        try:
            os.close(descriptor)
        except OSError as error:
            # A failure to write back that nobody was told of: nothing was promised for it.
            self.errors[error.errno] = self.errors.get(error.errno, 0) + 1

    def truncate(self, path, size):
        file = self.file(path)

        def change(start):
            del file.content[size:]
            file.content.extend(bytes(size - len(file.content)))
            file.add(start)

        self.attempt(lambda: os.truncate(self.at(path), size), change)

    def set_time(self, path, nanoseconds):
        file = self.file(path)
        self.attempt(lambda: os.utime(self.at(path), ns=(nanoseconds, nanoseconds)), lambda start: file.add(start, nanoseconds))

    # What is answered for.

    def fsync(self, path, sync=os.fsync):
        index = len(self.shapes) - 1
        name = self.names[path]
        flags = os.O_RDONLY | os.O_DIRECTORY if name[0] == "d" else os.O_RDONLY
        descriptor = self.attempt(lambda: os.open(self.at(path), flags))
        try:
            self.attempt(lambda: sync(descriptor))
        finally:
            self.close(descriptor)
        position = self.clock()
        self.names_synced.append((position, index))
        if name[0] == "f":
            file = self.files[name[1]]
            file.synced.append((position, len(file.states) - 1))

    def append(self, stream, path, record):
        """Called by the thread of the stream: a record, and an fsync."""
        descriptor = self.attempt(lambda: os.open(self.at(path), os.O_WRONLY))
        try:
            end = stream.answered + len(record)
            stream.data[stream.answered :] = record
            stream.begun.append((self.clock(), end))
            length = self.attempt(lambda: os.pwrite(descriptor, record, stream.answered))
            stream.answered += length
            index = len(self.shapes) - 1
            self.attempt(lambda: os.fsync(descriptor))
            position = self.clock()
            stream.synced.append((position, stream.answered))
            self.names_synced.append((position, index))
        finally:
            self.close(descriptor)

    def all_durable(self, answered=None):
        """Everything answered before is durable: an unmount or a snapshot says so."""
        position = self.clock()
        self.names_synced.append((position, len(self.shapes) - 1))
        for file in self.files.values():
            file.synced.append((position, len(file.states) - 1))
        for ino, stream in self.streams.items():
            stream.synced.append((position, answered[ino] if answered is not None else stream.answered))

    def snapshot(self, name, call):
        snapshot = self.snapshots[name] = Snapshot(self)
        # Refused: it may be there or not, but if it is, it is whole.
        self.attempt(call)
        snapshot.made = self.clock()
        self.all_durable(snapshot.answered)

    def drop_snapshot(self, name, call):
        snapshot = self.snapshots[name]
        snapshot.drop_start = self.clock()
        self.attempt(call)
        snapshot.dropped = self.clock()

    def live_snapshots(self):
        return [name for name, snapshot in self.snapshots.items() if snapshot.made is not None and snapshot.drop_start is None]

    def answers(self):
        """Positions of all answers that something is durable."""
        return sorted({position for position, _ in self.names_synced})

    # What is found.

    def judge(self, found, snapshots, cut=0, exact=False):
        """What is wrong with a tree that was found after a crash at `cut`, and with snapshots if they were looked at. `exact`:
        nothing may be lost at all."""
        last = max(index for index, (start, _) in enumerate(self.shapes) if start <= cut)
        least = last if exact else max([index for position, index in self.names_synced if position <= cut], default=0)
        shape = {path: seen.shape() for path, seen in found.items()}
        nearest = None
        for index in range(last, least - 1, -1):
            names = self.shapes[index][1]
            wrong = names_differ(names, shape)
            if not wrong:
                wrong = self.contents_differ(index, names, found, cut, exact)
            if not wrong:
                nearest = []
                break
            if nearest is None or len(wrong) < len(nearest):
                nearest = [f"against names after change {index} (of {least} to {last}): {what}" for what in wrong]
        return nearest if snapshots is None else nearest + self.snapshots_differ(snapshots, cut)

    def contents_differ(self, index, names, found, cut, exact):
        wrong = []
        by_ino = {}
        for path, (kind, ino, _, _) in names.items():
            seen = found[path]
            if by_ino.setdefault(ino, seen.ino) != seen.ino:
                wrong.append(f"{path} is no longer the same file under its other name")
            if ino in self.streams:
                least, most = self.streams[ino].bounds(cut)
                wrong += stream_differs(path, self.streams[ino], seen, self.streams[ino].answered if exact else least, most)
            elif kind == "f":
                file = self.files[ino]
                lower = len(file.states) - 1 if exact else file.lower(cut)
                lower = max([lower] + [state for over, inode, state in self.overs if inode == ino and over <= index])
                wrong += file_differs(path, file.allowed(lower, cut), seen, file)
        if len(set(by_ino.values())) != len(by_ino):
            wrong.append("two files have become one")
        return wrong

    def snapshots_differ(self, snapshots, cut):
        wrong = [f"snapshot {name} was never taken" for name in snapshots if name not in self.snapshots]
        for name, snapshot in self.snapshots.items():
            there = name in snapshots
            made = snapshot.made is not None and snapshot.made <= cut
            if not there and made and (snapshot.drop_start is None or snapshot.drop_start > cut):
                wrong.append(f"snapshot {name} is missing")
            elif there and (snapshot.start > cut or (snapshot.dropped is not None and snapshot.dropped <= cut)):
                wrong.append(f"snapshot {name} is there")
            elif there:
                wrong += [f"snapshot {name}: {what}" for what in snapshot.differs(snapshots[name])]
        return wrong

    def adopted(self, found, snapshots):
        """A ledger that goes on from what was found; the mount that shows it has made it durable."""
        after = Ledger(self.clock)
        after.root = self.root
        start = after.clock()
        inodes = {}
        names = {}
        streams = {path for path, name in self.names.items() if name[1] in self.streams}
        for path, seen in found.items():
            if seen.ino not in inodes:
                inodes[seen.ino] = after.new_inode()
                if path in streams:
                    stream = after.streams[inodes[seen.ino]] = Stream()
                    stream.data = bytearray(seen.data)
                    stream.answered = len(seen.data)
                    stream.begun.append((start, stream.answered))
                elif seen.kind == "f":
                    after.files[inodes[seen.ino]] = File(start, seen.data)
            names[path] = (seen.kind, inodes[seen.ino], seen.mode, seen.extra)
        after.shapes = [(start, names)]
        # Those that are gone stay gone, and their names are not used again.
        for name, snapshot in self.snapshots.items():
            after.snapshots[name] = snapshot
            if name in snapshots:
                snapshot.made, snapshot.drop_start = start, None
            else:
                snapshot.drop_start, snapshot.dropped = start, start
        after.all_durable()
        return after


def names_differ(names, shape):
    wrong = [f"{path} is missing" for path in names if path not in shape]
    wrong += [f"{path} is there" for path in shape if path not in names]
    for path, (kind, _, mode, extra) in names.items():
        if path in shape and shape[path] != (kind, mode, extra):
            wrong.append(f"{path} is {shape[path]} in place of {(kind, mode, extra)}")
    return wrong


def stream_differs(path, stream, seen, least, most):
    if seen.data is None:
        return []
    length = len(seen.data)
    if seen.data != stream.data[:length]:
        return [f"{path} holds other bytes than were appended"]
    if not least <= length <= most:
        return [f"{path} has {length} bytes, and {least} to {most} are allowed"]
    return []


def file_differs(path, allowed, seen, file):
    if seen.data is None:
        return []
    digest = digest_of(seen.data)
    if any(state[1] == digest and state[3] in (None, seen.mtime) for state in allowed):
        return []
    # Of the first of them all is durable.
    if any(digest in state[4] for state in allowed[1:]):
        return []
    known = [index for index, state in enumerate(file.states) if state[1] == digest]
    was = f"what it held after write {known[-1]} of {len(file.states) - 1}" if known else "what it never held"
    first = file.states.index(allowed[0]) if allowed else None
    return [f"{path} ({len(seen.data)} bytes) holds {was}; {len(allowed)} states from write {first} on are allowed"]
