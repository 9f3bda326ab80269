//! Figure: who is named for what ends at once. Short-lived writers (`sh -c 'echo x >> f'`), one after another and 50 at once, and
//! 50,000 removals by one process on one core, under each of the agent's ways to learn of processes.
//!
//! The writers are another user's, in a login and an audit session of their own, so that each answer is right, absent or wrong.
//! Needs root, and that this process has no login itself.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use trueline_tests::binaries::Program;
use trueline_tests::figures::{Form, Table};
use trueline_tests::process::cpu_seconds_precise;

/// No user of the host has it.
const USER: u32 = 54_321;
/// After this long without a further change none is to come.
const QUIET: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 10_000)]
    writers: usize,
    #[arg(long, default_value_t = 50_000)]
    removals: usize,
    /// As `trueline-agent watch --processes` takes them.
    #[arg(long, value_delimiter = ',', default_value = "ebpf,connector,proc")]
    feeds: Vec<String>,
    #[command(flatten)]
    form: Form,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program does when it starts itself.
#[derive(Subcommand)]
enum Role {
    /// As sshd's monitor: begins the login, and stays root beside what its user does.
    #[command(hide = true)]
    LogIn {
        #[command(subcommand)]
        work: Work,
    },
    #[command(flatten)]
    Work(Work),
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Work {
    #[command(hide = true)]
    Write { count: usize, at_once: usize },
    #[command(hide = true)]
    Remove { count: usize },
}

impl Work {
    fn arguments(self) -> Vec<String> {
        match self {
            Self::Write { count, at_once } => vec!["write".to_owned(), count.to_string(), at_once.to_string()],
            Self::Remove { count } => vec!["remove".to_owned(), count.to_string()],
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::LogIn { work }) => return log_in(work),
        Some(Role::Work(Work::Write { count, at_once })) => return write(count, at_once),
        Some(Role::Work(Work::Remove { count })) => return remove(count),
        None => {}
    }
    ensure!(nix::unistd::geteuid().is_root(), "needs root: the writers are another user's");
    let writers = arguments.writers;
    let works = [
        (format!("{writers} writers, one after another"), Work::Write { count: writers, at_once: 1 }),
        (format!("{writers} writers, 50 at once"), Work::Write { count: writers, at_once: 50 }),
        (format!("{} removals by one process on one core", arguments.removals), Work::Remove { count: arguments.removals }),
    ];
    let mut is_wrong = false;
    for feed in &arguments.feeds {
        for (title, work) in &works {
            let figures = measure(&arguments.form, feed, *work)?;
            let mut table = Table::new(format!("{feed}: {title}"));
            for (name, count) in &figures.counts {
                is_wrong |= name.ends_with("WRONG");
                table.row(name.clone(), *count, "changes");
            }
            for (reason, count) in figures.reasons {
                table.row(format!("because {reason}"), count, "changes");
            }
            table.row("the work took", figures.took, "s");
            table.row("processor time of the agent", figures.cpu, "s");
            table.print(arguments.form.json);
        }
    }
    ensure!(!is_wrong, "somebody was named wrongly");
    Ok(())
}

struct Figures {
    counts: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
    took: f64,
    cpu: f64,
}

fn measure(form: &Form, feed: &str, work: Work) -> anyhow::Result<Figures> {
    let base = form.folder()?;
    let watched = base.path().canonicalize()?.join("watched");
    std::fs::create_dir(&watched)?;
    std::os::unix::fs::chown(base.path(), Some(USER), Some(USER))?;
    std::os::unix::fs::chown(&watched, Some(USER), Some(USER))?;
    let count = match work {
        Work::Write { count, .. } => count,
        Work::Remove { count } => {
            for number in 0..count {
                std::fs::write(watched.join(name(number)), "")?;
            }
            count
        }
    };
    let mut agent = Agent::start(feed, &watched)?;
    let cpu = cpu_seconds_precise(agent.child.id())?;
    let began = Instant::now();
    let own = std::env::current_exe()?;
    let mut command = match work {
        Work::Write { .. } => Command::new(&own),
        Work::Remove { .. } => {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(&own);
            command
        }
    };
    command.arg("log-in").args(work.arguments());
    let output = command.current_dir(&watched).stderr(Stdio::inherit()).output().context("starting the writers")?;
    ensure!(output.status.success(), "the writers failed: {}", output.status);
    let took = began.elapsed().as_secs_f64();
    let session = String::from_utf8(output.stdout)?.trim().to_owned();
    let told = agent.changes(count)?;
    let cpu = cpu_seconds_precise(agent.child.id())? - cpu;
    agent.stop()?;

    let program = if matches!(work, Work::Remove { .. }) { own } else { PathBuf::from("/bin/sh").canonicalize()? };
    let truth = Truth { session, program: program.to_string_lossy().into_owned() };
    let mut figures = Figures { counts: BTreeMap::new(), reasons: BTreeMap::new(), took, cpu };
    for number in 0..count {
        let item = format!("file:{}", watched.join(name(number)).display());
        match told.get(&item) {
            Some(actor) => truth.judge(actor, &mut figures),
            None => *figures.counts.entry("not told of".to_owned()).or_default() += 1,
        }
    }
    Ok(figures)
}

fn name(number: usize) -> String {
    format!("f{number}")
}

struct Truth {
    session: String,
    program: String,
}

impl Truth {
    fn judge(&self, actor: &Value, figures: &mut Figures) {
        let mut count = |name: String| *figures.counts.entry(name).or_default() += 1;
        let mut judge = |name: &str, told: Option<String>, truth: &str| {
            let verdict = match &told {
                None => "absent",
                Some(told) if told == truth => "right",
                Some(_) => "WRONG",
            };
            count(format!("{name}: {verdict}"));
        };
        let number = |value: &Value| value.as_u64().map(|number| number.to_string());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        judge("login user", number(&actor["user"]["login_uid"]), &USER.to_string());
        judge("user", number(&actor["user"]["uid"]), &USER.to_string());
        let session = text(&actor["session"]["id"]).and_then(|id| id.rsplit('-').next().map(str::to_owned));
        judge("login session", session, &self.session);
        judge("executable", text(&actor["process"]["exe"]), &self.program);
        count(format!("certainty: {}", actor["certainty"].as_str().unwrap_or("none")));
        if let Some(reason) = actor["reason"].as_str() {
            let plain: String = reason.chars().map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).collect();
            *figures.reasons.entry(plain).or_default() += 1;
        }
    }
}

