"""Starts the jobs of scripts/faults, as many at a time as there are processors (four at most), and counts what they tell.

    run.py SEED PROGRAM long|short KEEP PART...
"""

import collections
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# For each part: (jobs, what each does) of the short and of the long profile.
SIZES = {
    "blocks": ((2, {"deeds": 240, "images": 20}), (10, {"deeds": 500, "images": 50})),
    "calls": ((2, {"deeds": 120, "injections": 40}), (10, {"deeds": 160, "injections": 50})),
    "kills": ((2, {"kills": 10}), (10, {"kills": 30})),
    "eio": ((2, {"deeds": 150, "rounds": 3}), (8, {"deeds": 300, "rounds": 6})),
    "full": ((3, {}), (6, {})),
    "limits": ((2, {"deeds": 150}), (12, {"deeds": 300})),
    "journal": ((1, {"disk": 2 << 30}), (2, {"disk": 6 << 30})),
}
JOB_SECONDS_MAX = 3600
# In the long profile, how often each call is met at least.
CALL_INJECTIONS_MIN = 5


class Jobs:
    """The jobs that run, and what those told that have ended."""

    def __init__(self, seed, program, keep):
        self.seed = seed
        self.program = program
        self.keep = keep
        self.running = {}
        self.ended = []

    def start(self, part, number, size, only):
        work = tempfile.mkdtemp(prefix="vellum-faults.")
        job = os.path.join(os.path.dirname(os.path.abspath(__file__)), "job.py")
        seed = f"{self.seed} {part} {number}"
        command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-B", job]
        command += [part, str(number), seed, self.program, work, json.dumps(size), *([only] if only else [])]
        # Its standard input is nobody's; an interrupt from the terminal reaches this process, which ends its jobs.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        self.running[process] = (part, number, work, time.monotonic())

    def wait_for_one(self):
        while True:
            for process, (_, _, _, began) in self.running.items():
                if process.poll() is not None:
                    self.end(process)
                    return
                if time.monotonic() - began > JOB_SECONDS_MAX:
                    process.kill()
            time.sleep(0.05)

    def end(self, process):
        part, number, work, began = self.running.pop(process)
        output = process.stdout.read().rstrip().split("\n")
        try:
            answer = json.loads(output[-1])
        except ValueError:
            answer = {"passed": 0, "failed": f"the job ended with exit code {process.returncode} and said: " + "\n".join(output[-20:])}
        seconds = time.monotonic() - began
        self.ended.append((part, answer))
        word = "FAILED" if "failed" in answer else "skipped:" if "skipped" in answer else "ok"
        told = answer.get("failed") or answer.get("skipped") or answer.get("told", "")
        print(f"{word:8} {part} {number}: {answer.get('passed', 0)} passed; {told} ({seconds:.0f} s)", flush=True)
        if "failed" in answer and self.keep:
            print(f"         all of it is kept in {work}", flush=True)
        else:
            shutil.rmtree(work, ignore_errors=True)

    def stop(self):
        """Ends what runs; its namespaces go with it."""
        for process, (_, _, work, _) in self.running.items():
            process.kill()
            process.wait()
            shutil.rmtree(work, ignore_errors=True)


def plan(parts, long):
    """(part, number, size) of all jobs: those of the longest parts first."""
    for part in parts:
        name, _, rest = part.partition(":")
        number, _, only = rest.partition(":")
        why = importlib.import_module(name).why_not()
        if why:
            print(f"skipped: faults: {name}: {why}", flush=True)
            continue
        count, size = SIZES[name][long]
        for index in range(count):
            if not rest or index == int(number):
                yield name, index, size, only


def main():
    seed, program, profile, keep, *parts = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    long = profile == "long"
    jobs = Jobs(seed, program, keep == "keep")
    try:
        for part, number, size, only in plan(parts, long):
            while len(jobs.running) >= max(2, min(4, os.cpu_count() or 2)):
                jobs.wait_for_one()
            jobs.start(part, number, size, only)
        while jobs.running:
            jobs.wait_for_one()
    finally:
        jobs.stop()
    calls = collections.Counter()
    for _, answer in jobs.ended:
        calls.update(answer.get("calls", {}))
    failed = sum("failed" in answer for _, answer in jobs.ended)
    if calls:
        print(f"         calls: {', '.join(f'{call} {count}' for call, count in sorted(calls.items()))}")
        if long and not any(":" in part for part in parts) and min(calls.values()) < CALL_INJECTIONS_MIN:
            print(f"FAILED   a call was injected into fewer than {CALL_INJECTIONS_MIN} times")
            failed += 1
    passed = sum(answer.get("passed", 0) for _, answer in jobs.ended)
    skipped = sum("skipped" in answer for _, answer in jobs.ended)
    print(f"faults: {passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


main()
