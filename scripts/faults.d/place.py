"""A place for one job: a repository, its mount, disks in files. All mounts and processes are gone when the job is, because
scripts/faults gives each job namespaces of its own.
"""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import threading
import time

from ledger import look, look_at_snapshots

# Nothing that a mount is asked takes longer; what does is taken for hanging, and the mount is killed.
ANSWER_SECONDS_MAX = 120
START_SECONDS_MAX = 60
LOOP_SECONDS_MAX = 10


class Violation(Exception):
    """A promise is broken."""


class CannotRun(Exception):
    """This machine lacks something that the job needs."""


def run(*command, timeout=ANSWER_SECONDS_MAX, **options):
    """A program with its output as text; its exit code is the caller's to look at."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, errors="replace", **options)


def must(*command, **options):
    """A program without which the job cannot go on."""
    result = run(*command, **options)
    if result.returncode != 0:
        raise CannotRun(f"{' '.join(command)}: exit code {result.returncode}: {result.stdout.strip()[-400:]}")
    return result.stdout


def wait_until(true, seconds, what, process=None):
    end = time.monotonic() + seconds
    while not true():
        if process and process.poll() is not None:
            return False
        if time.monotonic() > end:
            raise Violation(f"{what} took more than {seconds} s")
        time.sleep(0.01)
    return True


class Place:
    """A directory for a job, and how vellum is called in it."""

    def __init__(self, program, work, seed):
        self.program = program
        self.work = work
        self.mountpoint = os.path.join(work, "files")
        os.makedirs(self.mountpoint, exist_ok=True)
        key = os.path.join(work, "key")
        with open(key, "wb") as file:
            file.write(random.Random(f"{seed} key").randbytes(32))
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("VELLUM_")}
        self.environment["VELLUM_KEY_FILE"] = key
        # The message of a panic is enough, and comes at once.
        self.environment["RUST_BACKTRACE"] = "0"
        self.repository = None
        self.mount = None
        self.on(work)

    def on(self, directory):
        """From here on the repository is below this directory, and beside it what the machine remembers of it."""
        self.repository = os.path.join(directory, "repo")
        self.environment["VELLUM_STATE_DIR"] = os.path.join(directory, "state")

    def vellum(self, *arguments):
        try:
            return run(self.program, *arguments, env=self.environment)
        except subprocess.TimeoutExpired as expired:
            log = self.mount.log() if self.mount else ""
            raise Violation(f"vellum {arguments[0]} did not end in {ANSWER_SECONDS_MAX} s\n{log}") from expired

    def init(self):
        result = self.vellum("init", self.repository)
        if result.returncode != 0:
            raise Violation(f"vellum init: {result.stdout}")

    def bare(self):
        """Where nothing is mounted, nothing can be written: it would be taken for written in the mount."""
        if not os.path.ismount(self.mountpoint):
            must("mount", "-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", self.mountpoint)

    def start(self, options="version-quiet=1,version-max-wait=2", wrapper=()):
        """Mounts; None if the process ended instead, whose exit code and output are in `self.ended`."""
        self.bare()
        mount = Mount(self, options, wrapper)
        self.mount = mount if mount.ready() else None
        return self.mount

    def must_start(self, what, **options):
        if self.start(**options) is None:
            raise Violation(f"{what}: vellum mount failed: {self.ended}")
        return self.mount

    def look(self, root=None):
        """All that is in the mount or in a directory of it: names and content, and the same of each snapshot."""
        root = root or self.mountpoint
        try:
            return look(root), look_at_snapshots(root)
        except OSError as error:
            raise Violation(f"what is in the mount cannot be read: {error}\n{self.mount.log()}") from error

    def judge(self, ledger, what, cut=0, exact=False, check=True):
        """Mounts, and compares what is there with the ledger; then it has to be clean and usable. Returns what was found."""
        began = time.monotonic()
        self.must_start(what)
        seconds = time.monotonic() - began
        self.compare(ledger, what, cut, exact)
        found = self.look()
        probe = os.path.join(self.mountpoint, "probe")
        try:
            with open(probe, "wb") as file:
                file.write(b"again")
                os.fsync(file.fileno())
            os.unlink(probe)
        except OSError as error:
            raise Violation(f"{what}: it cannot be written to again: {error}\n{self.mount.log()}") from error
        self.must_end(what)
        if check:
            self.check(what)
        return found, seconds

    def compare(self, ledger, what, cut=0, exact=False, snapshots=True, failing=False):
        """Without snapshots: what is looked at counts as open for as long as the kernel remembers it, and gc leaves it alone.
        `failing`: content may be answered with EIO."""
        found, past = self.look() if snapshots else (look(self.mountpoint, failing), None)
        wrong = ledger.judge(found, past, cut, exact)
        if wrong:
            raise Violation(f"{what}: " + "\n    ".join(wrong[:8]) + f"\n{self.mount.log()}")

    def must_end(self, what):
        result = self.mount.end()
        if result:
            raise Violation(f"{what}: {result}\n{self.mount.log()}")

    def check(self, what, target=None):
        result = self.vellum("check", "--read-data", target or self.repository)
        if result.returncode != 0:
            raise Violation(f"{what}: vellum check --read-data: exit code {result.returncode}: {result.stdout}")


class Mount:
    """A process of `vellum mount` in the foreground."""

    def __init__(self, place, options, wrapper):
        self.place = place
        self.log_path = os.path.join(place.work, "mount.log")
        command = [*wrapper, place.program, "mount", "--foreground", "-v", "-o", options, place.repository, place.mountpoint]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=place.environment)
        self.hung = False
        # Whether vellum umount said that everything is durable.
        self.told_durable = False

    def log(self):
        with open(self.log_path, errors="replace") as log:
            return "".join("        | " + line for line in log.readlines()[-12:])

    def ready(self):
        def mounted():
            with open(self.log_path, errors="replace") as log:
                return "is mounted at" in log.read()

        try:
            if wait_until(mounted, START_SECONDS_MAX, "mounting", self.process):
                return True
        except Violation as violation:
            self.kill()
            raise Violation(f"{violation}\n{self.log()}") from violation
        # It may have been killed after it had mounted.
        self.take_away()
        self.place.ended = f"exit code {self.process.returncode}\n{self.log()}"
        self.place.exit_code = self.process.returncode
        return False

    def alive(self):
        return self.process.poll() is None

    @contextlib.contextmanager
    def watched(self, seconds=ANSWER_SECONDS_MAX):
        """Kills the mount when work in it takes too long: whoever waits for an answer gets one, and it counts as a fault."""

        def give_up():
            self.hung = True
            self.process.kill()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        if self.hung:
            raise Violation(f"the mount hung for {seconds} s\n{self.log()}")

    def status(self):
        """What `vellum status` tells, or None if the mount does not answer."""
        result = self.place.vellum("status", "--json", self.place.mountpoint)
        try:
            return json.loads(result.stdout) if result.returncode == 0 else None
        except ValueError as error:
            raise Violation(f"vellum status --json is not JSON: {result.stdout}") from error

    def end(self):
        """Unmounts. What went wrong, or None: then everything has to be durable."""
        result = self.place.vellum("umount", self.place.mountpoint)
        # A mount that was dead already is taken away, and said to be dead.
        was_gone = "was gone" in result.stdout
        if (result.returncode != 0) != was_gone:
            self.kill()
            return f"vellum umount: exit code {result.returncode}: {result.stdout.strip()}"
        self.told_durable = not was_gone
        try:
            code = self.process.wait(ANSWER_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            return "the process did not end after vellum umount had returned"
        self.take_away()
        return f"the mount ended with exit code {code}" if code else None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.take_away()

    def take_away(self):
        run("umount", "-l", self.place.mountpoint)


class Disk:
    """A file with a filesystem in it, mounted by way of a loop device that goes with the mount."""

    def __init__(self, image, mountpoint, options=""):
        self.image = image
        self.mountpoint = mountpoint
        self.options = options
        os.makedirs(mountpoint, exist_ok=True)

    @staticmethod
    def make(image, size, *options):
        with open(image, "wb") as file:
            file.truncate(size)
        must("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", *options, image)

    def mount(self, source=None):
        options = ",".join(part for part in ("loop", self.options) if part)
        command = ("mount", "-t", "ext4", "-o", options, source or self.image, self.mountpoint)
        # Another job may take the loop device that was found free.
        wait_until(lambda: run(*command).returncode == 0 or os.path.ismount(self.mountpoint), LOOP_SECONDS_MAX, " ".join(command))

    def device(self):
        """The name of the loop device, as sysfs has it."""
        with open("/proc/self/mounts") as mounts:
            return next(os.path.basename(line.split()[0]) for line in mounts if line.split()[1] == self.mountpoint)

    def unmount(self):
        def gone():
            return run("umount", self.mountpoint).returncode == 0

        wait_until(gone, 20, f"unmounting {self.mountpoint}")

    def repair(self, thorough=False):
        """Exit code of e2fsck: 0 and 1 if there was nothing to decide. What it leaves for people is answered with yes."""
        code = run("e2fsck", "-fy" if thorough else "-p", self.image).returncode
        if code & ~1:
            run("e2fsck", "-fy", self.image)
        return code


def kill_at_end(stack, *command, **options):
    """A process that is ended, at the latest, when the stack is left."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)

    def end():
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()

    stack.callback(end)
    return process


def is_io_error(error):
    return error.errno in (errno.EIO, errno.EROFS)
