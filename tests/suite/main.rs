//! Whole packages in process: a repository in a temporary directory, a volume in it, and what users do with both.

mod concurrency;
mod histories;
mod stories;
mod volume;
