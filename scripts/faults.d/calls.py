"""System calls of the mount's process that fail, and its death at any of them, by means of strace.

A repository with a journal to replay is mounted under strace, which lets the n-th call of one kind that a thread makes fail,
or kills the process there; at the start, at work, or at the unmount. What was answered for is there when it is mounted again,
and no file whose sync failed is synced again with success.
"""

import collections
import contextlib
import copy
import os
import random
import re
import shutil

from deeds import Appender, Deeds
from ledger import Ledger
from place import CannotRun, Violation, kill_at_end, must, run, wait_until

# Calls by which something is asked of a disk; those that occur are injected into.
CALLS = (
    "openat open creat pread64 pwrite64 read write readv writev preadv pwritev preadv2 pwritev2 fsync fdatasync sync_file_range rename renameat "
    "renameat2 link linkat unlink unlinkat rmdir mkdir mkdirat truncate ftruncate fallocate stat statx newfstatat fstat lstat getdents64 statfs "
    "fstatfs flock fcntl lseek close copy_file_range getrandom fadvise64 symlink symlinkat utimensat fchmod chmod"
).split()
PHASES = ("start", "work", "end")
# Calls whose errors no local filesystem or device gives, so that nobody can be asked to live with them: by `read` and `writev` the
# kernel's requests come and answers go, `write` writes the log that tells of the mount, Rust takes an error of closedir(3) or
# getrandom(2) for a fault of the program.
CALM = dict.fromkeys(("read", "write", "writev", "close", "getrandom"), ("SIGKILL", "EINTR"))
# An answer that is interrupted is lost, and would be waited for.
CALM["writev"] = ("SIGKILL",)
FAULTS = ("SIGKILL", "SIGKILL", "EIO", "EIO", "ENOSPC", "EINTR")
LINE = re.compile(r"^(\d+)\s+(\w+)\(")
SYNC_BEGUN = re.compile(r"^(\d+)\s+f(?:data)?sync\(\d+<([^>]*)>")
SYNC_RESULT = re.compile(r"= (-?\d+)")


class Injection:
    """What happens where: a call, its number among those of one thread, and an error or a death."""

    def __init__(self, call, phase, number, fault, always):
        self.call, self.phase, self.number, self.fault, self.always = call, phase, number, fault, always

    def __str__(self):
        return f"{self.fault} at {self.call} {self.number}{' and later' if self.always else ''} ({self.phase})"

    def options(self):
        what = "signal=SIGKILL" if self.fault == "SIGKILL" else f"error={self.fault}"
        return ["-e", f"inject={self.call}:{what}:when={self.number}{'+' if self.always else ''}"]


def strace(log, calls, *options):
    """What starts a program under strace: the tracer is a grandchild, and the program our own child."""
    return ["strace", "-D", "-f", "-q", "-y", "-s", "0", "-o", log, "-e", f"trace={','.join(calls)}", "-e", "signal=none", *options]


def attach(stack, mount, log, calls, *options):
    """Traces a mount that runs; what it did before does not count."""
    command = strace(log, calls, *options)
    command.remove("-D")
    pid = mount.process.pid
    tracer = kill_at_end(stack, *command, "-p", str(pid))

    def traced():
        tasks = f"/proc/{pid}/task"
        with contextlib.suppress(FileNotFoundError):
            for task in os.listdir(tasks):
                with open(f"{tasks}/{task}/status") as status:
                    if "TracerPid:\t0\n" in status.read():
                        return not mount.alive()
            return True
        return not mount.alive()

    # The very first call may have been the one that killed it.
    if not wait_until(traced, 20, "attaching strace", tracer) and mount.alive():
        raise CannotRun("strace cannot attach to a process")


