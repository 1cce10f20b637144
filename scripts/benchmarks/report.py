"""What was measured, and how it is told: the machine, each figure with its spread, one Markdown table.

Nothing here fails because something took long. A goal is shown beside its figure; whether it is met is for people to
judge, who know whether the machine was quiet.
"""

import os
import platform
import statistics
import time

MIB = 1 << 20

# How much of the processors others may use before the figures are said to be worthless.
QUIET_SHARE = 0.05


def say(text=""):
    print(text, flush=True)


def read_line(path, otherwise="unknown"):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return otherwise


def size_text(count):
    """Bytes as people read them: binary units, three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.4g} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes every size")


def time_text(seconds):
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.2f} s"


class Samples:
    """Several measurements of one thing."""

    def __init__(self, values):
        self.values = sorted(values)

    @property
    def median(self):
        return statistics.median(self.values)

    @property
    def largest(self):
        return self.values[-1]

    def quantile(self, share):
        return self.values[min(int(len(self.values) * share), len(self.values) - 1)]

    def text(self, unit=time_text):
        return unit(self.median)

    def spread(self, unit=time_text):
        if len(self.values) == 1:
            return "n = 1"
        return f"{unit(self.values[0])} .. {unit(self.values[-1])}, n = {len(self.values)}"


class Report:
    """The rows of the table that ends a run."""

    def __init__(self):
        self.rows = []
        self.faults = []

    def row(self, part, what, value, spread="", beside="", ratio="", goal=""):
        """One line of the table. `beside` is the figure that this one is compared with."""
        self.rows.append((part, what, value, spread, beside, ratio, goal))
        notes = [note for note in (spread, beside and f"beside {beside}", ratio and f"ratio {ratio}", goal and f"goal {goal}") if note]
        say(f"  {what}: {value}" + (f"  ({'; '.join(notes)})" if notes else ""))

    def fault(self, part, what):
        """Something did not do what it is for; that is no matter of speed."""
        self.faults.append(f"{part}: {what}")
        say(f"  FAULT: {what}")

    def markdown(self):
        head = ("part", "what", "measured", "spread", "beside it", "ratio", "goal")
        lines = ["| " + " | ".join(row) + " |" for row in [head, ("---",) * len(head), *self.rows]]
        return "\n".join(lines)


def busy_share(seconds=2.0):
    """How much of the processors is used while this process waits."""

    def ticks():
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(field) for field in file.readline().split()[1:]]
        return sum(fields), fields[3] + fields[4]

    total, idle = ticks()
    time.sleep(seconds)
    total_later, idle_later = ticks()
    return 1 - (idle_later - idle) / max(total_later - total, 1)


def quiet_note():
    """Says how busy the machine is, and what that means."""
    share = busy_share()
    note = f"others use {share:.0%} of the processors, load {os.getloadavg()[0]:.2f}"
    return note if share <= QUIET_SHARE else note + ": NOT QUIET, do not trust these times"


def halt_polling():
    governor = read_line("/sys/devices/system/cpu/cpuidle/current_governor", "none")
    polled = read_line("/sys/module/haltpoll/parameters/guest_halt_poll_ns", "")
    driver = read_line("/sys/devices/system/cpu/cpuidle/current_driver", "none")
    return f"cpuidle driver {driver}, governor {governor}" + (f", guest_halt_poll_ns {polled}" if polled else "")


def disk_of(path):
    """The filesystem below `path`, from the longest mountpoint that leads to it."""
    path, best = os.path.realpath(path), ("", "unknown", "")
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            device, mountpoint, kind, options = line.split()[:4]
            inside = path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/")
            if inside and len(mountpoint) >= len(best[0]):
                best = (mountpoint, f"{kind} on {device}", options)
    return f"{best[1]} ({best[2]})"


def describe_machine(directory, versions):
    """Prints what the figures depend on and what is the same for all of them."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    space = os.statvfs(directory)
    say("# vellum bench\n")
    say(f"- machine: {os.cpu_count()} x {models[0] if models else platform.machine()}, {size_text(memory)} of memory")
    say(f"- kernel: {platform.release()}; {halt_polling()}")
    say(f"- disk: {disk_of(directory)}, {size_text(space.f_bavail * space.f_frsize)} free")
    for version in versions:
        say(f"- {version}")
    say(f"- {quiet_note()}")
