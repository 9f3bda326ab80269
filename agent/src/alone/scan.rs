//! `trueline-agent scan`: an inventory of paths, or of the whole host, on standard output.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use serde::Serialize;
use trueline_drift::redact::{RedactionKey, Rules};
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Fields, ItemId, ItemKind, Value, text};

pub use super::watch::Output;
use crate::collect::{Collectors, Reading};
use crate::scan::{Met, Nothing, ScanError, ScanMode, ScanOptions, ScanProgress, ScanSummary, scan};

/// Batches between the scan and the output.
const QUEUED: usize = 16;

/// Totals by kind of item, in the order of [`ItemKind::ALL`].
#[derive(Debug)]
struct Totals([u64; ItemKind::ALL.len()]);

impl Default for Totals {
    fn default() -> Self {
        Self([0; ItemKind::ALL.len()])
    }
}

impl Totals {
    fn count(&mut self, item: &ItemId) {
        if let Some(at) = ItemKind::ALL.iter().position(|kind| *kind == item.kind) {
            self.0[at] += 1;
        }
    }

    fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ItemKind::ALL.iter().map(|kind| kind.name()).zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// Scans these paths, or without any all that the configured watch list has in view: as fast as it can, since
/// somebody waits for it. The inventory goes to standard output; a reader that leaves early ends the scan without complaint.
pub fn run(watch: &WatchPolicy, rules: Rules, paths: &[PathBuf], output: Output, threads: usize) -> anyhow::Result<ExitCode> {
    let policy = policy(watch, paths)?;
    match inventory(&policy, rules, output, threads) {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

/// The watch list with these kinds alone, where any is named.
pub fn narrowed(watch: WatchPolicy, kinds: Vec<ItemKind>) -> WatchPolicy {
    match kinds.contains(&ItemKind::File) {
        _ if kinds.is_empty() => watch,
        true => WatchPolicy { kinds, ..watch },
        false => WatchPolicy { kinds, paths: Vec::new(), ..watch },
    }
}

fn policy(watch: &WatchPolicy, paths: &[PathBuf]) -> anyhow::Result<WatchPolicy> {
    if paths.is_empty() {
        return Ok(watch.clone());
    }
    let mut roots = Vec::new();
    for path in paths {
        let printable = |path: &Path| text::printable(path.as_os_str().as_bytes()).into_owned();
        let metadata = path.symlink_metadata().with_context(|| format!("cannot scan `{}`", printable(path)))?;
        let whole = || path.canonicalize().with_context(|| format!("cannot resolve `{}`", printable(path)));
        if !metadata.is_symlink() {
            roots.push(printable(&whole()?));
            continue;
        }
        // The link itself, and what it stands for.
        let name = path.file_name().with_context(|| format!("`{}` names no file", printable(path)))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        roots.push(printable(&parent.canonicalize()?.join(name)));
        roots.extend(whole().ok().map(|target| printable(&target)));
    }
    // Whoever names a path wants all of it.
    Ok(WatchPolicy { paths: roots, exclude: Vec::new(), kinds: vec![ItemKind::File], ..watch.clone() })
}

fn inventory(policy: &WatchPolicy, rules: Rules, output: Output, threads: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    let progress = Arc::new(ScanProgress::default());
    let bar = bar();
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let mut totals = Totals::default();
    // Secrets are told from each other within this run and in no other: the agent's own key is not for whoever looks.
    let key = RedactionKey::new(rand::random()).with_rules(rules);
    let collectors = Collectors::new(Arc::new(policy.clone()), key.clone());
    let options = ScanOptions { threads, mode: ScanMode::Full, pace: None };
    let mut failures = 0;
    let summary = std::thread::scope(|scope| -> anyhow::Result<ScanSummary> {
        let (sink, batches) = sync_channel(QUEUED);
        let scanning = scope.spawn(|| scan(policy, &options, &key, &Nothing, sink, &progress));
        let mut written = Ok(());
        for batch in &batches {
            for met in &batch {
                let Met::Read(item, reading) = met else { continue };
                totals.count(item);
                if written.is_ok() {
                    written = write_item(&mut out, output, item, reading);
                }
            }
            if written.is_err() {
                break;
            }
            tick(&bar, &progress);
        }
        drop(batches);
        let summary = scanning.join().map_err(|_| anyhow::anyhow!("the scan broke off: a thread of it panicked"))?;
        written?;
        match summary {
            Err(ScanError::Stopped) => anyhow::bail!("the scan was stopped"),
            other => Ok(other?),
        }
    })?;
    for kind in policy.kinds.iter().copied().filter(|kind| *kind != ItemKind::File) {
        let listing = collectors.list(kind).with_context(|| format!("cannot list items of the kind {kind}"));
        let listing = match listing {
            Ok(listing) => listing,
            Err(error) => {
                failures += 1;
                bar.suspend(|| eprintln!("trueline-agent: {error:#}"));
                continue;
            }
        };
        failures += listing.skipped;
        for (item, mut reading) in listing.items {
            conceal(&mut reading.fields);
            totals.count(&item);
            write_item(&mut out, output, &item, &reading)?;
        }
    }
    bar.finish_and_clear();
    let elapsed = started.elapsed();
    let files = progress.files.load(Ordering::Relaxed) + progress.folders.load(Ordering::Relaxed);
    if output == Output::JsonLines {
        let summary = SummaryLine {
            summary: Summary {
                items: totals.by_kind().collect(),
                bytes: summary.bytes,
                failures: summary.failures + failures,
                skipped: &summary.skipped,
                seconds: elapsed.as_secs_f64(),
                files_per_second: rate(files, summary.elapsed),
                bytes_per_second: rate(summary.bytes, summary.elapsed),
            },
        };
        serde_json::to_writer(&mut out, &summary)?;
        out.write_all(b"\n")?;
        out.flush()?;
        return Ok(());
    }
    out.flush()?;
    let kinds: Vec<_> = totals.by_kind().map(|(kind, count)| counted(count, kind)).collect();
    eprintln!(
        "{} in {:.2} s: {} files/s, {} read, {}/s",
        if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") },
        elapsed.as_secs_f64(),
        HumanCount(rate(files, summary.elapsed)),
        HumanBytes(summary.bytes),
        HumanBytes(rate(summary.bytes, summary.elapsed)),
    );
    if summary.failures + failures > 0 {
        eprintln!("{} could not be read in full", counted(summary.failures + failures, "item"));
    }
    for path in &summary.skipped {
        eprintln!("not entered, as its files are not this host's own: {path}");
    }
    Ok(())
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: Summary<'a>,
}

#[derive(Serialize)]
struct Summary<'a> {
    items: std::collections::BTreeMap<&'static str, u64>,
    bytes: u64,
    failures: u64,
    skipped: &'a [String],
    seconds: f64,
    files_per_second: u64,
    bytes_per_second: u64,
}

#[derive(Serialize)]
struct ItemLine<'a> {
    item: &'a ItemId,
    fields: &'a Fields,
}

fn write_item(out: &mut impl Write, output: Output, item: &ItemId, reading: &Reading) -> io::Result<()> {
    match output {
        Output::JsonLines => serde_json::to_writer(&mut *out, &ItemLine { item, fields: &reading.fields })?,
        Output::Text => {
            write!(out, "{item}")?;
            for (name, value) in reading.fields.iter() {
                write!(out, " {name}={value}")?;
            }
        }
    }
    out.write_all(b"\n")
}

/// A keyed digest tells nothing outside the agent that holds the key.
fn conceal(fields: &mut Fields) {
    if matches!(fields.value("password"), Some(Value::Text(text)) if text.starts_with("keyed:")) {
        *fields = std::mem::take(fields).with("password", "set");
    }
}

/// `1 file`, `1,243 files`.
fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

fn rate(count: u64, elapsed: Duration) -> u64 {
    (count as f64 / elapsed.as_secs_f64().max(1e-6)) as u64
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn tick(bar: &ProgressBar, progress: &ScanProgress) {
    if !bar.is_hidden() {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (files, folders, bytes) = (count(&progress.files), count(&progress.folders), count(&progress.bytes));
        bar.set_message(format!("{} in {}, {} read", counted(files, "file"), counted(folders, "folder"), HumanBytes(bytes)));
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of_io = |error: &io::Error| error.kind() == ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(of_io)
        || error.downcast_ref::<serde_json::Error>().is_some_and(|error| error.io_error_kind() == Some(ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_link_is_scanned_with_what_it_stands_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        std::fs::create_dir(place.join("real")).unwrap();
        std::os::unix::fs::symlink("real", place.join("link")).unwrap();
        let policy = policy(&WatchPolicy::default(), &[place.join("link")]).unwrap();
        assert_eq!(policy.paths, ["link", "real"].map(|name| place.join(name).display().to_string()));
        assert!(policy.kinds == [ItemKind::File] && policy.exclude.is_empty());
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_that_names_it() {
        let error = policy(&WatchPolicy::default(), &[PathBuf::from("/nowhere/at/all")]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([counted(0, "file"), counted(1, "file"), counted(1243, "file")], ["0 files", "1 file", "1,243 files"]);
    }

    #[test]
    fn no_digest_of_a_password_is_printed() {
        let mut fields = Fields::new().with("password", "keyed:00").with("uid", 0);
        conceal(&mut fields);
        assert_eq!(fields, Fields::new().with("password", "set").with("uid", 0));
    }
}
