//! Progress bars: on a terminal only, on standard error, and gone when the work is done.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redrawn this often while nothing moves, so that one sees it is alive.
const TICK: Duration = Duration::from_millis(120);

/// A bar that counts bytes up to a total, which may become known later.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts a bar, unless `quiet` or nobody would see it.
    pub fn start(what: &'static str, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style(false));
        bar.set_prefix(what);
        bar.enable_steady_tick(TICK);
        Self { bar }
    }

    /// Tells how far the work is.
    pub fn set(&self, bytes: u64, bytes_total: u64, message: String) {
        if bytes_total > 0 && self.bar.length() != Some(bytes_total) {
            self.bar.set_length(bytes_total);
            self.bar.set_style(style(true));
        }
        self.bar.set_position(bytes);
        self.bar.set_message(message);
    }

    /// Adds to what is done.
    pub fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Tells what is being worked on.
    pub fn message(&self, message: String) {
        self.bar.set_message(message);
    }

    /// Prints a line on standard error without tearing the bar.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(has_total: bool) -> ProgressStyle {
    let template = match has_total {
        true => "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}",
        false => "{prefix} {spinner} {bytes} {bytes_per_sec} {wide_msg}",
    };
    ProgressStyle::with_template(template)
        .expect("the templates are constants that a test parses")
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_valid() {
        style(false);
        style(true);
    }
}
