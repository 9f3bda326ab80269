//! Waiting for something that can be observed, with a deadline: the only way a test waits.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, timeout_at};

const BETWEEN: Duration = Duration::from_millis(20);

/// Asks until the answer is `Some`. An error of the question ends the wait; so does the deadline, also where
/// it passes while a question is asked, and then the message says what was awaited.
pub async fn until<T>(what: &str, limit: Duration, mut question: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    // Asked for itself: a question that never waits is never cut off.
    while Instant::now() < deadline {
        let Ok(answer) = timeout_at(deadline, question()).await else { break };
        if let Some(answer) = answer? {
            return Ok(answer);
        }
        sleep(BETWEEN).await;
    }
    bail!("waited {} s in vain for: {what}", limit.as_secs())
}
