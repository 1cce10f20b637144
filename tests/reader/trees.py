"""Makes, changes and compares the trees of tests/reader/run.sh.

    trees.py make TREE          makes a tree of everything a filesystem can hold
    trees.py change TREE...     changes each of them in the same way, in place
    trees.py same TREE TREE     fails and says why if they differ
"""

import os
import random
import stat
import sys

MIB = 1 << 20


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def attribute(path, name, value):
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as why:
        print(f"skipped: {name} in the tree that the reader restores: {why.strerror}")


def make(top):
    chance = random.Random(1)
    os.makedirs(f"{top}/deep/er/still")
    os.chdir(top)
    write("empty", b"")
    write("inline", b"some words\n")
    write("inline-zeros", b"a" + bytes(1999))
    write("zeros", bytes(300_000))
    write("edge", chance.randbytes(2048))
    write("past-edge", chance.randbytes(2049))
    write("random", chance.randbytes(3 * MIB))
    write("text", b"".join(b"line %d of a text that compresses well\n" % number for number in range(50_000)))
    write("rewritten", chance.randbytes(2 * MIB))
    with open("sparse", "wb") as file:
        for offset in (5 * MIB + 17, 40 * MIB):
            file.seek(offset)
            file.write(chance.randbytes(150_000))
        file.truncate(50 * MIB)
    os.link("random", "deep/er/same-random")
    os.link("inline", "deep/same-inline")
    os.symlink("../random", "deep/link")
    os.symlink("nowhere/" + "x" * 4000, "dangling")
    os.link("dangling", "deep/same-dangling", follow_symlinks=False)
    os.mkfifo("fifo")
    if os.geteuid() == 0:
        os.mknod("null", stat.S_IFCHR | 0o640, os.makedev(1, 3))
        os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(0x123, 0x45678))
        os.chown("edge", 1234, 4_000_000_000)
        os.chown("dangling", 1, 2, follow_symlinks=False)
        attribute("edge", "trusted.vellum", b"\x00\xff")
    os.mkdir("names")
    os.chdir("names")
    # Every character with a case: the reader checks the cookie of each, and so what section 15 says on folding.
    for number in range(0x20, 0x10500):
        letter = chr(number)
        if (letter.upper(), letter.lower()) != (letter, letter):
            write(f"{letter}x", b"")
    write(b"\xff\xfeabc\xe2\x82z\xc3\xa9\xed\xa0\x80", b"no valid UTF-8")
    write("n" * 255, b"")
    os.chdir("..")
    attribute("inline", "user.empty", b"")
    attribute("inline", "user.some", chance.randbytes(2000))
    attribute("deep", "user.of a directory", b"value")
    # u::rw-, u:1234:rw-, g::r--, m::rw-, o::r--
    entries = [(1, 6, 0xFFFFFFFF), (2, 6, 1234), (4, 4, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
    words = [tag.to_bytes(2, "little") + mode.to_bytes(2, "little") + who.to_bytes(4, "little") for tag, mode, who in entries]
    attribute("past-edge", "system.posix_acl_access", b"\x02\0\0\0" + b"".join(words))
    os.chmod("text", 0o4751)
    os.chmod("deep/er", 0o3711)
    os.chmod("empty", 0o400)
    os.utime("zeros", ns=(1, -123_456_789_012_345_678))
    os.utime("edge", ns=(2, 9_999_999_999_000_000_001))
    os.utime("dangling", ns=(3, 4_000_000_000), follow_symlinks=False)
    for path in ("deep/er/still", "deep/er", "deep"):
        os.utime(path, ns=(1_600_000_000_000_000_000, 1_600_000_000_000_000_001))


def change(top):
    chance = random.Random(2)
    os.chdir(top)
    with open("rewritten", "r+b") as file:
        for _ in range(60):
            file.seek(chance.randrange(2 * MIB))
            file.write(chance.randbytes(5000))
    with open("random", "r+b") as file:
        file.seek(MIB + 1)
        file.write(b"a few bytes in the middle")
        file.truncate(3 * MIB - 1000)
    with open("sparse", "r+b") as file:
        file.truncate(5 * MIB + 1000)
        file.truncate(7 * MIB)
    with open("inline", "ab") as file:
        file.write(b"and more\n")
    with open("text", "r+b") as file:
        file.truncate(0)
        file.write(b"short again\n")
    os.chmod("text", 0o644)
    with open("past-edge", "ab") as file:
        file.write(bytes(100_000))
    os.unlink("zeros")
    os.rename("deep/er", "moved")
    os.unlink("moved/same-random")
    os.mkdir("new")
    write("new/file", b"new")
    for number, path in enumerate(["rewritten", "random", "sparse", "inline", "text", "past-edge", "deep", "new/file", "new", "moved", "."]):
        os.utime(path, ns=(number, 1_700_000_000_000_000_000 + number))


def everything(top):
    """Yields for every path its state, with the first name of its inode and without what each filesystem does its own way."""
    first = {}
    for directory, directories, files in os.walk(os.fsencode(top)):
        directories.sort()
        for name in sorted([b"."] + directories + files):
            path = os.path.join(directory, name)
            if name == b"." and directory != os.fsencode(top):
                continue
            short, one = os.path.relpath(path, os.fsencode(top)), os.lstat(path)
            state = {"mode": oct(one.st_mode), "owner": (one.st_uid, one.st_gid), "mtime": one.st_mtime_ns, "device": one.st_rdev}
            state["xattrs"] = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
            if stat.S_ISREG(one.st_mode):
                with open(path, "rb") as file:
                    state["content"] = file.read()
            elif stat.S_ISLNK(one.st_mode):
                state["target"] = os.readlink(path)
            if not stat.S_ISDIR(one.st_mode):
                state["links"] = one.st_nlink
                state["same file as"] = first.setdefault((one.st_dev, one.st_ino), short)
            yield short, state


def same(one, other):
    one, other = dict(everything(one)), dict(everything(other))
    differ = [f"only in one of them: {path}" for path in sorted(one.keys() ^ other.keys())]
    for path in sorted(one.keys() & other.keys()):
        for key in one[path]:
            if one[path][key] != other[path].get(key):
                differ.append(f"{path}: {key}: {one[path][key]!r:.200} and {other[path].get(key)!r:.200}")
    if differ or not one:
        sys.exit("\n".join(differ) or "nothing to compare")
    print(f"{len(one)} paths are the same")


def main():
    command, trees = sys.argv[1], [os.path.abspath(path) for path in sys.argv[2:]]
    if command == "same":
        same(*trees)
    for tree in trees if command != "same" else []:
        {"make": make, "change": change}[command](tree)


main()
