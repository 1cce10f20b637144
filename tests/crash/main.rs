//! Power loss: a volume on a disk that knows what would survive is stopped at any moment, opened again, and must show a state
//! that promise P1 allows, without repair.
//!
//! Seeds are printed by what fails; `VELLUM_SEED` starts from one, `VELLUM_TEST_RUNS` multiplies the runs.

mod ends;
mod faults;
mod moments;
mod points;
