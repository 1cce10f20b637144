"""One job of scripts/faults, in mount and process namespaces of its own; run.py starts it and reads its last line.

    job.py PART NUMBER SEED PROGRAM WORK SIZE [ONLY]
"""

import importlib
import json
import os
import signal
import sys
import traceback

from place import CannotRun, Place, Violation, run


def private_places():
    """Sockets and tables of mounts go by process numbers, which another job has too."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.umask(0o022)


def main():
    part, number, seed, program, work, size, *only = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    private_places()
    answer = {"passed": 0}
    try:
        place = Place(program, work, seed)
        module = importlib.import_module(part)
        answer = module.job(place, seed, int(number), json.loads(size), int(only[0]) if only else None)
    except Violation as violation:
        answer["failed"] = str(violation)
    except CannotRun as reason:
        answer["skipped"] = str(reason)
    except Exception:  # noqa: BLE001 - whatever went wrong is told, and counts as a failure
        answer["failed"] = traceback.format_exc()
    print("\n" + json.dumps(answer), flush=True)


main()
