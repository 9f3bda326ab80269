//! Waiting for something that can be observed, with a deadline: the only way a test waits.

use std::time::{Duration, Instant};

use anyhow::bail;

const BETWEEN: Duration = Duration::from_millis(20);

/// Asks until the answer is `Some`. An error of the question ends the wait; so does the deadline, and
/// then the message says what was awaited.
pub async fn until<T>(what: &str, limit: Duration, mut question: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = question().await? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for: {what}", limit.as_secs());
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
