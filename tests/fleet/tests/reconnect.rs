//! A collector that was away for long, and a fleet that waits for it: it returns spread out, and everyone is served.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::RngExt;
use tokio::task::JoinSet;
use trueline_agent::link::Backoff;
use trueline_drift::RecordBody;
use trueline_fleet::collector::{Collector, Setting};
use trueline_fleet::root::Root;
use trueline_fleet::story::story;
use trueline_fleet::{needs, network};
use trueline_tests::content::World;
use trueline_tests::fleet::Member;
use trueline_tests::wait;

const AGENTS: u8 = 50;
const ITEMS: usize = 50;
/// Of each agent while its collector was away.
const CHANGES: u64 = 60;
/// Failures after which an agent's wait has reached its bound: what it is after an hour it is after ten.
const FAILURES: u32 = 10;
/// The longest wait, and as much again for what is slow.
const LIMIT: Duration = Duration::from_secs(300);
/// Of 50 agents that wait 30 s in the mean, 1.7 come in a second; 15 in one second is chance once in 10^9.
const MOST_IN_A_SECOND: usize = 15;

/// What one agent did once the collector was back, counted from then.
struct Returned {
    /// When it dialled, with success or not.
    dialled: Vec<Duration>,
    served: Duration,
}

/// One agent: dials as an agent does, until all that it holds is durable at the collector.
async fn wait_for_collector(
    mut member: Member,
    collector: SocketAddr,
    failed: Arc<AtomicUsize>,
    since: Arc<OnceLock<Instant>>,
) -> anyhow::Result<Returned> {
    let mut backoff = Backoff::of_link();
    for _ in 0..FAILURES {
        let _ = backoff.next_wait(0);
    }
    let mut dialled = Vec::new();
    // All of them lost the collector at one moment: what spreads them from here on is their waits alone.
    let mut wait = backoff.next_wait(rand::rng().random());
    let mut has_failed = false;
    loop {
        tokio::time::sleep(wait).await;
        let at = since.get().map(Instant::elapsed);
        dialled.extend(at);
        let tried = match member.connect(collector).await {
            Ok(mut session) => {
                backoff.reset();
                member.deliver(&mut session).await
            }
            Err(error) => Err(error),
        };
        match tried {
            Ok(()) => {
                // The collector is back a moment before this test knows.
                if at.is_none() {
                    dialled.push(Duration::ZERO);
                }
                return Ok(Returned { dialled, served: since.get().map_or(Duration::ZERO, Instant::elapsed) });
            }
            Err(_) => {
                if !std::mem::replace(&mut has_failed, true) {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                wait = backoff.next_wait(rand::rng().random());
            }
        }
    }
}

#[tokio::test]
async fn fifty_agents_return_to_a_collector_that_was_away_without_a_stampede() -> anyhow::Result<()> {
    let Some(packages) = needs::packages() else { return Ok(()) };
    story(&[Root::Collector], async |fleet| {
        let collector = Collector::install(fleet, &packages, Setting::default()).await?;
        let addresses = network::further_addresses(fleet.number(), AGENTS).await?;
        let token = collector.join_token(usize::from(AGENTS)).await?;
        let mut members = Vec::new();
        let mut ids = Vec::new();
        for (number, address) in addresses.into_iter().enumerate() {
            let name = format!("simulated-{number:02}");
            let mut member = Member::enrol(collector.enrolment(), collector.ca_sha256()?, &token, &name).await?;
            member.source = Some(address.into());
            let mut world = World::new(number, ITEMS);
            member.append(world.inventory())?;
            let mut session = member.connect(collector.agents()).await?;
            member.deliver(&mut session).await?;
            for _ in 0..CHANGES {
                member.append(vec![RecordBody::Changed(Box::new(world.change()))])?;
            }
            ids.push((member.host_id.clone(), member.newest().0));
            members.push(member);
        }

        collector.host.root("systemctl stop trueline-collector").await?;
        let (failed, since) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::new()));
        let mut agents = JoinSet::new();
        for member in members {
            agents.spawn(wait_for_collector(member, collector.agents(), Arc::clone(&failed), Arc::clone(&since)));
        }
        wait::until("every agent to have found the collector away", LIMIT, async || {
            Ok((failed.load(Ordering::Relaxed) == usize::from(AGENTS)).then_some(()))
        })
        .await?;
        collector.host.root("systemctl start trueline-collector").await?;
        collector.ready().await?;
        since.set(Instant::now()).ok().context("the collector came back twice")?;

        let returned = tokio::time::timeout(LIMIT, agents.join_all()).await.context("not every agent was served")?;
        let returned: Vec<Returned> = returned.into_iter().collect::<anyhow::Result<_>>()?;
        let mut dialled: Vec<Duration> = returned.iter().flat_map(|agent| agent.dialled.iter().copied()).collect();
        dialled.sort();
        let in_a_second = |from: &Duration| dialled.iter().filter(|at| (*from..*from + Duration::from_secs(1)).contains(*at)).count();
        let most = dialled.iter().map(in_a_second).max().unwrap_or(0);
        let mut served: Vec<f64> = returned.iter().map(|agent| agent.served.as_secs_f64()).collect();
        served.sort_by(f64::total_cmp);
        let last = served[served.len() - 1];
        eprintln!(
            "{AGENTS} agents with {CHANGES} changes each: {} connections, at most {most} in one second; served after {:.1} s in the median, {last:.1} s at last",
            dialled.len(),
            served[served.len() / 2],
        );
        ensure!(most <= MOST_IN_A_SECOND, "{most} agents came within one second");
        ensure!(dialled.len() <= usize::from(AGENTS) + 5, "{} connections for {AGENTS} agents: some were turned away", dialled.len());
        for (id, newest) in ids {
            let shown = collector.shown(&id).await?;
            ensure!(shown["acknowledged"] == newest, "{id} has sent {newest} records: {shown}");
        }
        Ok(())
    })
    .await
}
