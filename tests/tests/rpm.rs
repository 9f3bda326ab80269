//! Packages of a host whose packages are rpm's: a real database, filled by `rpm` with packages that
//! `rpmbuild` made, where such a host has it. The agent runs in a mount namespace that shows it this
//! database in the place of the host's, and nothing of dpkg's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use trueline_tests::binaries::Program;
use trueline_tests::daemon::write;
use trueline_tests::needs;

const LIMIT: Duration = Duration::from_secs(60);

/// What is shown in the agent's namespace, then the agent in the place of the shell. Its own `rpm` is the
/// host's, behind a line that counts the calls.
const NAMESPACE: &str = r#"
set -e
mount --bind "$PLACE/database" /var/lib/rpm
if [ -d /var/lib/dpkg ]; then mount --bind "$PLACE/empty" /var/lib/dpkg; fi
mount --bind "$PLACE/counting" "$(readlink -f "$(command -v rpm)")"
exec "$AGENT" watch --json --config "$PLACE/agent.toml"
"#;

/// A host with an rpm database of its own.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    async fn new(sensor: &str) -> anyhow::Result<Self> {
        let host = Self { folder: tempfile::tempdir()? };
        for name in ["database", "empty", "bin", "packages"] {
            std::fs::create_dir(host.path(name))?;
        }
        let files = host.files();
        std::fs::create_dir(&files)?;
        let watch = format!("[watch]\npaths = [\"{}\"]\nkinds = [\"package\", \"file\"]\nexclude = []\n", files.display());
        write(&host.path("agent.toml"), format!("sensor = \"{sensor}\"\n\n{watch}"))?;
        // A copy, because the counting one stands in its place.
        let program = run("sh", ["-c", "readlink -f \"$(command -v rpm)\""]).await?;
        std::fs::copy(program.trim(), host.path("bin/rpm"))?;
        let (count, rpm) = (host.path("readings"), host.path("bin/rpm"));
        let counting = host.path("counting");
        write(&counting, format!("#!/bin/sh\necho read >> '{}'\nexec '{}' \"$@\"\n", count.display(), rpm.display()))?;
        run("chmod", ["755", &counting.display().to_string()]).await?;
        host.rpm(["--initdb"]).await?;
        Ok(host)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where packages put their files, and the agent looks.
    fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// Makes a package without contents; the path of its file.
    async fn package(&self, name: &str, version: &str, tags: &str) -> anyhow::Result<String> {
        self.package_with(name, version, tags, &[]).await
    }

    /// Makes a package with these files, each with its contents.
    async fn package_with(&self, name: &str, version: &str, tags: &str, files: &[(&str, &str)]) -> anyhow::Result<String> {
        let spec = self.path("package.spec");
        let folder = self.files().display().to_string();
        let mut text = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: For a test\nLicense: none\n{tags}\n%description\nNothing.\n\
             %install\nmkdir -p %{{buildroot}}{folder}\n"
        );
        for (file, contents) in files {
            writeln!(text, "printf '%s' '{contents}' > %{{buildroot}}{folder}/{file}")?;
        }
        text.push_str("%files\n");
        for (file, _) in files {
            writeln!(text, "%attr(0644, root, root) {folder}/{file}")?;
        }
        write(&spec, text)?;
        let top = self.path("packages");
        let define = format!("_topdir {}", top.display());
        let spec = spec.display().to_string();
        run("rpmbuild", ["-bb", "--quiet", "--define", &define, "--define", "_build_name_fmt %%{NAME}-%%{VERSION}.rpm", &spec]).await?;
        Ok(top.join("RPMS").join(format!("{name}-{version}.rpm")).display().to_string())
    }

    async fn rpm<const N: usize>(&self, arguments: [&str; N]) -> anyhow::Result<String> {
        let database = self.path("database").display().to_string();
        // What a package of another distribution needs is not there; Debian's rpm wants to be sure.
        let first = ["--dbpath", &database, "--nodeps", "--force-debian"];
        let first = if Path::new("/etc/debian_version").exists() && arguments[0].starts_with("-U") { &first[..] } else { &first[..2] };
        run("rpm", first.iter().copied().chain(arguments)).await
    }

    /// How often the agent has asked `rpm`.
    fn readings(&self) -> usize {
        std::fs::read_to_string(self.path("readings")).map_or(0, |text| text.lines().count())
    }
}

async fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{program} ended with {}: {said}{told}", output.status);
    Ok(said.into_owned())
}

/// The agent on that host. Dropping it kills it.
struct Watching {
    _agent: Child,
    changes: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    async fn start(host: &Host) -> anyhow::Result<Self> {
        let mut agent = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", NAMESPACE])
            .env("PLACE", host.folder.path())
            .env("AGENT", Program::Agent.path()?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut log = BufReader::new(agent.stderr.take().context("its standard error")?).lines();
        let changes = BufReader::new(agent.stdout.take().context("its standard output")?).lines();
        let mut said = Vec::new();
        let ready = async {
            while let Some(line) = log.next_line().await? {
                if line.contains("\"watching\"") {
                    return Ok(());
                }
                said.push(line);
            }
            anyhow::bail!("the agent ended before it watched")
        };
        tokio::time::timeout(LIMIT, ready).await.context("the agent did not come up").and_then(|ready| ready).context(said.join("\n"))?;
        // What it logs later goes nowhere, but it must not find its standard error closed.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Ok(Self { _agent: agent, changes })
    }

    async fn change(&mut self) -> anyhow::Result<Value> {
        let line = tokio::time::timeout(LIMIT, self.changes.next_line()).await.context("no change was reported")??;
        Ok(serde_json::from_str(&line.context("the agent ended")?)?)
    }
}

/// `(before, after)` of a field of a change.
fn field<'a>(change: &'a Value, name: &str) -> (Option<&'a str>, Option<&'a str>) {
    let found = change["fields"].as_array().and_then(|fields| fields.iter().find(|field| field["name"] == name));
    (found.and_then(|field| field["before"].as_str()), found.and_then(|field| field["after"].as_str()))
}

