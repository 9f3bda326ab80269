//! What is seen while something takes its time: a spinner or a bar on a terminal, nothing elsewhere.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use crate::counted::counted;

/// How often figures move, and how often what is waited for is asked for.
pub const STEP: Duration = Duration::from_millis(100);

/// Hidden by itself where standard error is no terminal; off the screen when it is dropped.
#[derive(Debug)]
pub struct Meter {
    bar: ProgressBar,
    began: Instant,
}

impl Meter {
    pub fn spinner(what: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {msg}") {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(STEP);
        Self { bar, began: Instant::now() }
    }

    pub fn show(&self, items: u64, bytes: u64) {
        self.bar.set_message(self.figures(items, bytes));
    }

    /// From here on it is known how many there are.
    pub fn bound(&self, what: &str, total: u64) {
        self.bar.set_prefix(what.to_owned());
        self.bar.set_length(total);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {bar:24} {human_pos} of {human_len}") {
            self.bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ").progress_chars("━╸─"));
        }
    }

    pub fn reach(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Takes it off the screen; returns the time since it began.
    pub fn finish(self) -> Duration {
        self.began.elapsed()
    }

    fn figures(&self, items: u64, bytes: u64) -> String {
        figures(items, bytes, self.began.elapsed())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `214,332 items, 1.2 GiB in 3.5 s, 61,000 items/s`.
pub fn figures(items: u64, bytes: u64, took: Duration) -> String {
    let rate = items as f64 / took.as_secs_f64().max(0.001);
    format!("{}, {} in {:.1} s, {} items/s", counted(items, "item"), HumanBytes(bytes), took.as_secs_f64(), HumanCount(rate as u64))
}

/// `214,332`.
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
}
