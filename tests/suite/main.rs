//! Whole packages in process: a repository in a temporary directory, a volume in it, and what users do with both.
//! One test runs the program itself, to let a reader that shares no code with it read what it wrote.

mod concurrency;
mod corpus;
mod gc;
mod histories;
mod linear;
mod marathons;
mod pressure;
mod protection;
mod reader;
mod repair;
mod schedules;
mod sharing;
mod stories;
mod volume;