async fn packages_are_followed(sensor: &str) -> anyhow::Result<()> {
    let host = Host::new(sensor).await?;
    let first = host.package("probe", "1.0", "Epoch: 2\nBuildArch: noarch\nVendor: Example Corp").await?;
    let second = host.package("probe", "1.1", "Epoch: 2\nBuildArch: noarch\nVendor: Example Corp").await?;
    let native = host.package("native", "3", "").await?;
    host.rpm(["-U", &native]).await?;
    let mut agent = Watching::start(&host).await?;
    let readings = host.readings();
    ensure!(readings > 0, "the agent has not asked rpm");
    // Reading the database writes beside it. Neither the agent's own readings nor another's lead to more.
    for _ in 0..10 {
        host.rpm(["-qa"]).await?;
    }
    let after = host.readings();
    ensure!(after == readings, "rpm was asked {} times although nothing had changed", after - readings);

    host.rpm(["-U", &first]).await?;
    let change = agent.change().await?;
    ensure!(change["item"] == "package:probe" && change["kind"] == "created", "{change}");
    ensure!(field(&change, "version") == (None, Some("2:1.0-1")), "{change}");
    ensure!(field(&change, "architecture") == (None, Some("noarch")), "{change}");
    ensure!(field(&change, "source") == (None, Some("probe-1.0-1.src.rpm")), "{change}");
    ensure!(field(&change, "vendor") == (None, Some("Example Corp")), "{change}");
    ensure!(field(&change, "signature_key") == (None, None), "{change}");
    if sensor == "best" {
        let exe = change["actor"]["process"]["exe"].as_str().unwrap_or_default();
        ensure!(exe.ends_with("/rpm"), "{change}");
    }

    host.rpm(["-U", &second]).await?;
    let change = agent.change().await?;
    ensure!(change["item"] == "package:probe" && change["kind"] == "modified", "{change}");
    ensure!(field(&change, "version") == (Some("2:1.0-1"), Some("2:1.1-1")), "{change}");

    host.rpm(["-e", "probe"]).await?;
    let change = agent.change().await?;
    ensure!(change["item"] == "package:probe" && change["kind"] == "removed", "{change}");
    host.rpm(["-e", "native"]).await?;
    let change = agent.change().await?;
    ensure!(change["item"] == "package:native" && change["kind"] == "removed", "it was not in the inventory: {change}");
    Ok(())
}

#[tokio::test]
async fn packages_of_rpm_are_followed_by_fanotify() -> anyhow::Result<()> {
    if needs::daemons() && needs::rpm() && needs::fanotify() { packages_are_followed("best").await } else { Ok(()) }
}

#[tokio::test]
async fn packages_of_rpm_are_followed_by_inotify() -> anyhow::Result<()> {
    if needs::daemons() && needs::rpm() && needs::mount() && needs::inotify() { packages_are_followed("inotify").await } else { Ok(()) }
}

/// rpm does not say when the manifest of one of several packages is in place: files are told when it is done.
async fn files_are_parts_of_their_package(sensor: &str) -> anyhow::Result<()> {
    let host = Host::new(sensor).await?;
    let first = host.package_with("probe", "1", "BuildArch: noarch", &[("same", "first"), ("altered", "first")]).await?;
    // The last is another's by the time that anybody looks: a script of the package writes it.
    let altering = format!("BuildArch: noarch\n%post\nprintf other > {}/altered", host.files().display());
    let second = host.package_with("probe", "2", &altering, &[("same", "second"), ("altered", "second"), ("came", "second")]).await?;
    host.rpm(["-U", &first]).await?;
    let mut agent = Watching::start(&host).await?;
    host.rpm(["-U", &second]).await?;
    let mut told = std::collections::BTreeMap::new();
    while told.len() < 4 {
        let change = agent.change().await?;
        let item = change["item"].as_str().context("an item")?;
        let name = item.rsplit('/').next().unwrap_or(item).to_owned();
        told.insert(name, change["shipped_by"].as_str().map(str::to_owned));
    }
    let part = Some("package:probe".to_owned());
    let expected = [("altered", None), ("came", part.clone()), ("package:probe", None), ("same", part)];
    let expected = expected.map(|(name, package)| (name.to_owned(), package));
    ensure!(told == expected.into_iter().collect(), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn files_of_rpm_are_parts_of_their_package() -> anyhow::Result<()> {
    if needs::daemons() && needs::rpm() && needs::fanotify() { files_are_parts_of_their_package("best").await } else { Ok(()) }
}
