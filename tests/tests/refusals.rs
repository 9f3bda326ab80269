//! What a hostile or broken peer does at the agents' ports of a real collector is refused with a reason, logged
//! once for each peer and reason however often it comes, and disturbs nobody.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "refusals/attack.rs"]
mod attack;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use attack::{Attack, Attacker};
use serde_json::json;
use tokio::task::JoinHandle;
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::database::{Database, Engine};
use trueline_tests::fleet::Member;
use trueline_tests::numbered::{each_once_in_order, member, numbered};
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(60);
/// As many as an address may fail to enrol in a minute: the next would be refused for their number.
const ATTEMPTS: usize = 20;

/// A member that delivers changes on one stream all the while.
struct Steady {
    host: String,
    delivered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Steady {
    async fn begin(collector: &Collector) -> anyhow::Result<Self> {
        let mut member = member(collector, "steady").await?;
        let mut session = member.connect(collector.agents()).await?;
        let (delivered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let host = member.host_id.clone();
        let task = tokio::spawn({
            let (delivered, stop) = (Arc::clone(&delivered), Arc::clone(&stop));
            async move {
                let mut next = 0;
                while !stop.load(Ordering::Relaxed) {
                    member.append(numbered(next..next + 3))?;
                    next += 3;
                    member.deliver(&mut session).await.with_context(|| format!("disturbed before change {next}"))?;
                    delivered.store(next, Ordering::Relaxed);
                }
                Ok(())
            }
        });
        Ok(Self { host, delivered, stop, task })
    }

    /// Waits for more of it to be durable.
    async fn goes_on(&self) -> anyhow::Result<()> {
        let before = self.delivered.load(Ordering::Relaxed);
        wait::until("the steady member's next change", LIMIT, async || {
            ensure!(!self.task.is_finished(), "the steady member was disturbed");
            Ok((self.delivered.load(Ordering::Relaxed) > before).then_some(()))
        })
        .await
    }

    /// Ends it, and looks at all that it sent.
    async fn end(self, collector: &Collector) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        tokio::time::timeout(LIMIT, self.task).await.context("the steady member did not end")???;
        each_once_in_order(collector, &self.host, self.delivered.load(Ordering::Relaxed)).await
    }
}

/// The lines of the collector's log that tell of refusals to this attack's address.
fn told_in_log(collector: &Collector, attack: Attack) -> Vec<String> {
    let peer = format!("peer={} ", attack.source());
    collector.log().lines().filter(|line| line.contains("refused: ") && line.contains(&peer)).map(str::to_owned).collect()
}

async fn refused_once_told_and_nobody_disturbed(engine: Engine) -> anyhow::Result<()> {
    if !needs::daemons() || !engine.present() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let database = Database::start(engine, folder.path()).await?;
    let setting = Setting { data_dir: Some(folder.path().join("data")), ..Setting::default() };
    // The same CA and database, by a collector whose certificates last a second.
    let mut hasty = Collector::start(&database, Setting { certificate_seconds: Some(1), ..setting.clone() }).await?;
    let late = member(&hasty, "late").await?;
    let short = hasty.rest().post("/tokens", &json!({ "kind": "join", "expires_in_seconds": 1 })).await?;
    let short = short["token"].as_str().context("no token")?.to_owned();
    hasty.stop().await?;
    let elsewhere = tempfile::tempdir()?;
    let other = Collector::start(&Database::start(Engine::Sqlite, elsewhere.path()).await?, Setting::default()).await?;
    let stranger = member(&other, "stranger").await?;

    let collector = Collector::start(&database, setting).await?;
    let steady = Steady::begin(&collector).await?;
    let mut attacker = Attacker::new(&collector, &stranger, &late, short).await?;
    wait::until("the token and the certificate of a second to be over", LIMIT, async || {
        let tokens = collector.rest().all("/tokens", &[]).await?;
        let token_is_over = tokens.iter().any(|token| token["standing"] == "expired");
        let certificate_is_over = late.shown_to(attacker.ca())?.shake(None, collector.agents()).await.is_err();
        Ok((token_is_over && certificate_is_over).then_some(()))
    })
    .await?;
    for attack in Attack::ALL {
        for attempt in 0..ATTEMPTS {
            let answer =
                tokio::time::timeout(LIMIT, attacker.attempt(attack)).await.context("it was not answered").and_then(|answer| answer);
            let answer = answer.with_context(|| format!("{attack:?}, attempt {attempt}"))?;
            ensure!(answer.contains(attack.told()), "{attack:?} was answered with `{answer}`, not with `{}`", attack.told());
        }
        steady.goes_on().await.with_context(|| format!("after {attack:?}"))?;
    }
    for attack in Attack::ALL {
        // The last refusal is noted after its peer has heard of it.
        let lines = wait::until("a refusal to be logged", LIMIT, async || {
            let lines = told_in_log(&collector, attack);
            Ok((!lines.is_empty()).then_some(lines))
        });
        let lines = lines.await.with_context(|| format!("{attack:?}"))?;
        ensure!(lines.len() == 1, "{attack:?} is in the log {} times: {lines:#?}", lines.len());
        ensure!(lines[0].contains(&format!("reason=\"{}\"", attack.reason())), "{attack:?} was logged as {}", lines[0]);
    }
    let counted = collector.rest().metric("trueline_refusals_total").await?;
    ensure!(counted >= (ATTEMPTS * Attack::ALL.len()) as f64, "only {counted} refusals were counted");
    steady.end(&collector).await
}

#[tokio::test]
async fn attacks_are_refused_told_once_and_disturb_nobody_on_sqlite() -> anyhow::Result<()> {
    refused_once_told_and_nobody_disturbed(Engine::Sqlite).await
}

#[tokio::test]
async fn attacks_are_refused_told_once_and_disturb_nobody_on_postgres() -> anyhow::Result<()> {
    refused_once_told_and_nobody_disturbed(Engine::Postgres).await
}

#[tokio::test]
async fn who_guesses_tokens_is_slowed_down_alone() -> anyhow::Result<()> {
    if !needs::daemons() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let collector = Collector::start(&Database::start(Engine::Sqlite, folder.path()).await?, Setting::default()).await?;
    let stranger = member(&collector, "stranger").await?;
    let mut attacker = Attacker::new(&collector, &stranger, &stranger, String::new()).await?;
    for _ in 0..ATTEMPTS {
        attacker.attempt(Attack::TokenUnknown).await?;
    }
    let answer = attacker.attempt(Attack::TokenUnknown).await?;
    ensure!(answer.contains("too many enrolments from this address"), "the next guess was answered with `{answer}`");
    let token = collector.join_token(1).await?;
    Member::enrol(collector.enrolment(), collector.ca_sha256()?, &token, "elsewhere").await.context("from another address")?;
    Ok(())
}