/// Killed when it is dropped.
struct Agent {
    child: Child,
    lines: Receiver<String>,
}

impl Agent {
    fn start(feed: &str, watched: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(Program::Agent.path()?)
            .args(["watch", "--json", "--processes", feed])
            .arg(watched)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the agent")?;
        let stdout = child.stdout.take().context("the agent's output")?;
        let stderr = child.stderr.take().context("the agent's messages")?;
        let (sender, lines) = channel();
        let (ready_sender, ready) = channel();
        // Both end with the agent.
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("\"watching\"") {
                    let _ = ready_sender.send(());
                } else if !line.contains("inventory complete") {
                    eprintln!("{line}");
                }
            }
        });
        let agent = Self { child, lines };
        ready.recv_timeout(PATIENCE).context("the agent does not watch")?;
        Ok(agent)
    }

    /// The actor of the first change of each item.
    fn changes(&self, count: usize) -> anyhow::Result<HashMap<String, Value>> {
        let mut actors = HashMap::new();
        let began = Instant::now();
        while actors.len() < count {
            match self.lines.recv_timeout(QUIET) {
                Ok(line) => {
                    let mut told: Value = serde_json::from_str(&line).context("a line of the agent")?;
                    if let Some(item) = told["item"].as_str().map(str::to_owned) {
                        actors.entry(item).or_insert_with(|| told["actor"].take());
                    } else {
                        eprintln!("{line}");
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => bail!("the agent has ended"),
            }
            ensure!(began.elapsed() < PATIENCE, "the agent goes on telling of changes");
        }
        Ok(actors)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its session is printed.
fn log_in(work: Work) -> anyhow::Result<()> {
    std::fs::write("/proc/self/loginuid", USER.to_string()).context("beginning a login; this process must not have one")?;
    println!("{}", std::fs::read_to_string("/proc/self/sessionid")?);
    let status = Command::new(std::env::current_exe()?).args(work.arguments()).uid(USER).gid(USER).status()?;
    ensure!(status.success(), "what the user does failed: {status}");
    Ok(())
}

fn write(count: usize, at_once: usize) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once)
            .map(|thread| {
                scope.spawn(move || {
                    for number in (thread..count).step_by(at_once) {
                        let status = Command::new("/bin/sh").arg("-c").arg(format!("echo x >> {}", name(number))).status()?;
                        ensure!(status.success(), "a writer failed: {status}");
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a writing thread broke off"))?)
    })
}

fn remove(count: usize) -> anyhow::Result<()> {
    (0..count).try_for_each(|number| std::fs::remove_file(name(number)).context("removing a file"))
}
