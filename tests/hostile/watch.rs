//! Nothing may panic, in any thread, and nothing may hang.

use std::{
    panic,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Panics since the start, of all threads but those of tests.
static PANICS: AtomicU64 = AtomicU64::new(0);
static INSTALLED: Once = Once::new();

/// How long one step may take before the test is ended as hung.
const STEP_SECONDS_MAX: u64 = 120;

/// Watches one test: counts panics of other threads, and ends the process with a message if a step does not end.
pub struct Watch {
    steps: Arc<AtomicU64>,
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
        let watch = Self { steps: Arc::default(), label: Arc::default() };
        let (steps, label) = (Arc::downgrade(&watch.steps), Arc::clone(&watch.label));
        thread::spawn(move || {
            let (mut last, mut seconds) = (0, 0);
            while let Some(steps) = steps.upgrade().map(|steps| steps.load(Ordering::SeqCst)) {
                seconds = if steps == last { seconds + 1 } else { 0 };
                last = steps;
                if seconds > STEP_SECONDS_MAX {
                    eprintln!("hung: {}", label.lock().unwrap());
                    std::process::abort();
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
        watch
    }

    /// A step begins; `what` names it should it never end.
    pub fn step(&self, what: &str) {
        *self.label.lock().unwrap() = what.to_string();
        self.steps.fetch_add(1, Ordering::SeqCst);
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
