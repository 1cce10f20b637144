"""Four writers of one SQLite database, in each journal mode; what they wrote has to be there, once and whole."""

import contextlib
import multiprocessing
import os
import sqlite3
import sys
import time

WRITERS = 4
TRANSACTIONS = 150
ROWS = 5
MODES = ("wal", "delete", "truncate", "persist")


def connect(path):
    """A connection in the journal mode that the name of the database tells."""
    db = sqlite3.connect(path, isolation_level=None, timeout=120)
    mode = os.path.basename(path).removesuffix(".db")
    assert db.execute(f"pragma journal_mode = {mode}").fetchone()[0] == mode
    return db


def write(path, writer):
    db = connect(path)
    for transaction in range(TRANSACTIONS):
        db.execute("begin immediate")
        for row in range(ROWS):
            body = f"{writer} {transaction} {row} ".encode() * 50
            db.execute("insert into rows(writer, body) values (?, ?)", (writer, body))
        db.execute("update total set sum = sum + ?", (ROWS,))
        if transaction % 10 == 9:
            db.execute("delete from rows where writer = ? and id in (select id from rows where writer = ? limit ?)", (writer, writer, ROWS))
            db.execute("update total set sum = sum - ?", (ROWS,))
        db.execute("commit")
    db.close()


def check(path):
    db = connect(path)
    problems = db.execute("pragma integrity_check").fetchall()
    assert problems == [("ok",)], problems
    expected = WRITERS * (TRANSACTIONS - TRANSACTIONS // 10) * ROWS
    counted = db.execute("select count(*) from rows").fetchone()[0]
    total = db.execute("select sum from total").fetchone()[0]
    assert counted == total == expected, (counted, total, expected)
    for writer, body in db.execute("select writer, body from rows"):
        assert body.startswith(f"{writer} ".encode()) and len(body) % 50 == 0, (writer, body[:20])
    db.close()
    return counted


def use(path):
    db = connect(path)
    db.execute("create table rows(id integer primary key, writer integer, body blob)")
    db.execute("create index by_writer on rows(writer)")
    db.execute("create table total(sum integer)")
    db.execute("insert into total values (0)")
    db.close()
    writers = [multiprocessing.Process(target=write, args=(path, number)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0, f"a writer ended with {writer.exitcode}"


def insert_until_it_dies(path, number, plain):
    """Commits single rows, each noted on the plain disk once it is committed."""
    with open(f"{plain}/committed-{number}", "w") as noted:
        db = connect(path)
        # With a rollback journal, only this level syncs the directory after the removal that commits.
        db.execute("pragma synchronous = extra")
        try:
            for row in range(1_000_000):
                db.execute("insert into crash(writer, row) values (?, ?)", (number, row))
                # A directory that cannot be opened SQLite takes for one that needs no sync: what it answers while the mount dies
                # does not count.
                os.listdir(os.path.dirname(path))
                print(row, file=noted, flush=True)
        except (sqlite3.Error, OSError):
            pass
    # Closing the database would ask the dead filesystem.
    os._exit(0)


def crash(directory, plain):
    writers = []
    for number, mode in enumerate(MODES):
        # Of a crash before.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{plain}/committed-{number}")
        path = f"{directory}/{mode}.db"
        db = connect(path)
        db.execute("drop table if exists crash")
        db.execute("create table crash(writer integer, row integer, primary key (writer, row))")
        db.close()
        writers.append(multiprocessing.Process(target=insert_until_it_dies, args=(path, number, plain)))
    for writer in writers:
        writer.start()
    while not all(os.path.exists(f"{plain}/committed-{number}") and os.path.getsize(f"{plain}/committed-{number}") > 500 for number in range(len(MODES))):
        time.sleep(0.05)
    open(f"{plain}/ready", "w").close()
    for writer in writers:
        writer.join()


def crashed(directory, plain):
    for number, mode in enumerate(MODES):
        with open(f"{plain}/committed-{number}") as noted:
            committed = len(noted.read().split())
        db = connect(f"{directory}/{mode}.db")
        rows = [row for (row,) in db.execute("select row from crash order by row")]
        assert rows == list(range(len(rows))), f"{mode}: rows are missing"
        assert len(rows) >= committed, f"{mode}: {committed} rows were committed, and {len(rows)} are there"
        db.close()


def main():
    phase, directory, plain = sys.argv[1:]
    if phase == "crash":
        crash(directory, plain)
        return
    if phase == "crashed":
        crashed(directory, plain)
    rows = 0
    for mode in MODES:
        path = f"{directory}/{mode}.db"
        if phase == "use":
            use(path)
        rows += check(path)
        if phase == "again":
            db = connect(path)
            db.execute("vacuum")
            db.close()
            check(path)
    print(f"{len(MODES)} journal modes, {WRITERS} writers each, {rows} rows, integrity_check ok")


main()
