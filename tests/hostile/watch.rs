//! Nothing may panic, in any thread, and nothing may hang.

use std::{
    panic,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// Panics since the start, of all threads but those of tests.
static PANICS: AtomicU64 = AtomicU64::new(0);
static INSTALLED: Once = Once::new();

/// How long one step may take before the test is ended as hung.
const STEP_MAX: Duration = Duration::from_secs(120);

/// Watches one test: counts panics of other threads, and ends the process with a message if a step does not end.
pub struct Watch {
    steps: mpsc::Sender<()>,
    label: Arc<Mutex<String>>,
}

impl Watch {
    /// Starts to watch.
    pub fn start() -> Self {
        INSTALLED.call_once(|| {
            let former = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // A test's own thread bears the name of the test, and its failure is told by the harness.
                if thread::current().name().is_none_or(|name| !name.contains("::")) {
                    PANICS.fetch_add(1, Ordering::SeqCst);
                }
                former(info);
            }));
        });
        let (steps, label) = (mpsc::channel(), Arc::<Mutex<String>>::default());
        let (sender, receiver) = steps;
        let watched = Arc::clone(&label);
        thread::spawn(move || {
            loop {
                match receiver.recv_timeout(STEP_MAX) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("hung: {}", watched.lock().unwrap());
                        std::process::abort();
                    }
                }
            }
        });
        Self { steps: sender, label }
    }

    /// A step begins; `what` names it should it never end.
    pub fn step(&self, what: &str) {
        *self.label.lock().unwrap() = what.to_string();
        self.steps.send(()).unwrap();
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a thread panicked before: {what}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a thread panicked");
        }
    }
}
