"""A disk for nbdkit's plugin for Python that records in a log, in order, what is written to it and when it is flushed.

    nbdkit python recorder.py disk=FILE log=FILE

The log is a row of records: a kind (W, Z or F), offset and length as 64 bits each, and behind a W that many bytes. A request
is answered after its record is in the log, and requests are answered one after the other: all that was written before an F
is durable with it.
"""

import os
import struct

API_VERSION = 2
RECORD = struct.Struct("<cQQ")
settings = {}


def config(key, value):
    settings[key] = value


def config_complete():
    for name in ("disk", "log"):
        if name not in settings:
            raise RuntimeError(f"{name}= is missing")


def get_ready():
    settings["disk_file"] = os.open(settings["disk"], os.O_RDWR)
    settings["log_file"] = os.open(settings["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def open(readonly):
    return 1


def get_size(handle):
    return os.fstat(settings["disk_file"]).st_size


def can_write(handle):
    return True


def can_flush(handle):
    return True


def can_zero(handle):
    return True


def can_trim(handle):
    return True


def note(kind, offset, length, data=b""):
    record = RECORD.pack(kind, offset, length) + data
    written = os.write(settings["log_file"], record)
    if written != len(record):
        raise RuntimeError("the log is on a full disk")


def pread(handle, buffer, offset, flags):
    data = os.pread(settings["disk_file"], len(buffer), offset)
    buffer[:] = data


def put(offset, data):
    while data:
        written = os.pwrite(settings["disk_file"], data, offset)
        data = data[written:]
        offset += written


def pwrite(handle, buffer, offset, flags):
    data = bytes(buffer)
    put(offset, data)
    note(b"W", offset, len(data), data)


def zero(handle, count, offset, flags):
    put(offset, bytes(count))
    note(b"Z", offset, count)


def trim(handle, count, offset, flags):
    zero(handle, count, offset, flags)


def flush(handle, flags):
    note(b"F", 0, 0)
