//! The product's Debian packages, as `packaging/build` made them, and a local archive to install them from.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::host::Host;
use crate::root;
use crate::tool::Call;

const VARIABLE: &str = "TRUELINE_PACKAGES";
/// Where a host has its archive.
const ARCHIVE: &str = "/srv/trueline";
/// What only the later version of a package brings.
pub const NEW_PROGRAM: &str = "/usr/bin/trueline-later";
const SOURCE: &str = "/etc/apt/sources.list.d/trueline.list";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    Agent,
    Collector,
    CommandLine,
}

impl Package {
    pub const ALL: [Self; 3] = [Self::Agent, Self::Collector, Self::CommandLine];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "trueline-agent",
            Self::Collector => "trueline-collector",
            Self::CommandLine => "trueline",
        }
    }
}

/// A folder with one .deb of each.
#[derive(Debug, Clone)]
pub struct Packages {
    files: [(Package, PathBuf); 3],
}

impl Packages {
    /// `$TRUELINE_PACKAGES`, or `target/packages`.
    pub fn find() -> anyhow::Result<Self> {
        let folder = match std::env::var_os(VARIABLE) {
            Some(folder) => PathBuf::from(folder),
            None => root::folder()?.with_file_name("packages"),
        };
        let find = |package: Package| -> anyhow::Result<(Package, PathBuf)> {
            let (beginning, entries) = (format!("{}_", package.name()), std::fs::read_dir(&folder));
            let entries = entries.into_iter().flatten().flatten().map(|entry| entry.path());
            let is_it = |path: &PathBuf| {
                path.extension().is_some_and(|extension| extension == "deb")
                    && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&beginning))
            };
            let mut found: Vec<PathBuf> = entries.filter(is_it).collect();
            ensure!(found.len() <= 1, "{} holds {} packages of {}: leave one", folder.display(), found.len(), package.name());
            let found = found.pop();
            let file = found.with_context(|| format!("needs {}*.deb in {}: run packaging/build", beginning, folder.display()))?;
            Ok((package, file))
        };
        let [agent, collector, command_line] = Package::ALL;
        Ok(Self { files: [find(agent)?, find(collector)?, find(command_line)?] })
    }

    fn file(&self, package: Package) -> anyhow::Result<&Path> {
        let found = self.files.iter().find(|(known, _)| *known == package);
        found.map(|(_, path)| path.as_path()).context("the package is not there")
    }

    /// Puts the files themselves into a folder of the host, under the names that they have.
    pub async fn copy_to(&self, host: &Host, folder: &str) -> anyhow::Result<()> {
        for (_, file) in &self.files {
            let name = file.file_name().context("a package has no name")?.to_string_lossy();
            host.copy_in(file, &format!("{folder}/{name}"), "0644").await?;
        }
        Ok(())
    }

    /// Puts the packages into the host's own archive, in the place of what it held of them.
    pub async fn publish(&self, host: &Host) -> anyhow::Result<()> {
        for (package, file) in &self.files {
            add(host, *package, file).await?;
        }
        index(host).await
    }

    /// A later version of the package, `+later` behind its own: its program has other bytes, and it brings [`NEW_PROGRAM`].
    pub async fn publish_later(&self, host: &Host, package: Package) -> anyhow::Result<()> {
        let folder = host.folder().join("later");
        let (unpacked, built) = (folder.join("unpacked"), folder.join("built.deb"));
        std::fs::create_dir_all(&folder)?;
        Call::new("dpkg-deb").arg("-R").arg(self.file(package)?).arg(&unpacked).run().await?;
        let control = unpacked.join("DEBIAN/control");
        let text = std::fs::read_to_string(&control)?;
        let version = |line: &str| if line.starts_with("Version: ") { format!("{line}+later\n") } else { format!("{line}\n") };
        std::fs::write(&control, text.lines().map(version).collect::<String>())?;
        // What follows the last section of a program is not looked at when it runs.
        let script = r#"cd "$1" && echo later >>"usr/bin/$2" && printf '#!/bin/sh\n' >".$3" && chmod 755 ".$3" &&
            find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums"#;
        Call::new("sh").args(["-euc", script, "alter"]).arg(&unpacked).args([package.name(), NEW_PROGRAM]).run().await?;
        Call::new("dpkg-deb").args(["-Zgzip", "-z1", "-b"]).arg(&unpacked).arg(&built).run().await?;
        add(host, package, &built).await?;
        std::fs::remove_dir_all(&folder)?;
        index(host).await
    }
}

/// The machine's copy of the host's archive: a minimal host has no tool that makes an index.
fn archive(host: &Host) -> PathBuf {
    host.folder().join("archive")
}

async fn add(host: &Host, package: Package, file: &Path) -> anyhow::Result<()> {
    let (archive, name) = (archive(host), format!("{}.deb", package.name()));
    std::fs::create_dir_all(&archive)?;
    std::fs::copy(file, archive.join(&name)).with_context(|| format!("copying {}", file.display()))?;
    host.copy_in(file, &format!("{ARCHIVE}/{name}"), "0644").await
}

async fn index(host: &Host) -> anyhow::Result<()> {
    let script = r#"cd "$1" && apt-ftparchive packages ."#;
    let packages = Call::new("sh").args(["-euc", script, "index"]).arg(archive(host)).run().await?;
    host.write(&format!("{ARCHIVE}/Packages"), "0644", packages).await?;
    host.write(SOURCE, "0644", format!("deb [trusted=yes] file:{ARCHIVE} ./\n")).await?;
    host.root("apt-get -q update").await.map(drop)
}
