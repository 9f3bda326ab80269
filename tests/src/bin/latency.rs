//! Figure: from a change on disk until its drift can be read over REST, one change at a time, with
//! the real agent and the real collector.

use std::time::{Duration, Instant};

use clap::Parser;
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::daemon::write;
use trueline_tests::database::{Database, Engine};
use trueline_tests::figures::{Form, Quantiles, Table};

/// After this long a change counts as missed.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1000)]
    changes: usize,
    #[arg(long, default_value = "sqlite")]
    database: Engine,
    #[command(flatten)]
    form: Form,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = arguments.form.folder()?;
    let watched = folder.path().canonicalize()?.join("watched");
    std::fs::create_dir(&watched)?;
    let path = |index: usize| watched.join(format!("service-{index:04}.conf"));
    for index in 0..arguments.changes {
        write(&path(index), format!("setting = {index}\n"))?;
    }
    let database = Database::start(arguments.database, folder.path()).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let agent = Agent::start(&collector, &Watch::paths([&watched])).await?;
    let host = agent.inventoried(&collector, Duration::from_secs(60)).await?;
    collector.capture_baseline(&host, "before").await?;

    let mut samples = Vec::with_capacity(arguments.changes);
    let mut missed = 0;
    for index in 0..arguments.changes {
        let path = path(index);
        let item = format!("file:{}", path.display());
        let start = Instant::now();
        write(&path, format!("setting = changed {index}\n"))?;
        loop {
            let drift = collector.rest().get("/drift", &[("item", &item), ("limit", "1")]).await?;
            if drift["items"].as_array().is_some_and(|items| !items.is_empty()) {
                samples.push(start.elapsed());
                break;
            }
            if start.elapsed() > LIMIT {
                missed += 1;
                break;
            }
            // Between two questions: small beside what is measured, long enough to leave the processors to it.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let quantiles = Quantiles::of(&samples);
    let mut table = Table::new(format!("change on disk -> drift over REST, {} changes, {}", arguments.changes, arguments.database.name()));
    table.row("min", quantiles.min, "ms");
    table.row("p50", quantiles.median, "ms");
    table.row("p99", quantiles.p99, "ms");
    table.row("max", quantiles.max, "ms");
    table.row("not seen within 10 s", missed, "changes");
    table.print(arguments.form.json);
    Ok(())
}
