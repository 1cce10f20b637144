#!/usr/bin/env python3
"""Reads vellum repositories. Written from docs/format.md alone, to show that the document suffices; it shares no code with vellum.

It reads the state of a volume's newest head, or a snapshot, and replays no journal: what was written since that head does not show.
Section numbers in this file are those of the document. Whatever a section says a reader checks is checked, and the first thing that
is wrong ends the run with `refused:` and exit code 1.
"""

import argparse
import hmac
import io
import os
import re
import stat
import struct
import sys
import unicodedata

import zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from Cryptodome.Cipher import ChaCha20_Poly1305

DATA, NODE, TRAILER, TAIL, SEGMENT, MANIFEST, HEAD = range(1, 8)
SEALS = [None, "data", "node", "pack-trailer", "pack-tail", "segment", "manifest", "head"]
MIB = 1 << 20
FILE, DIRECTORY, SYMLINK, FIFO, CHARACTER, BLOCK, SOCKET = range(1, 8)
TYPES = [0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK]
INODE, BODY, DIRENT, PARENT, XATTR, EXTENT, CHANGE, ORPHAN, VOLUME = range(1, 10)


class Refused(Exception):
    """The repository says something that the format does not allow, or the key does not fit."""


def need(condition, what):
    if not condition:
        raise Refused(what)


def derive(context, material):
    return blake3(material, derive_key_context="vellum v1 " + context).digest()


