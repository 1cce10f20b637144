"""Filesystems that are measured, each mounted by a process of ours whose end and costs the kernel tells us.

Both peers run in the foreground, as children: `wait4` then tells the exact moment the process is gone and the
processor time of its whole life. Their defaults are otherwise left alone.
"""

import json
import os
import shutil
import signal
import subprocess
import time

# How long a mount may take to come up, or to go: an unmount makes everything durable first.
MOUNT_SECONDS = 120
UNMOUNT_SECONDS = 1800


class Failed(Exception):
    """A command that must work did not."""


def run(command, **options):
    """Runs a command that must work. Its output is shown only if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout.decode(errors='replace')[-2000:]}")
    return done.stdout


def timed(command):
    """Runs a command that must work. Returns its wall seconds and processor seconds."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit code {process.returncode}")
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime


def stored_bytes(directory, without=()):
    """Bytes of all files below, by length and as the disk allocates them."""
    length = allocated = 0
    for parent, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if os.path.relpath(os.path.join(parent, name), directory) not in without]
        for name in files:
            status = os.lstat(os.path.join(parent, name))
            length += status.st_size
            allocated += status.st_blocks * 512
    return length, allocated


def evict(directory):
    """Takes all files below out of the page cache, and only them: other work on the machine keeps what it has."""
    os.sync()
    for parent, _, files in os.walk(directory):
        for name in files:
            handle = os.open(os.path.join(parent, name), os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


class Plain:
    """The disk itself, to compare with."""

    name = "the disk itself"

    def __init__(self, bench, label):
        self.mountpoint = bench.directory(f"plain-{label}")
        self.stored = self.mountpoint
        self.cpu_seconds = 0.0

    def mount(self):
        return self

    def unmount(self):
        """Makes everything durable: there is nothing else that would compare with an unmount."""
        handle = os.open(self.mountpoint, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        run(["sync", "-f", self.mountpoint])

    def bytes(self):
        return stored_bytes(self.stored)

    def remove(self):
        shutil.rmtree(self.mountpoint)


class Mounted:
    """What gocryptfs and vellum have in common."""

    name = ""
    not_counted = ()

    def __init__(self, bench, label):
        self.bench = bench
        self.stored = bench.directory(f"{self.name}-{label}")
        self.mountpoint = bench.directory(f"{self.name}-{label}-mount")
        self.log = os.path.join(bench.work, f"{self.name}-{label}.log")
        self.process = None
        # Of the mount's process: what opening took, mostly the key derivation, and what came after it.
        self.opening_seconds = self.cpu_seconds = 0.0
        self.initialize()

    def initialize(self):
        raise NotImplementedError

    def mount_command(self):
        raise NotImplementedError

    def unmount_command(self):
        raise NotImplementedError

    def mount(self):
        """Mounts it, and returns once it answers."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.mount_command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.bench.mounts.append(self)
        end = time.monotonic() + MOUNT_SECONDS
        while not os.path.ismount(self.mountpoint):
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    raise Failed(f"{self.name} did not mount: {log.read()[-2000:]}")
            time.sleep(0.005)
        os.stat(self.mountpoint)
        self.opening_seconds = self.used_seconds()
        return self

    def used_seconds(self):
        """Processor seconds of the process of the mount until this moment."""
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def unmount(self):
        """Unmounts it, and returns once its process is gone."""
        run(self.unmount_command(), timeout=UNMOUNT_SECONDS)
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime - self.opening_seconds
        self.bench.mounts.remove(self)
        if self.process.returncode != 0:
            raise Failed(f"the process of {self.name} ended with {self.process.returncode}; see {self.log}")

    def abandon(self):
        """Takes the mount away after a failure, whatever becomes of what is in it."""
        subprocess.run(["fusermount3", "-uz", self.mountpoint], stderr=subprocess.DEVNULL, check=False)
        for kind in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(kind)
                try:
                    self.process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    continue

    def bytes(self):
        return stored_bytes(self.stored, self.not_counted)

    def memory(self, field="VmHWM"):
        """A field of /proc/PID/status, in bytes."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
        raise Failed(f"/proc/{self.process.pid}/status has no {field}")

    def forget_peak(self):
        """Starts VmHWM again, so that the key derivation of the mount does not hide what follows."""
        with open(f"/proc/{self.process.pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")

    def remove(self):
        os.rmdir(self.mountpoint)
        shutil.rmtree(self.stored)


class Gocryptfs(Mounted):
    """gocryptfs 2: encrypts file by file; no compression, no deduplication, no versions."""

    name = "gocryptfs"

    def initialize(self):
        run(["gocryptfs", "-init", "-q", "-passfile", self.bench.passphrase_file, self.stored])

    def mount_command(self):
        return ["gocryptfs", "-fg", "-q", "-nosyslog", "-passfile", self.bench.passphrase_file, self.stored, self.mountpoint]

    def unmount_command(self):
        return ["fusermount3", "-u", self.mountpoint]


class Vellum(Mounted):
    """vellum with its defaults."""

    name = "vellum"
    # Reserved at its full size from the start, and not what is kept.
    not_counted = ("journal",)

    def __init__(self, bench, label, options=()):
        self.options = options
        super().__init__(bench, label)

    def initialize(self):
        run([self.bench.program, "init", self.stored])

    def mount_command(self):
        options = [word for option in self.options for word in ("-o", option)]
        return [self.bench.program, "mount", "--foreground", *options, self.stored, self.mountpoint]

    def unmount_command(self):
        return [self.bench.program, "umount", self.mountpoint]

    def snapshot(self, name):
        run([self.bench.program, "snapshot", self.mountpoint, name])

    def stats(self):
        """What `vellum stats` says; of the repository, or of the mount if there is one."""
        mounted = self.process is not None and self.process.returncode is None
        return json.loads(run([self.bench.program, "--json", "stats", self.mountpoint if mounted else self.stored]))

    def packs(self):
        """Names of the stored packs."""
        return {name for _, _, files in os.walk(os.path.join(self.stored, "packs")) for name in files}
