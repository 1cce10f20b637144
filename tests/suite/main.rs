//! Whole packages in process: a repository in a temporary directory, a volume in it, and what users do with both.

mod histories;
mod volume;
