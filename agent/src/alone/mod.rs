//! What the agent does without a collector: `watch`, `scan`, `check-coverage`.

pub mod check_coverage;
pub mod scan;
pub mod watch;