class Template:
    """A repository whose mount died at work, and what it is known to hold."""

    def __init__(self, place, seed, deeds):
        self.place = place
        self.seed = seed
        self.deeds = deeds
        self.kept = os.path.join(place.work, "template")
        os.mkdir(self.kept)
        place.init()
        ledger = Ledger()
        ledger.root = place.mountpoint
        mount = place.must_start("the template", options="version-quiet=30,version-max-wait=60")
        with mount.watched(), Appender(ledger, seed):
            Deeds(ledger, f"{seed} template").run(deeds)
        mount.kill()
        for name in ("repo", "state"):
            must("cp", "-a", os.path.join(place.work, name), self.kept)
        found, _ = place.judge(ledger, "the template")
        ledger.root = place.mountpoint
        self.ledger = ledger.adopted(*found)

    def fresh(self):
        """The repository as it was, and a ledger of it."""
        for name in ("repo", "state"):
            shutil.rmtree(os.path.join(self.place.work, name))
            must("cp", "-a", os.path.join(self.kept, name), self.place.work)
        return copy.deepcopy(self.ledger)

    def count(self):
        """How often each thread makes each call in each phase: {phase: {call: [(first, last) of a thread]}}."""
        log = os.path.join(self.place.work, "calls.log")
        ledger = self.fresh()
        mount = self.place.must_start("counting", wrapper=strace(log, [f"?{call}" for call in CALLS]))
        sizes = [0, os.path.getsize(log)]
        self.work(ledger, mount, f"{self.seed} count")
        sizes.append(os.path.getsize(log))
        self.place.must_end("counting")
        sizes.append(os.path.getsize(log))
        counts, found = collections.Counter(), {}
        with open(log, errors="replace") as file:
            for phase, end in zip(PHASES, sizes[1:]):
                spans = found[phase] = collections.defaultdict(dict)
                while file.tell() < end:
                    match = LINE.match(file.readline())
                    if match and match[2] in CALLS:
                        counts[match[1], match[2]] += 1
                        number = counts[match[1], match[2]]
                        first, _ = spans[match[2]].get(match[1], (number, number))
                        spans[match[2]][match[1]] = (first, number)
        return found

    def work(self, ledger, mount, seed):
        deeds = Deeds(ledger, seed)
        with mount.watched(), Appender(ledger, seed):
            deeds.run(self.deeds // 2, until=lambda: not mount.alive())
        return deeds


def choose(counts, call, rng):
    """Where and how a call fails."""
    phase = rng.choices(PHASES, (2, 6, 2))[0]
    if call not in counts[phase]:
        phase = rng.choice([phase for phase in PHASES if call in counts[phase]])
    first, last = rng.choice(list(counts[phase][call].values()))
    # A tracer that comes later counts from there.
    number = rng.randint(1, last - first + 1)
    fault = rng.choice(CALM.get(call, FAULTS))
    # A call that is interrupted for ever is asked again for ever.
    always = fault in ("EIO", "ENOSPC") and rng.random() < 0.3
    return Injection(call, phase, number, fault, always)


def once(template, injection, seed):
    """One mount with one injection. Returns how it went, in a word."""
    place = template.place
    what = str(injection)
    ledger = template.fresh()
    log = os.path.join(place.work, "inject.log")
    calls = {injection.call, "fsync", "fdatasync"}
    wrapper = strace(log, calls, *injection.options()) if injection.phase == "start" else ()
    mount = place.start(wrapper=wrapper)
    outcome = "not mounted"
    if mount:
        with contextlib.ExitStack() as stack:
            if injection.phase == "work":
                attach(stack, mount, log, calls, *injection.options())
            deeds = template.work(ledger, mount, seed)
            if injection.phase == "end":
                attach(stack, mount, log, calls, *injection.options())
            outcome = end(mount, ledger, injection, "refused" if deeds.refused else "done")
    elif place.exit_code == 0:
        raise Violation(f"{what}: vellum mount ended with success, and had not mounted\n{place.ended}")
    if "panicked" in (mount.log() if mount else place.ended):
        raise Violation(f"{what}: the process panicked\n{mount.log() if mount else place.ended}")
    place.judge(ledger, f"{what} ({outcome})", exact=mount is not None and mount.told_durable)
    again = synced_again(log)
    if again:
        raise Violation(f"{what}: synced with success after it had failed: {again}")
    return outcome


def end(mount, ledger, injection, outcome):
    """Unmounts what still lives. How it went, in a word."""
    if mount.alive():
        complaint = mount.end()
        if mount.told_durable:
            ledger.all_durable()
        return f"{outcome}, umount failed" if complaint else outcome
    mount.kill()
    if injection.fault != "SIGKILL" and mount.process.returncode < 0:
        raise Violation(f"{injection}: the process died of signal {-mount.process.returncode}\n{mount.log()}")
    return "died"


def synced_again(log):
    """Files that were synced with success although a sync of the same file had failed."""
    under_way, failed, again = {}, set(), []
    with open(log, errors="replace") as file:
        for line in file:
            begun = SYNC_BEGUN.match(line)
            if begun:
                under_way[begun[1]] = begun[2]
            elif "sync resumed>" not in line:
                continue
            result = SYNC_RESULT.search(line)
            path = under_way.get(line.split()[0])
            if not result or path is None:
                continue
            if int(result[1]) < 0 and "EINTR" not in line:
                failed.add(path)
            # A directory has no second one that could take its place.
            elif path in failed and int(result[1]) == 0 and not os.path.isdir(path):
                again.append(path)
    return again


def job(place, seed, number, size, only=None):
    """A template, and injections into copies of it; jobs go on where the one before ended in the list of calls."""
    template = Template(place, seed, size["deeds"])
    counts = template.count()
    occurring = [call for call in CALLS if any(call in counts[phase] for phase in PHASES)]
    outcomes, of_calls = collections.Counter(), collections.Counter()
    for index in range(size["injections"]):
        own = f"{seed} injection {index}"
        call = occurring[(number * size["injections"] + index) % len(occurring)]
        injection = choose(counts, call, random.Random(own))
        if only is not None and index != only:
            continue
        try:
            outcomes[once(template, injection, own)] += 1
        except Violation as violation:
            raise Violation(f"injection {index}: {violation}") from violation
        of_calls[call] += 1
    told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    return {"passed": sum(outcomes.values()), "told": told, "calls": of_calls}


def why_not():
    """Why nothing can be injected here; None if it can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    if run("strace", "-D", "-f", "-o", "/dev/null", "true").returncode != 0:
        return "this process may not trace others"
    return None
