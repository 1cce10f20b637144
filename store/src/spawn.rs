//! Where threads come from, so that a whole program runs unmodified in simulation.
//!
//! *Invariants*: the store starts no thread but through a [`Spawner`].
//!
//! *Threads*: everything here may be called from any thread. A thread that waits for another one (a channel, a condition) does so
//! inside [`blocking`].

use std::{fmt, io, panic::resume_unwind, thread};

/// Starts threads, and is told where they could be interrupted or have to wait.
pub trait Spawner: Send + Sync + fmt::Debug {
    /// Starts a named thread.
    fn spawn(&self, name: &str, f: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle>;

    /// The calling thread is about to wait for another one; see [`blocking`].
    fn blocking_begin(&self);

    /// The calling thread has stopped waiting.
    fn blocking_end(&self);

    /// A place where another thread could run first. `label` names the place in a trace.
    fn step(&self, label: &'static str);
}

/// One started thread.
#[derive(Debug)]
pub struct JoinHandle {
    thread: thread::JoinHandle<()>,
}

impl JoinHandle {
    /// Waits for the thread's end; a panic of the thread goes on in the caller.
    pub fn join(self) {
        if let Err(panic) = self.thread.join() {
            resume_unwind(panic);
        }
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Real threads; steps and waits are left to the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Spawner for Threads {
    fn spawn(&self, name: &str, f: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle> {
        let thread = thread::Builder::new().name(name.to_string()).spawn(f)?;
        Ok(JoinHandle { thread })
    }

    fn blocking_begin(&self) {}

    fn blocking_end(&self) {}

    fn step(&self, _label: &'static str) {}
}

/// Runs `f`, which waits for another thread, as a wait that the spawner knows of.
pub fn blocking<R>(spawner: &dyn Spawner, f: impl FnOnce() -> R) -> R {
    struct Waiting<'s>(&'s dyn Spawner);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.blocking_end();
        }
    }
    spawner.blocking_begin();
    let _waiting = Waiting(spawner);
    f()
}
