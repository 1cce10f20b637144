"""Data to measure with: the same on every run on one machine, from what the machine has or from seeded numbers."""

import hashlib
import math
import os
import random
import shutil
import subprocess
import zlib

# No file of the tree is larger: each is read at once.
FILE_MAX = 256 << 20
BLOCK = 4096


def installed_trees():
    """Directories with files that compress, the same for everybody who has the same packages installed."""
    roots = ["/usr/share", "/usr/include"]
    try:
        roots.append(subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        pass
    return [root for root in [*roots, "/usr/lib", "/usr/bin", "/opt"] if os.path.isdir(root)]


class Tree:
    """A copy of installed files and symbolic links in which no two files have the same content.

    Equal files are left out: deduplication within the first copy would otherwise help only one of the peers.
    """

    def __init__(self, directory, wanted):
        self.directory = directory
        self.wanted = wanted
        self.files = self.links = self.bytes = self.sampled = self.compressed = 0
        self.roots = []
        self.seen = set()
        for root in installed_trees():
            if self.bytes < wanted:
                before = self.bytes
                self.take(root)
                self.roots.append(f"{root} {(self.bytes - before) / 1e6:.0f} MB")
        self.seen.clear()

    def take(self, root):
        for parent, folders, files in os.walk(root):
            folders.sort()
            target = os.path.join(self.directory, parent.lstrip("/"))
            os.makedirs(target, exist_ok=True)
            for name in sorted(files):
                if self.bytes >= self.wanted:
                    return
                self.take_file(os.path.join(parent, name), os.path.join(target, name))

    def take_file(self, path, target):
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            self.links += 1
            return
        try:
            if not os.path.isfile(path) or os.path.getsize(path) > min(FILE_MAX, self.wanted // 4):
                return
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            return
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest in self.seen:
            return
        self.seen.add(digest)
        with open(target, "wb") as file:
            file.write(content)
        shutil.copystat(path, target)
        self.files += 1
        self.bytes += len(content)
        # A block of every sixteenth file tells how well they compress, in no time.
        if self.files % 16 == 0:
            self.sampled += len(content[:65536])
            self.compressed += len(zlib.compress(content[:65536], 1))

    def text(self):
        ratio = self.sampled / max(self.compressed, 1)
        short = "" if self.bytes >= self.wanted else f" (the machine has no more; {self.wanted / 1e9:.1f} GB were wanted)"
        return (f"{self.bytes / 1e9:.3f} GB in {self.files} files, all different, and {self.links} symbolic links{short}; "
                f"samples compress {ratio:.1f}:1 (zlib 1); from {', '.join(self.roots)}")


def warm(directory):
    """Reads everything below once."""
    for parent, _, files in os.walk(directory):
        for name in files:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                with open(path, "rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass


class Numbers:
    """Seeded content: random bytes, which do not compress, or their hexadecimal digits, which do 2:1."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def bytes(self, count, compressible=False):
        if compressible:
            return self.random.randbytes(count // 2 + 1).hex().encode()[:count]
        return self.random.randbytes(count)

    def blocks(self, count, compressible=False, step=8 << 20):
        """The same in pieces, for files that are not to be held in memory."""
        while count > 0:
            piece = self.bytes(min(step, count), compressible)
            count -= len(piece)
            yield piece

    def size(self, smallest, largest):
        """A size of any order of magnitude, each as likely as the other."""
        return int(math.exp(self.random.uniform(math.log(smallest), math.log(largest))))


def write_file(path, blocks):
    with open(path, "wb", buffering=0) as file:
        for block in blocks:
            file.write(block)


def write_mixed(directory, total, seed, one_file=False):
    """Writes files of `total` bytes: 5 % in files below 64 KiB, 20 % below 1 MiB, the rest up to 256 MiB; every other
    file compresses. With `one_file`, all of it in one. Returns how many files there are."""
    numbers, count = Numbers(seed), 0
    shares = [(total, total, total)] if one_file else [
        (total // 20, 1, 64 << 10), (total // 5, 64 << 10, 1 << 20), (total - total // 20 - total // 5, 1 << 20, 256 << 20)]
    for left, smallest, largest in shares:
        while left > 0:
            size = min(numbers.size(smallest, largest), left)
            folder = os.path.join(directory, f"{count // 1000:03}")
            os.makedirs(folder, exist_ok=True)
            write_file(os.path.join(folder, f"{count}"), numbers.blocks(size, compressible=count % 2 == 1))
            left -= size
            count += 1
    return count


def write_small(directory, count, size=100):
    """Writes `count` files of `size` bytes, a thousand to a directory, each with content of its own."""
    for number in range(count):
        if number % 1000 == 0:
            folder = os.path.join(directory, f"{number // 1000:03}")
            os.makedirs(folder, exist_ok=True)
        handle = os.open(os.path.join(folder, f"file-{number}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(handle, (f"{number:09} " * (size // 10 + 1))[:size].encode())
        os.close(handle)
