"""The process of the mount under limits of its own (prlimit): the length of a file, and the number of open files.

What it answers may be errors, and it may end with one, but it is not ended by a signal, and what it answered for is there when
it is mounted again without the limit.
"""

import os
import random
import resource
import shutil

from deeds import Appender, Deeds
from ledger import Ledger
from place import Violation


def limits(rng):
    """(name of the option, value)."""
    return (
        [("fsize", size) for size in (4096, 100_000, 1 << 20, 5 << 20, 17 << 20, 33 << 20)]
        + [("nofile", count) for count in (8, 16, 20, 24, 32, 40)]
        + [("fsize", rng.randrange(1 << 23)) for _ in range(2)]
        + [("nofile", rng.randrange(10, 60)) for _ in range(2)]
    )


def once(place, ledger, seed, limit, value, count):
    """One mount that is limited from the start, or once it runs. How it went, in a word."""
    what = f"with {limit} {value}"
    from_start = random.Random(f"{seed} when").random() < 0.5
    wrapper = ("prlimit", f"--{limit}={value}:{value}") if from_start else ()
    mount = place.start(wrapper=wrapper)
    if mount is None:
        if place.exit_code == 0 or place.exit_code < 0 or "panicked" in place.ended:
            raise Violation(f"{what}: the mount could not start, and did not say so: {place.ended}")
        return "not mounted"
    if not from_start:
        if limit == "nofile":
            # Those that are open stay so; from here on there are no more.
            value = max(value, 1 + max(int(name) for name in os.listdir(f"/proc/{mount.process.pid}/fd")))
        kind = getattr(resource, f"RLIMIT_{limit.upper()}")
        # The hard limit stays: the other one can then be raised again without a capability.
        _, hard = resource.prlimit(mount.process.pid, kind)
        resource.prlimit(mount.process.pid, kind, (value, hard))
    with mount.watched():
        deeds = Deeds(ledger, seed)
        with Appender(ledger, seed):
            deeds.run(count)
    if not mount.alive():
        if mount.process.returncode <= 0 or "panicked" in mount.log():
            raise Violation(f"{what}: the mount died with exit code {mount.process.returncode}\n{mount.log()}")
        mount.take_away()
        return "ended with an error"
    outcome = "refused" if deeds.refused else "done"
    # A process without any descriptor cannot hear that it shall end.
    if limit == "nofile" and from_start:
        mount.kill()
    else:
        if limit == "nofile":
            resource.prlimit(mount.process.pid, kind, (hard, hard))
        mount.end()
    if "panicked" in mount.log():
        raise Violation(f"{what}: the process panicked\n{mount.log()}")
    if mount.told_durable:
        ledger.all_durable()
    return outcome if mount.told_durable else f"{outcome}, not unmounted"


def job(place, seed, number, size, only=None):
    place.init()
    ledger = Ledger()
    ledger.root = place.mountpoint
    place.must_start("without a limit")
    with Appender(ledger, seed):
        Deeds(ledger, seed).run(size["deeds"])
    place.must_end("without a limit")
    ledger.all_durable()
    told = []
    chosen = limits(random.Random(f"{seed} limits"))
    for turn, (limit, value) in enumerate(chosen):
        outcome = once(place, ledger, f"{seed} {turn}", limit, value, size["deeds"])
        found, _ = place.judge(ledger, f"with {limit} {value} ({outcome})")
        ledger = ledger.adopted(*found)
        told.append(f"{limit} {value}: {outcome}")
    return {"passed": len(chosen), "told": ", ".join(told)}


def why_not():
    return None if shutil.which("prlimit") else "prlimit is not installed"
