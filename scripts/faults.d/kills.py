"""kill -9 of a mount below git, SQLite and a writer with a ledger, at random moments; the mount that follows takes over, and dies in turn.

What git and SQLite had committed is there afterwards (the last but one commit of git, whose own order of syncs keeps no more), the
databases and object stores are sound, and everything else is as the ledger allows.
"""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import threading
import time

from deeds import Appender, Deeds
from ledger import Ledger
from place import Violation, wait_until

# Programs of scripts/posix.d that work until the mount dies, and see afterwards what is left.
PROGRAMS = ("git", "sqlite")
READY_SECONDS_MAX = 90
# The mount dies at a random moment up to this long after every program is at work.
ALIVE_SECONDS_MAX = 1.5


class Program:
    """A program with a directory in the mount and one on a plain disk."""

    def __init__(self, place, name):
        self.place = place
        self.name = name
        self.path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "posix.d", name)
        self.plain = os.path.join(place.work, f"{name}-plain")
        self.log = os.path.join(place.work, f"{name}.log")
        self.ready = os.path.join(self.plain, "ready")
        os.mkdir(self.plain)
        os.mkdir(self.directory())

    def directory(self):
        return os.path.join(self.place.mountpoint, self.name)

    def begin(self, phase):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.ready)
        with open(self.log, "ab") as log:
            return subprocess.Popen([self.path, phase, self.directory(), self.plain], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, process, what):
        try:
            code = process.wait(READY_SECONDS_MAX)
        except subprocess.TimeoutExpired as expired:
            process.kill()
            process.wait()
            raise Violation(f"{what}: {self.name} hung\n{self.told()}") from expired
        if code:
            raise Violation(f"{what}: {self.name}: exit code {code}\n{self.told()}")

    def run(self, phase, what):
        self.end(self.begin(phase), what)

    def told(self):
        with open(self.log, errors="replace") as log:
            return "".join("        | " + line for line in log.readlines()[-12:])


class Kill:
    """Kills the mount once all programs are at work, and a random while later."""

    def __init__(self, mount, programs, processes, delay):
        self.mount, self.programs, self.processes, self.delay = mount, programs, processes, delay
        self.late = False
        self.thread = threading.Thread(target=self.wait_and_kill)
        self.thread.start()

    def wait_and_kill(self):
        def at_work():
            return all(os.path.exists(program.ready) for program in self.programs)

        try:
            wait_until(at_work, READY_SECONDS_MAX, "to be at work")
        except Violation:
            self.late = True
        time.sleep(self.delay)
        self.mount.process.kill()


def turn(place, ledger, programs, seed, what):
    """One life of the mount: work until it is killed, and what is there afterwards. Returns a ledger of that."""
    rng = random.Random(f"{seed} kill")
    mount = place.mount
    with mount.watched():
        processes = [program.begin("crash") for program in programs]
        kill = Kill(mount, programs, processes, rng.uniform(0, ALIVE_SECONDS_MAX))
        deeds = Deeds(ledger, seed)
        with Appender(ledger, seed):
            deeds.run(1 << 30, until=lambda: not mount.alive())
        kill.thread.join()
        for program, process in zip(programs, processes):
            program.end(process, what)
    if kill.late:
        raise Violation(f"{what}: not at work in {READY_SECONDS_MAX} s\n" + "".join(program.told() for program in programs))
    mount.kill()
    # Nothing was wrong until it died, and it died of nothing else.
    if deeds.refused or mount.process.returncode != -signal.SIGKILL or "panicked" in mount.log():
        raise Violation(f"{what}: {deeds.refused} calls were refused, {ledger.errors}; exit code {mount.process.returncode}\n{mount.log()}")
    mount = place.must_start(what)
    found = place.look(ledger.root)
    wrong = ledger.judge(*found)
    if wrong:
        raise Violation(f"{what}: " + "\n    ".join(wrong[:8]) + f"\n{mount.log()}")
    for program in programs:
        program.run("crashed", what)
    place.check(what, place.mountpoint)
    return ledger.adopted(*found)


def job(place, seed, number, size, only=None):
    place.init()
    place.must_start("the first mount")
    root = os.path.join(place.mountpoint, "ledger")
    os.mkdir(root)
    programs = [Program(place, name) for name in PROGRAMS]
    for program in programs:
        program.run("use", "before any kill")
    ledger = Ledger()
    ledger.root = root
    for index in range(size["kills"]):
        ledger = turn(place, ledger, programs, f"{seed} {index}", f"kill {index}")
    place.must_end("after the last kill")
    place.check("after the last kill")
    return {"passed": size["kills"], "told": f"killed below {', '.join(PROGRAMS)} and a ledger of {len(ledger.names)} names"}


def why_not():
    if not shutil.which("git"):
        return "git is not installed"
    if importlib.util.find_spec("sqlite3") is None:
        return "python3 has no sqlite3"
    return None
