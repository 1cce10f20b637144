//! A hostile or failing store: whatever it does to its bytes, a reader gets the right ones or an error that names the object.

#![allow(clippy::unwrap_used)]

mod flips;
mod input;
mod objects;
#[cfg(unix)]
mod planted;
mod secrecy;
mod story;
mod watch;
