//! Runs each model of [`vellum_interleavings::orders`].

use vellum_interleavings::orders;

macro_rules! run {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            orders::$name();
        }
    )* };
}

run! {
    a_writer_that_waits_is_woken_by_what_is_given_back
    two_writers_that_wait_are_both_woken
    who_waits_is_told_that_the_disk_is_full
    who_waits_passes_when_the_gates_open
    a_sync_covers_what_its_caller_knows_of
    two_syncs_cover_what_both_know_of
    damage_that_is_noted_stays_noted_beside_what_heals
    no_request_waits_while_a_thread_may_be_started
    a_free_thread_is_taken_once
    places_are_as_many_as_before_when_all_is_done
    a_thread_that_could_not_be_started_leaves_its_place
}
