"""What is taken away, and which test has to notice."""

from dataclasses import dataclass

STORE = ("--package", "vellum-store", "--lib")
FS = ("--package", "vellum-fs", "--lib")
CRASH = ("--package", "vellum-tests", "--test", "crash")
SUITE = ("--package", "vellum-tests", "--test", "suite")
MOUNT = ("--package", "vellum-tests", "--test", "mount")


@dataclass(frozen=True)
class Mutant:
    """One rule without the line that keeps it."""

    name: str
    rule: str
    # File, what is there, and what stands there instead.
    edits: tuple
    # Arguments of `cargo test`: the target, and a part of the test's name.
    target: tuple
    test: str


MUTANTS = (
    Mutant(
        "pack-unsynced",
        "F1",
        ((
            "store/src/backend/local/open.rs",
            "        self.body.file.sync_data().map_err(|e| self.fail_sync(state, e))?;\n        match",
            "        match",
        ),),
        STORE,
        "whatever_was_promised_survives_power_loss_before_any_call",
    ),
    Mutant(
        "pack-name-unsynced",
        "F1",
        ((
            "store/src/backend/local/open.rs",
            "self.shared.sync_dir(dir).and_then(|()| self.shared.sync_dir(OPEN_DIR))",
            "Ok::<(), Error>(())",
        ),),
        STORE,
        "whatever_was_promised_survives_power_loss_before_any_call",
    ),
    Mutant(
        "index-before-packs",
        "F1",
        (("store/src/repository/commit.rs", "        pipeline.store_packs()?;\n        step(\"commit: packs", "        step(\"commit: packs"),),
        STORE,
        "repository::tests",
    ),
    Mutant(
        "children-after-parent",
        "F2",
        ((
            "fs/src/tree/store.rs",
            "            if let Some(child) = node.resident(at) {\n                self.put(child, again)?;\n            }",
            "            let _ = node.resident(at);",
        ),),
        FS,
        "tree::",
    ),
    Mutant(
        "head-name-unsynced",
        "F3",
        (("store/src/backend/local.rs", "        self.shared.sync_dir(dir)?;\n        Ok(Some(put))", "        Ok(Some(put))"),),
        STORE,
        "whatever_was_promised_survives_power_loss_before_any_call",
    ),
    Mutant(
        "put-overwrites",
        "F4",
        ((
            "store/src/backend/local.rs",
            "disk.rename(&temporary, &target) } else { disk.rename_new(&temporary, &target) }",
            "disk.rename(&temporary, &target) } else { disk.rename(&temporary, &target) }",
        ),),
        STORE,
        "backend::local",
    ),
    Mutant(
        "gc-buries-at-once",
        "F5",
        ((
            "fs/src/volume/gc.rs",
            "        // and the two newest heads both name the tombstones before the packs go.\n"
            "        commit(volumes)?;\n        commit(volumes)?;\n",
            "",
        ),),
        SUITE,
        "gc::",
    ),
    Mutant(
        "leftovers-of-others",
        "F5",
        (("store/src/repository/places.rs", "leftovers.names.is_empty() || !all_replayed || ", "leftovers.names.is_empty() || "),),
        STORE,
        "repository::tests",
    ),
    Mutant(
        "readers-not-awaited",
        "F5",
        (("fs/src/volume/gc.rs", "if !readers_have_gone(volumes) || ", "if !readers_have_gone(&volumes[..0]) || "),),
        SUITE,
        "gc::a_reader_that_began",
    ),
    Mutant(
        "open-pack-unsynced",
        "F6",
        (
            ("fs/src/volume/journal.rs", "            self.repository.sync_open_packs()?;\n", ""),
            (
                "store/src/repository/places.rs",
                "if place.pack.is_synced(place.entry.end()) || place.pack.sync().is_ok() {",
                "if !place.pack.name().to_string().is_empty() {",
            ),
        ),
        CRASH,
        "",
    ),
    Mutant(
        "open-name-unsynced",
        "F6",
        ((
            "store/src/backend/local/open.rs",
            "            self.shared.sync_dir(OPEN_DIR).inspect_err(|e| state.closed = Some(e.clone()))?;\n",
            "",
        ),),
        STORE,
        "whatever_was_promised_survives_power_loss_before_any_call",
    ),
    Mutant(
        "journal-unsynced",
        "F6",
        (("store/src/journal/ring.rs", "        segment.file.file.sync_data().map_err(WriteError::Failed)?;\n", ""),),
        CRASH,
        "",
    ),
    Mutant(
        "journal-trimmed-too-far",
        "F6",
        ((
            "fs/src/volume/checkpoint.rs",
            "trim(freeze.journal_commit, stored.head.hash)",
            "trim(journal.last_commit(), stored.head.hash)",
        ),),
        SUITE,
        "stories::",
    ),
    Mutant(
        "head-forgets-a-commit",
        "F6",
        (("fs/src/volume/checkpoint.rs", "|journal| journal.last_commit());", "|journal| journal.last_commit().saturating_sub(1));"),),
        CRASH,
        "",
    ),
    Mutant(
        "snapshot-writable",
        "F7",
        ((
            "fs/src/volume/ops/files.rs",
            "            if mode.write {\n                return Err(Error::ReadOnly(\"a snapshot\".into()));\n            }\n",
            "",
        ),),
        MOUNT,
        "snapshots::",
    ),
    Mutant(
        "rename-before-content",
        "P1",
        (("fs/src/volume/ops/names.rs", "            meta.ties.extend(moved.map(|ino| Tie { sequence, ino }));", "            drop((moved, Tie { sequence, ino: renamed.moved }));"),),
        SUITE,
        "stories::",
    ),
    Mutant(
        "ends-not-journalled",
        "P1",
        ((
            "fs/src/volume/journal.rs",
            "for segment in captures.iter().flat_map(Capture::segments) {",
            "for segment in captures.iter().flat_map(Capture::segments).take(0) {",
        ),),
        CRASH,
        "ends::",
    ),
    Mutant(
        "head-not-remembered",
        "P5",
        ((
            "store/src/repository/commit.rs",
            "        self.remember(volume, Remembered::new(head.sequence, published.bytes, draft.time_ns))?;\n",
            "        drop(Remembered::new(head.sequence, published.bytes, draft.time_ns));\n",
        ),),
        STORE,
        "repository::tests",
    ),
    Mutant(
        "space-not-weighed",
        "P6",
        (("fs/src/volume/space.rs", "            return Err(Error::NoSpace(\"the disk of the repository is full\".into()));", "            return Ok(());"),),
        CRASH,
        "faults::a_disk_that_fills_up_keeps_all_that_it_accepted",
    ),
    Mutant(
        "reservations-kept",
        "P6",
        (("store/src/backend/local/open.rs", "filter(|body| body.give_up_reserve()).count()", "filter(|_| false).count()"),),
        STORE,
        "reservations_give_way_before_a_disk_counts_as_full",
    ),
    Mutant(
        "reserve-unused",
        "P6",
        (("store/src/backend/local/open.rs", "gained = u64::from(self.give_up_slice());", "gained = 0;"),),
        STORE,
        "what_is_set_aside_is_the_last_space_to_be_used_and_comes_back",
    ),
    Mutant(
        "sync-tried-again",
        "a failed sync is never repeated",
        ((
            "store/src/backend/local/open.rs",
            "state.closed.insert(Error::sync(format!(\"sync {}\", self.path.display()), e)).clone()",
            "{\n            let _ = &state;\n            Error::sync(format!(\"sync {}\", self.path.display()), e)\n        }",
        ),),
        STORE,
        "open_object_is_poisoned_by_its_first_failure_and_never_synced_again",
    ),
    Mutant(
        "damage-is-noted-as-read",
        "P2",
        (("store/src/repository/check.rs", "Err(error) => return self.tell(error).map(|()| false),", "Err(error) => return self.tell(error).map(|()| true),"),),
        STORE,
        "a_check_that_was_cut_off_reads_what_it_has_not_read",
    ),
    Mutant(
        "bodies-behind-the-size",
        "P1",
        (("fs/src/volume/replay.rs", "last.max(state.live.end())", "last"),),
        SUITE,
        "bytes_of_a_body_that_were_cut_off_before_a_sync_do_not_return",
    ),
)