def padme(length):
    exponent = length.bit_length() - 1
    unit = 1 << max(exponent - exponent.bit_length(), 0)
    return -(-length // unit) * unit


def string(data):
    return struct.pack("<I", len(data)) + data


class Fields:
    """Takes the fields of a record one after the other (section 1)."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, size):
        need(size <= len(self.data) - self.at, f"{self.what}: too short")
        self.at += size
        return self.data[self.at - size : self.at]

    def rest(self):
        return self.take(len(self.data) - self.at)

    def number(self, size, limit=None, order="little"):
        value = int.from_bytes(self.take(size), order)
        need(limit is None or value <= limit, f"{self.what}: a number is too large")
        return value

    def equal(self, value, what):
        need(self.take(len(value)) == value, f"{self.what}: {what} is wrong")

    def zeros(self, size):
        self.equal(bytes(size), "a reserved byte")

    def version(self, size):
        version = self.number(size)
        need(version == 0, f"{self.what}: version {version}; this reader knows version 0")

    def end(self):
        need(self.at == len(self.data), f"{self.what}: too long")

    def uvar(self, limit=(1 << 64) - 1):
        value = 0
        for place in range(10):
            byte = self.number(1)
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                need((byte or not place) and value <= limit, f"{self.what}: a uvar is not valid")
                return value
        raise Refused(f"{self.what}: a uvar is too long")

    def ivar(self):
        value = self.uvar()
        return (value >> 1) ^ -(value & 1)

    def time(self):
        return self.ivar() * 10**9 + self.number(4, 10**9 - 1)

    def string(self, limit):
        return self.take(self.number(4, limit))


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def read_named(path):
    """Reads a file whose name is the hash of its content."""
    data = read_file(path)
    need(blake3(data).hexdigest() == os.path.basename(path), f"{path}: the name is not the hash of the content")
    return data


def copies(path):
    """The three copies of a file that section 2 keeps three times; those that can be read."""
    for suffix in ("", ".1", ".2"):
        try:
            yield read_file(path + suffix)
        except OSError:
            pass


class Slot:
    """A key slot (section 4)."""

    def __init__(self, data, name, repository):
        need(len(data) == 432 and blake3(data[:400]).digest() == data[400:], f"slot {name}: damaged")
        self.data = data
        fields = Fields(data, f"slot {name}")
        fields.equal(b"vellumKS", "the magic")
        fields.version(4)
        self.kind = fields.number(1)
        fields.zeros(3)
        fields.equal(repository, "the repository id")
        self.salt = fields.take(16)
        self.memory, self.passes, self.lanes = (fields.number(4) for _ in range(3))
        fields.zeros(4)
        if self.kind == 1:
            need(1 <= self.lanes <= 16 and 1 <= self.passes <= 64, f"slot {name}: derivation out of bounds")
            need(8 * self.lanes <= self.memory <= 4 * MIB, f"slot {name}: memory out of bounds")
            need(self.memory * self.passes <= 64 * MIB, f"slot {name}: derivation too dear")
        else:
            need(self.kind in (2, 3), f"slot {name}: kind {self.kind} is not known")
            need(self.memory == self.passes == self.lanes == 0, f"slot {name}: derivation without a passphrase")
        fields.take(8)
        fields.equal(bytes([len(name)]) + name.encode().ljust(63, b"\0"), "the name")
        length = fields.number(1, 127)
        need(not any(fields.take(127)[length:]), f"slot {name}: the label is not padded with zeros")

    def open(self, secret):
        """Gives the master key and the key epoch, or nothing if the secret is not the slot's."""
        data = self.data
        if self.kind == 1:
            key = hash_secret_raw(secret, self.salt, self.passes, self.memory, self.lanes, 32, Type.ID, version=0x13)
        else:
            key = derive("slot-key-file" if self.kind == 2 else "slot-recovery", self.salt + secret)
        if not hmac.compare_digest(derive("slot-commit", key), data[264:296]):
            return None
        cipher = ChaCha20_Poly1305.new(key=derive("slot-seal", key), nonce=data[296:320])
        cipher.update(data[:296])
        try:
            plain = cipher.decrypt_and_verify(data[320:384], data[384:400])
        except ValueError:
            raise Refused("a slot's commitment fits, but its tag does not") from None
        need(not any(plain[36:]), "a slot: a reserved byte is wrong")
        return plain[:32], int.from_bytes(plain[32:36], "little")


def recovery_code(text):
    """The 20 bytes of a recovery code (section 4)."""
    text = re.sub(r"[\s-]", "", text).upper().translate(str.maketrans("OIL", "011"))
    value = 0
    for character in text:
        digit = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(character)
        need(digit >= 0, "a recovery code has no such character")
        value = value << 5 | digit
    need(len(text) == 32, "a recovery code has 32 characters")
    return value.to_bytes(20, "big")


class Repository:
    def __init__(self, path, secrets):
        self.path = path
        self.places = {}
        self.keys = {}
        self.unlock(secrets)

    def file(self, *names):
        return os.path.join(self.path, *names)

    def unlock(self, secrets):
        """Opens a slot, and verifies the configuration with what was in it (sections 3 and 4)."""
        opened, why = {}, "config: no copy can be read"
        for data in copies(self.file("config")):
            try:
                need(len(data) == 256 and blake3(data[:224]).digest() == data[224:], "config: damaged")
                fields = Fields(data, "config")
                fields.equal(b"vellumRC", "the magic")
                fields.version(4)
                fields.equal(struct.pack("<I", 256), "the length")
                self.id = fields.take(16)
                if self.id not in opened:
                    opened[self.id] = self.open_slot(secrets)
                self.master, self.epoch = opened[self.id]
                code = blake3(data[:192], key=self.key("config-mac")).digest()
                need(hmac.compare_digest(code, data[192:224]), "config: its code is wrong")
                need(not any(data[35:36] + data[52:56] + data[64:192]), "config: a reserved byte is wrong")
                return
            except Refused as refused:
                why = str(refused)
        raise Refused(why)

    def open_slot(self, secrets):
        names = {re.sub(r"\.[12]$", "", name) for name in os.listdir(self.file("keys"))}
        names = sorted(name for name in names if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,47}", name))
        need(len(names) <= 64, "keys: more than 64 slots")
        slots = []
        for name in names:
            for data in copies(self.file("keys", name)):
                try:
                    slots.append(Slot(data, name, self.id))
                    break
                except Refused as refused:
                    warn(refused)
        for slot in sorted(slots, key=lambda slot: slot.memory * slot.passes):
            opened = slot.open(secrets[slot.kind]) if slot.kind in secrets else None
            if opened:
                return opened
        raise Refused("no slot opens with what was given")

    def key(self, context, epoch=0):
        if (context, epoch) not in self.keys:
            self.keys[context, epoch] = derive(context, self.master + struct.pack("<I", epoch))
        return self.keys[context, epoch]

    def unseal(self, purpose, extra, data, what, epoch=None):
        """Gives the plaintext and the epoch it was sealed in (section 6)."""
        need(len(data) >= 40, f"{what}: too short")
        need(epoch is None or epoch <= self.epoch, f"{what}: key epoch {epoch} is not known")
        for number in range(self.epoch, -1, -1) if epoch is None else [epoch]:
            cipher = ChaCha20_Poly1305.new(key=self.key(SEALS[purpose] + "-seal", number), nonce=data[:24])
            cipher.update(struct.pack("<I16sBI", 0, self.id, purpose, number) + extra)
            try:
                return cipher.decrypt_and_verify(data[24:-16], data[-16:]), number
            except ValueError:
                pass
        raise Refused(f"{what}: its tag is wrong")

    # Where blobs lie

    def pack_path(self, name):
        return self.file("packs", name[:2], name)

    def use_trailers(self):
        """Lists the packs from their trailers (section 8)."""
        for start in sorted(os.listdir(self.file("packs"))):
            for name in sorted(os.listdir(self.file("packs", start))) if re.fullmatch("[0-9a-f]{2}", start) else []:
                if re.fullmatch("[0-9a-f]{64}", name) and name.startswith(start):
                    try:
                        self.pack(name)
                    except Refused as refused:
                        warn(refused)

    def pack(self, name):
        what = f"pack {name}"
        with open(self.pack_path(name), "rb") as file:
            length = file.seek(0, os.SEEK_END)
            need(96 < length <= 1 << 30, f"{what}: its length is out of bounds")
            file.seek(length - 96)
            tail, epoch = self.unseal(TAIL, struct.pack("<Q", length), file.read(96), what + ": tail")
            fields = Fields(tail, what)
            fields.equal(b"VPAK", "the magic")
            fields.version(2)
            kind = fields.number(1)
            need(kind in (DATA, NODE), f"{what}: no such kind")
            fields.zeros(1)
            salt, total, count = fields.take(16), fields.number(4), fields.number(4, MIB)
            fields.zeros(24)
            size = 44 * count + 40
            need(padme(total + size + 96) == length, f"{what}: its length does not fit its content")
            file.seek(length - 96 - size)
            extra = salt + struct.pack("<QII", length, total, count)
            trailer, _ = self.unseal(TRAILER, extra, file.read(size), what + ": trailer", epoch)
        offset, places = 0, []
        for blob, sealed, plain, epoch in struct.iter_unpack("<32sIII", trailer):
            need(41 <= sealed <= 16 * MIB + 45, f"{what}: the length of a blob is out of bounds")
            places.append(((kind, blob), (name, offset, sealed, plain, epoch)))
            offset += sealed
        need(offset == total, f"{what}: the lengths of its blobs do not add up")
        for key, place in places:
            self.places.setdefault(key, []).append(place)

    def use_index(self, manifest):
        """Reads the segments that a manifest names (section 10)."""
        deleted = set()
        for segment in reversed(self.manifest(manifest)):
            deleted |= self.segment(segment)
        for key, places in self.places.items():
            self.places[key] = [place for place in places if place[0] not in deleted]

    def manifest(self, name):
        """The live segments that a manifest names (section 11)."""
        what = f"manifest {name}"
        data = read_named(self.file("manifests", name))
        need(len(data) % 4096 == 0, f"{what}: its length is wrong")
        fields = Fields(self.unseal(MANIFEST, b"", data, what)[0], what)
        fields.equal(b"VLMM", "the magic")
        fields.version(4)
        fields.number(8)
        segments, volumes = fields.number(4, 65536), fields.number(4, 4096)
        segments = [fields.take(32).hex() for _ in range(segments)]
        self.volumes = [fields.string(64) for _ in range(volumes)]
        need(not any(fields.rest()), f"{what}: its padding is not zeros")
        return segments

    def segment(self, name):
        """Adds the places of a segment behind those known; gives the packs that it declares deleted."""
        what = f"segment {name}"
        data = read_named(self.file("index", name))
        tail, epoch = self.unseal(SEGMENT, struct.pack("<Q", len(data)), data[-104:], what + ": tail")
        fields = Fields(tail, what)
        fields.equal(b"VSEG", "the magic")
        fields.version(2)
        fields.zeros(2)
        salt, entries, blocks = fields.take(16), fields.number(8, 1 << 32), fields.number(4)
        packs, deleted = fields.number(4), fields.number(4)
        fields.zeros(20)
        need((entries == 0) == (blocks == 0) == (packs == 0), f"{what}: its counts do not fit")
        sections, page = [], 0
        for number, unit, each, count in (
            (1, 48, 84, entries), (2, 64, 63, blocks), (3, 8, 507, -(-entries // 84)), (4, 56, 72, packs), (5, 32, 126, deleted),
        ):
            units = []
            for index in range(-(-count // each)):
                extra = salt + struct.pack("<BI", number, index)
                sealed = data[4096 * page : 4096 * page + 4096]
                plain, _ = self.unseal(SEGMENT, extra, sealed, f"{what}: page {page}", epoch)
                here = min(each, count - index * each)
                units += [plain[at : at + unit] for at in range(0, here * unit, unit)]
                need(not any(plain[here * unit :]), f"{what}: a page is not padded with zeros")
                page += 1
            sections.append(units)
        need(len(data) == padme(4096 * page + 104), f"{what}: its length does not fit its counts")
        entries, blocks, fences, packs, deleted = sections
        rows = [struct.unpack("<32sIBxxxIxxxxQ", row) for row in packs]
        sums, before = [[0, 0] for _ in rows], b""
        for number, entry in enumerate(entries):
            blob, row, offset, sealed, plain = struct.unpack("<32sIIII", entry)
            need(before <= blob and row < len(rows), f"{what}: an entry is out of place")
            before = blob
            pack, key_epoch, kind, _, _ = rows[row]
            self.places.setdefault((kind, blob), []).append((pack.hex(), offset, sealed, plain, key_epoch))
            sums[row][0] += 1
            sums[row][1] += sealed
            first, second = int.from_bytes(blob[:8], "big"), int.from_bytes(blob[8:16], "little")
            block = int.from_bytes(blocks[first * len(blocks) >> 64], "little")
            need(all(block >> (second >> 9 * i) % 512 & 1 for i in range(6)), f"{what}: the filter lacks an id")
            need(number % 84 or fences[number // 84] == blob[7::-1], f"{what}: the fence is wrong")
        need([list(row[3:]) for row in rows] == sums, f"{what}: the sums of a pack are wrong")
        return {pack.hex() for pack in deleted}

    def blob(self, kind, blob):
        """Reads a blob from any of its places (section 7)."""
        why = f"blob {blob.hex()}: it lies nowhere"
        for place in self.places.get((kind, blob), []):
            try:
                return self.blob_at(kind, blob, place)
            except (Refused, OSError) as refused:
                why = str(refused)
        raise Refused(why)

    def blob_at(self, kind, blob, place):
        name, offset, size, length, epoch = place
        what = f"blob {blob.hex()} in pack {name}"
        with open(self.pack_path(name), "rb") as file:
            file.seek(offset)
            fields = Fields(self.unseal(kind, blob, file.read(size), what, epoch)[0], what)
        codec = fields.number(1, 1)
        need(fields.number(4, 16 * MIB) == length, f"{what}: its length is not the listed one")
        body = fields.rest()
        if codec == 1:
            try:
                reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True)
                body = reader.read(length + 1)
            except zstandard.ZstdError as error:
                raise Refused(f"{what}: {error}") from None
        need(len(body) == length, f"{what}: its length is wrong")
        key = self.key("data-id" if kind == DATA else "node-id")
        need(blake3(body, key=key).digest() == blob, f"{what}: its content has another id")
        return body

    # Heads

    def head(self, volume):
        """Gives the newest head of a volume (section 12) as tree root, operation sequence, manifest, and the hashes of the heads before it."""
        names = sorted(name for name in os.listdir(self.file("heads", volume)) if re.fullmatch("[0-9a-f]{16}", name))
        need(names, f"volume {volume}: no head")
        hashes = {}
        for name in names:
            sequence = int(name, 16)
            what = f"head {sequence} of {volume}"
            data = read_file(self.file("heads", volume, name))
            need(len(data) == 1024, f"{what}: its length is wrong")
            body, epoch = self.unseal(HEAD, string(volume.encode()) + struct.pack("<Q", sequence), data, what)
            fields = Fields(body, what)
            fields.equal(b"VLMH", "the magic")
            fields.version(4)
            fields.number(4)
            fields.equal(struct.pack("<IQ", epoch, sequence), "the epoch or sequence")
            previous, root, operation = fields.take(32), fields.take(32), fields.number(8)
            fields.take(16)
            manifest = fields.take(32).hex()
            fields.take(24)
            fields.zeros(816)
            need((previous == bytes(32)) == (sequence == 1), f"{what}: the head before it is wrong")
            need(hashes.get(sequence - 1, previous) == previous, f"{what}: it names another head before it")
            hashes[sequence] = blake3(data).digest()
        return root, operation, manifest, {number: hashed for number, hashed in hashes.items() if number < sequence}


class Tree:
    """The records of a volume or a snapshot (section 15)."""

    def __init__(self, repository, root):
        self.repository, self.root, self.nodes = repository, root, {}

    def cells(self, blob, level):
        if blob not in self.nodes:
            if len(self.nodes) >= 4096:
                self.nodes.clear()
            what = f"node {blob.hex()}"
            data = self.repository.blob(NODE, blob)
            need(len(data) <= 32768, f"{what}: too long")
            fields = Fields(data, what)
            fields.equal(b"\x4e\x00", "the magic or format")
            own = fields.number(1, 15)
            fields.zeros(1)
            count = fields.number(2)
            fields.zeros(2)
            cells = []
            for _ in range(count):
                sizes = fields.number(2, 272), fields.number(2, 8192)
                cells.append((fields.take(sizes[0]), fields.take(sizes[1])))
                need(len(cells) < 2 or cells[-2][0] < cells[-1][0], f"{what}: its keys do not ascend")
            fields.end()
            need(count or blob == self.root, f"{what}: empty")
            need(not own or all(len(value) == 32 for _, value in cells), f"{what}: a child's id is wrong")
            need(not own or (cells and cells[0][0] == b""), f"{what}: its first bound is wrong")
            self.nodes[blob] = own, cells
        own, cells = self.nodes[blob]
        need(level is None or own == level, f"node {blob.hex()}: its level is {own} and not {level}")
        return own, cells

    def scan(self, prefix, blob=None, level=None, low=b"", high=None):
        """Yields the records whose keys start with `prefix`, in order."""
        level, cells = self.cells(blob or self.root, level)
        for number, (key, value) in enumerate(cells):
            bound = cells[number + 1][0] if number + 1 < len(cells) else high
            if level:
                if key <= prefix or key.startswith(prefix):
                    if bound is None or bound > prefix:
                        yield from self.scan(prefix, value, level - 1, max(key, low), bound)
            else:
                need(key >= low and (high is None or key < high), "a record lies outside the bounds of its node")
                if key.startswith(prefix):
                    yield key[len(prefix) :], value

    def records(self, inode, kind):
        return self.scan(struct.pack(">QB", inode, kind))

    def record(self, inode, kind, subkey=b""):
        found = [value for rest, value in self.scan(struct.pack(">QB", inode, kind) + subkey) if not rest]
        return found[0] if found else None

    def snapshots(self):
        """Yields name, root and comment of the snapshots that are not deleted."""
        for subkey, value in self.scan(struct.pack(">QBB", 0, VOLUME, 4)):
            number = struct.unpack("<xQ", value)[0]
            fields = Fields(self.record(0, VOLUME, struct.pack(">BQ", 3, number)) or b"", f"snapshot {number}")
            fields.version(1)
            root, taken, _, flags = fields.take(32), fields.time(), fields.uvar(), fields.number(1, 3)
            fields.equal(string(subkey), "the name")
            comment = fields.string(4096)
            if flags & 1:
                fields.time()
            else:
                yield subkey, root, comment
            fields.end()

    def operation(self):
        fields = Fields(self.record(0, VOLUME, b"\x01") or b"", "state of the volume")
        fields.version(1)
        fields.uvar()
        return fields.uvar()

    def attributes(self, inode):
        value = self.record(inode, INODE)
        need(value is not None, f"inode {inode}: missing")
        return Attributes(inode, value)

    def entries(self, directory):
        """Yields name, inode and kind of what is in a directory."""
        for cookie, value in self.records(directory, DIRENT):
            fields = Fields(value, f"an entry of directory {directory}")
            child, kind, name = fields.uvar((1 << 63) - 1), fields.number(1, SOCKET), fields.rest()
            need(1 <= len(name) <= 255 and not re.search(rb"[/\0]", name) and name not in (b".", b".."), "a name is not valid")
            known = name.isascii() or unicodedata.unidata_version == "14.0.0"
            need(not known or int.from_bytes(cookie, "big") >> 16 == self.cookie(name), f"{name!r}: its cookie is wrong")
            yield name, child, kind

    def cookie(self, name):
        key = self.repository.key("dirent-name")
        return int.from_bytes(blake3(fold(name), key=key).digest()[:8], "little") % (1 << 47) or 1

    def find(self, path):
        inode = 1
        for part in path.split(b"/"):
            if part not in (b"", b"."):
                found = [child for name, child, _ in self.entries(inode) if name == part]
                need(found, f"{os.fsdecode(path)}: not found")
                inode = found[0]
        return inode

    def extents(self, inode):
        """Yields offset, length, blob, where in it the extent starts, and the blob's length."""
        end = 0
        for key, value in self.records(inode, EXTENT):
            offset, fields = int.from_bytes(key, "big"), Fields(value, f"an extent of inode {inode}")
            blob, length = fields.take(32), fields.uvar((1 << 63) - 1 - offset)
            start, whole = (0, length) if fields.at == len(value) else (fields.uvar(), fields.uvar())
            fields.end()
            need(offset >= end and 0 < length <= whole - start <= 16 * MIB, f"inode {inode}: an extent is out of bounds")
            end = offset + length
            yield offset, length, blob, start, whole

    def content(self, inode, attributes):
        """Yields the pieces of a file that are not holes, as offset and bytes."""
        body, allocated = self.record(inode, BODY), 0
        if body is not None:
            allocated = len(body)
            yield 0, body[: attributes.size]
        for offset, length, blob, start, whole in self.extents(inode):
            need(body is None, f"inode {inode}: both a body and extents")
            allocated += length
            if offset < attributes.size:
                data = self.repository.blob(DATA, blob)
                need(len(data) == whole, f"inode {inode}: a blob has another length than its extent says")
                yield offset, data[start : start + min(length, attributes.size - offset)]
        need(allocated == attributes.allocated, f"inode {inode}: another allocated length than its content has")

    def xattrs(self, inode):
        values = {}
        for key, value in self.records(inode, XATTR):
            name, part = key[:-2], key[-1]
            need(key[-2:-1] == b"\0" and 1 <= len(name) <= 255, f"inode {inode}: the name of an attribute is wrong")
            length, parts = values.setdefault(name, (None, []))
            if part == 0:
                fields = Fields(value, "an extended attribute")
                values[name] = length, parts = fields.uvar(65536), []
                value = fields.rest()
            need(part == len(parts) and length is not None, f"inode {inode}: a part of an attribute is missing")
            parts.append(value)
        for name, (length, parts) in values.items():
            sizes = [min(8000, length - at) for at in range(0, max(length, 1), 8000)]
            need([len(part) for part in parts] == sizes, f"inode {inode}: the length of an attribute is wrong")
            yield name, b"".join(parts)


def fold(name):
    """Folds a name as its hash wants it (section 15, DIRENT)."""
    folded = ""
    for character in name.decode("utf-8", "surrogateescape"):
        # Where the full upper case has several characters, the title case is the simple upper case, if there is one.
        upper = [form for form in (character.upper(), character.title()) if len(form) == 1 and ord(character) < 0x10000]
        folded += upper[0] if upper else character
    return folded.encode("utf-8", "surrogateescape")


class Attributes:
    """An INODE record (section 15)."""

    def __init__(self, inode, value):
        fields = Fields(value, f"inode {inode}")
        self.kind = fields.number(1, 31) & 15
        need(FILE <= self.kind <= SOCKET, f"inode {inode}: no such kind")
        self.mode = fields.number(2, 0o7777) | TYPES[self.kind]
        codes = fields.number(1, 63)
        self.uid, self.gid, self.links = (fields.uvar((1 << 32) - 1) for _ in range(3))
        self.size, self.allocated = fields.uvar((1 << 63) - 1), fields.uvar()
        device = fields.uvar()
        self.device = os.makedev(device >> 32, device & 0xFFFFFFFF)
        need(fields.uvar() < 16 and fields.uvar() == 0, f"inode {inode}: flags or generation")
        fields.uvar((1 << 63) - 1)
        fields.take(8)
        times = [fields.time()]
        for place in range(3):
            code, birth, last = codes >> 2 * place & 3, times[0], times[-1]
            time = [fields.time, lambda: birth, lambda: last, lambda: birth + fields.ivar()][code]()
            right = 1 if time == birth else 2 if place and time == last else 3 if abs(time - birth) < 1 << 47 else 0
            need(code == right, f"inode {inode}: a time has the wrong code")
            times.append(time)
        self.btime, self.ctime, self.mtime, self.atime = times
        fields.end()


class Restorer:
    """Writes a file or a tree below a new name, with all that the kernel lets this user set."""

    def __init__(self, tree):
        self.tree, self.written, self.links = tree, {}, {}

    def restore(self, inode, target):
        attributes = self.tree.attributes(inode)
        if inode in self.written:
            os.link(self.written[inode], target, follow_symlinks=False)
            self.links[inode] += 1
            return
        if attributes.kind == DIRECTORY:
            os.mkdir(target, 0o700)
            directories = 0
            for name, child, kind in self.tree.entries(inode):
                need(kind == self.tree.attributes(child).kind, f"inode {child}: its entry says another kind")
                directories += kind == DIRECTORY
                self.restore(child, os.path.join(target, name))
            need(attributes.links == 2 + directories, f"inode {inode}: its number of links is wrong")
        elif attributes.kind == FILE:
            with open(target, "xb") as file:
                file.truncate(attributes.size)
                for offset, data in self.tree.content(inode, attributes):
                    file.seek(offset)
                    file.write(data)
        elif attributes.kind == SYMLINK:
            link = self.tree.record(inode, BODY) or b""
            need(len(link) == attributes.size, f"inode {inode}: the length of a target is wrong")
            os.symlink(link, target)
        else:
            os.mknod(target, attributes.mode, attributes.device)
        if attributes.kind != DIRECTORY:
            self.written[inode], self.links[inode] = target, 1
        self.set(inode, target, attributes)

    def set(self, inode, target, attributes):
        if os.geteuid() == 0:
            os.chown(target, attributes.uid, attributes.gid, follow_symlinks=False)
        if attributes.kind != SYMLINK:
            os.chmod(target, stat.S_IMODE(attributes.mode))
        for name, value in self.tree.xattrs(inode):
            os.setxattr(target, name, value, follow_symlinks=False)
        os.utime(target, ns=(attributes.atime, attributes.mtime), follow_symlinks=False)


def cat(tree, inode, out):
    attributes = tree.attributes(inode)
    need(attributes.kind == FILE, f"inode {inode}: no regular file")
    at = 0
    for offset, data in list(tree.content(inode, attributes)) + [(attributes.size, b"")]:
        while at < offset:
            at += out.write(bytes(min(offset - at, MIB)))
        at += out.write(data)


def ls(tree, inode, out):
    attributes = tree.attributes(inode)
    listed = tree.entries(inode) if attributes.kind == DIRECTORY else [(b".", inode, attributes.kind)]
    for name, child, _ in sorted(listed):
        one = tree.attributes(child)
        line = f"{stat.filemode(one.mode)} {one.links} {one.uid} {one.gid} {one.size} {one.mtime} "
        out.write(line.encode() + name + b"\n")


def xattrs(tree, inode, out):
    for name, value in tree.xattrs(inode):
        out.write(name + b" " + value.hex().encode() + b"\n")


def places(tree, inode, out):
    for offset, length, blob, _, _ in tree.extents(inode):
        for pack, start, size, _, _ in tree.repository.places.get((DATA, blob), []):
            path = os.path.relpath(tree.repository.pack_path(pack), tree.repository.path)
            out.write(f"{offset} {length} {path} {start} {size}\n".encode())


def warn(what):
    print(f"warning: {what}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description="Reads a vellum repository by its documented format.")
    parser.add_argument("repository")
    parser.add_argument("--passphrase-file", metavar="F", help="its first line is the passphrase")
    parser.add_argument("--key-file", metavar="F")
    parser.add_argument("--recovery-file", metavar="F", help="holds a recovery code")
    parser.add_argument("--volume", metavar="V", help="needed if there are several")
    parser.add_argument("--snapshot", metavar="NAME", help="read this snapshot, not the newest state")
    parser.add_argument("--no-index", action="store_true", help="list the packs from their trailers instead of reading the index")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ls").add_argument("path", nargs="?", default="/")
    commands.add_parser("cat").add_argument("path")
    commands.add_parser("xattrs", help="list names and values (in hex) of extended attributes").add_argument("path")
    listed = commands.add_parser("places", help="list offset and length of a file's extents, and pack, offset and length of their blobs")
    listed.add_argument("path")
    restore = commands.add_parser("restore", help="restore a file or a whole tree under a new name")
    restore.add_argument("path")
    restore.add_argument("target")
    commands.add_parser("snapshots", help="list names and comments of the snapshots")
    given = parser.parse_args()
    out = sys.stdout.buffer

    secrets = {}
    if given.passphrase_file:
        secrets[1] = read_file(given.passphrase_file).split(b"\n")[0].rstrip(b"\r")
    if given.key_file:
        secrets[2] = read_file(given.key_file)
    if given.recovery_file:
        secrets[3] = recovery_code(read_file(given.recovery_file).decode("ascii", "replace"))
    repository = Repository(given.repository, secrets)
    volumes = [given.volume] if given.volume else os.listdir(repository.file("heads"))
    need(len(volumes) == 1, f"--volume is needed: there are {' '.join(sorted(volumes))}")
    root, operation, manifest, heads = repository.head(volumes[0])
    if given.no_index:
        repository.use_trailers()
    else:
        repository.use_index(manifest)
    tree = Tree(repository, root)
    need(tree.operation() == operation, "head and tree differ in the operation sequence")
    for sequence, hashed in heads.items():
        known = tree.record(0, VOLUME, struct.pack(">BQ", 2, sequence))
        need(known == b"\0" + hashed, f"head {sequence} is not the one that the tree names")
    snapshots = {name: (root, comment) for name, root, comment in tree.snapshots()}
    if given.command == "snapshots":
        for name, (_, comment) in snapshots.items():
            out.write(name + b"\t" + comment + b"\n")
        return
    if given.snapshot is not None:
        name = os.fsencode(given.snapshot)
        need(name in snapshots, f"no snapshot {given.snapshot}")
        tree = Tree(repository, snapshots[name][0])
    inode = tree.find(os.fsencode(given.path))
    if given.command == "restore":
        Restorer(tree).restore(inode, os.fsencode(given.target))
    else:
        {"cat": cat, "ls": ls, "xattrs": xattrs, "places": places}[given.command](tree, inode, out)


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError) as why:
        sys.exit(f"refused: {why}")
