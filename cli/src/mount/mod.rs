//! Mounting: options, what is checked before, the process that serves, and the way back.

pub mod checks;
pub mod daemon;
pub mod helper;
pub mod last_words;
pub mod options;
pub mod serve;
pub mod unmount;
