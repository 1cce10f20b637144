//! A hostile or failing store: whatever it does to its bytes, a reader gets the right ones or an error that names the object.

#![allow(clippy::unwrap_used)]

mod flips;
mod objects;
mod story;
mod watch;
