"""What one caller waits for: snapshots, writes beside a checkpoint, synced writes."""

import multiprocessing
import os
import time

from data import Numbers, write_file, write_small
from filesystems import Gocryptfs, Plain, Vellum
from report import MIB, Samples, say, size_text, time_text


def write_block(path, numbers):
    """Makes one 4 KiB file dirty."""
    with open(path, "wb", buffering=0) as file:
        file.write(numbers.bytes(4096))


def one_snapshot(bench, vellum, numbers, name, take):
    write_block(os.path.join(vellum.mountpoint, "dirty"), numbers)
    started = bench.now()
    take(name)
    return bench.now() - started


def snapshots(bench):
    """`snapshot` on few and on many files, in turn."""
    counts = (10, bench.sizes.many_files)
    say(f"  settings: {bench.sizes.snapshots} snapshots of each kind on {counts[0]} and on {counts[1]} files of 100 bytes, in turn, after 3 that "
        "do not count; before each, one 4 KiB file is written; `vellum snapshot` with the start of the program, and mkdir in .snapshots")
    volumes = []
    for count in counts:
        vellum = Vellum(bench, f"snapshot-{count}").mount()
        started = bench.now()
        write_small(vellum.mountpoint, count)
        vellum.snapshot("settled")
        say(f"  {count} files made in {bench.now() - started:.1f} s")
        volumes.append(vellum)
    ways = {
        "vellum snapshot": lambda vellum: vellum.snapshot,
        "mkdir .snapshots/NAME": lambda vellum: lambda name: os.mkdir(os.path.join(vellum.mountpoint, ".snapshots", name)),
    }
    numbers = Numbers(3)
    for way, (what, take) in enumerate(ways.items()):
        taken = [[], []]
        for number in range(bench.sizes.snapshots + 3):
            for seconds, vellum in zip(taken, volumes):
                seconds.append(one_snapshot(bench, vellum, numbers, f"s{way}-{number}", take(vellum)))
        few, many = (Samples(seconds[3:]) for seconds in taken)
        for count, samples in zip(counts, (few, many)):
            bench.report.row("snapshot", f"{what}, {count} files", samples.text(), samples.spread(), goal="< 100 ms")
        bench.report.row("snapshot", f"{what}, {counts[1]} against {counts[0]} files", f"{many.median / few.median:.2f}", goal="<= 1.3")
    bench.report.row("snapshot", f"peak RSS of the mount with {counts[1]} files", size_text(volumes[1].memory()), goal="< 512 MiB")
    for vellum in volumes:
        vellum.unmount()
        vellum.remove()


def write_blocks(path, pause, stop, results):
    """Writes 4 KiB blocks round and round in the first MiB of a file until told to stop; answers how long each took."""
    block, taken, number = os.urandom(4096), [], 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    while not stop.is_set():
        started = time.perf_counter()
        os.pwrite(handle, block, number % 256 * 4096)
        taken.append(time.perf_counter() - started)
        number += 1
        time.sleep(pause)
    os.close(handle)
    results.put(taken)


def beside(path, work):
    """Runs `work` while another process writes blocks. Returns the seconds of the work and the times of the writes."""
    stop, results = multiprocessing.Event(), multiprocessing.Queue()
    writer = multiprocessing.Process(target=write_blocks, args=(path, 0.001, stop, results), daemon=True)
    writer.start()
    started = time.monotonic()
    try:
        work()
    finally:
        seconds = time.monotonic() - started
        stop.set()
    taken = results.get(timeout=120)
    writer.join()
    return seconds, taken


def checkpoint(bench):
    """4 KiB writes beside a checkpoint, against the same with nothing going on."""
    total = 256 * MIB
    options = {"defaults": (), "dirty=400M, so that all 256 MiB wait for the checkpoint": ("dirty=400M",)}
    say(f"  settings: {bench.sizes.checkpoints} checkpoints each by `vellum snapshot`, right after {size_text(total)} in four files, half of them "
        "random; another process writes 4 KiB every millisecond from the call to its return")
    for number, (what, given) in enumerate(options.items()):
        vellum = Vellum(bench, f"checkpoint-{number}", given).mount()
        path = os.path.join(vellum.mountpoint, "beside")
        _, idle = beside(path, lambda: time.sleep(bench.sizes.idle_seconds))
        seconds, longest, all_writes = [], [], []
        for round_number in range(bench.sizes.checkpoints):
            numbers = Numbers(100 + round_number)
            contents = [list(numbers.blocks(total // 4, compressible=part % 2 == 1)) for part in range(4)]
            for part, blocks in enumerate(contents):
                write_file(os.path.join(vellum.mountpoint, f"file-{round_number}-{part}"), blocks)
            del contents
            taken, writes = beside(path, lambda name=f"c{round_number}": vellum.snapshot(name))
            seconds.append(taken)
            longest.append(max(writes))
            all_writes.extend(writes)
        tell_checkpoint(bench, what, Samples(seconds), Samples(longest), Samples(all_writes), Samples(idle))
        vellum.unmount()
        vellum.remove()


def tell_checkpoint(bench, what, seconds, longest, writes, idle):
    bench.report.row("checkpoint", f"the checkpoint itself; {what}", seconds.text(), seconds.spread())
    bench.report.row("checkpoint", f"longest 4 KiB write beside it; {what}", time_text(longest.largest), f"of each: {longest.spread()}",
                     f"idle {time_text(idle.largest)}", f"{longest.largest / idle.largest:.1f}", "no wait for its end")
    bench.report.row("checkpoint", f"4 KiB write beside it, median and 99 %; {what}", f"{writes.text()}, {time_text(writes.quantile(0.99))}",
                     f"n = {len(writes.values)}", f"idle {idle.text()}, {time_text(idle.quantile(0.99))}")


def synced_writes(directory, count):
    """Overwrites one 4 KiB block of an existing file and syncs it, again and again."""
    block, taken = os.urandom(4096), []
    handle = os.open(os.path.join(directory, "synced"), os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(handle, bytes(MIB))
    os.fsync(handle)
    for number in range(count):
        started = time.perf_counter()
        os.pwrite(handle, block, number * 37 % 256 * 4096)
        os.fdatasync(handle)
        taken.append(time.perf_counter() - started)
    os.close(handle)
    return taken


def fsync(bench):
    """4 KiB write and fdatasync, in turn with the disk itself."""
    say(f"  settings: {bench.sizes.rounds} rounds of {bench.sizes.syncs} overwrites of 4 KiB in a file of 1 MiB, each with fdatasync")
    filesystems = [kind(bench, "fsync").mount() for kind in bench.kinds(Vellum, Plain, Gocryptfs)]
    taken = {filesystem.name: [] for filesystem in filesystems}
    for _ in range(bench.sizes.rounds):
        for filesystem in filesystems:
            taken[filesystem.name].extend(synced_writes(filesystem.mountpoint, bench.sizes.syncs))
    disk = Samples(taken[Plain.name])
    for name, seconds in taken.items():
        samples = Samples(seconds)
        told = f"{samples.text()}, 99 % {time_text(samples.quantile(0.99))}"
        ratio = "" if name == Plain.name else f"{samples.median / disk.median:.2f}"
        bench.report.row("fsync", f"4 KiB write + fdatasync, {name}", told, samples.spread(), f"disk {disk.text()}", ratio)
    for filesystem in filesystems:
        filesystem.unmount()
        filesystem.remove()
