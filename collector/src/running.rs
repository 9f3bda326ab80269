//! What runs in a collector, from when it serves until the last of it has ended.
//!
//! Invariants:
//! - Shutdown stops accepting first, then ends streams, then commits what was taken in, then stops the tasks; all of it is
//!   joined, or broken off, before [`Running::attend`] returns.
//! - Each of these steps has a limit, for any of them may wait for a database that does not answer. Together they are well
//!   within the unit's TimeoutStopSec.
//! - Nothing of it ends before shutdown. What does (a panic) takes the rest with it, and the process fails: a collector
//!   whose parts are not all there looks well and does not work.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::link::Sessions;

/// How long peers may take to end their connections.
const CLOSE_LIMIT: Duration = Duration::from_secs(8);
/// How long streams may then take: they wait for what they handed in, which is not tried for longer after shutdown began.
const STREAMS_LIMIT: Duration = Duration::from_secs(12);
/// How long the background tasks may take to end by themselves.
const TASKS_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("{part} of the collector ended by itself{how}")]
pub struct PartEnded {
    part: &'static str,
    how: String,
}

#[derive(Debug, Default)]
pub struct Running {
    /// They accept connections and serve them.
    pub servers: JoinSet<()>,
    pub sessions: Arc<Sessions>,
    /// Commits what streams hand in. Has an end of its own after `handed_in`: see [`crate::ingest`].
    pub intake: JoinSet<()>,
    /// Cancelled when streams hand in nothing any more.
    pub handed_in: CancellationToken,
    pub tasks: JoinSet<()>,
}

impl Running {
    /// Until all has ended. Where a part of it ended before `shutdown`, cancels that.
    pub async fn attend(mut self, shutdown: CancellationToken) -> Result<(), PartEnded> {
        let outcome = self.until(&shutdown).await;
        if let Err(error) = &outcome {
            tracing::error!(%error, "shutting down");
        }
        shutdown.cancel();
        self.end().await;
        tracing::info!("the collector has stopped");
        outcome
    }

    async fn until(&mut self, shutdown: &CancellationToken) -> Result<(), PartEnded> {
        let (part, ended) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            Some(ended) = self.servers.join_next() => ("a server", ended),
            Some(ended) = self.intake.join_next() => ("the intake", ended),
            Some(ended) = self.tasks.join_next() => ("a background task", ended),
        };
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let how = ended.err().map_or_else(String::new, |error| format!(": {error}"));
        Err(PartEnded { part, how })
    }

    async fn end(&mut self) {
        if timeout(CLOSE_LIMIT, join(&mut self.servers)).await.is_err() {
            tracing::warn!("some connections did not end in time; they end with the process");
            self.servers.shutdown().await;
        }
        if timeout(STREAMS_LIMIT, self.sessions.join()).await.is_err() {
            tracing::warn!("some streams waited for the database and were broken off");
        }
        self.handed_in.cancel();
        join(&mut self.intake).await;
        if timeout(TASKS_LIMIT, join(&mut self.tasks)).await.is_err() {
            tracing::warn!("some background tasks waited for the database and were broken off");
            self.tasks.shutdown().await;
        }
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the collector failed as it ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// Guards against a test that would hang.
    const GUARD: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_part_that_dies_ends_the_rest_with_an_error() {
        for name in ["a server", "the intake", "a background task"] {
            let (mut running, shutdown) = (Running::default(), CancellationToken::new());
            for set in [&mut running.servers, &mut running.intake, &mut running.tasks] {
                set.spawn(shutdown.clone().cancelled_owned());
            }
            let dying = match name {
                "a server" => &mut running.servers,
                "the intake" => &mut running.intake,
                _ => &mut running.tasks,
            };
            dying.spawn(async { panic!("of the test") });
            let ended = timeout(GUARD, running.attend(shutdown.clone())).await.expect("it ends").unwrap_err();
            assert!(ended.to_string().starts_with(name) && ended.to_string().contains("panic"), "{ended}");
            assert!(shutdown.is_cancelled());
        }
    }

    #[tokio::test]
    async fn one_that_ends_at_shutdown_is_no_failure_and_one_that_hangs_is_broken_off() {
        let (mut running, shutdown) = (Running::default(), CancellationToken::new());
        running.servers.spawn(shutdown.clone().cancelled_owned());
        running.tasks.spawn(pending());
        running.intake.spawn(running.handed_in.clone().cancelled_owned());
        let attended = tokio::spawn(running.attend(shutdown.clone()));
        shutdown.cancel();
        timeout(GUARD, attended).await.expect("it ends").unwrap().unwrap();
    }
}
