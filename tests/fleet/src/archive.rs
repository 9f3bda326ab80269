//! A story's own Debian packages, and an archive on its host to install them from.

use std::path::Path;

use anyhow::Context;

use crate::host::Host;
use crate::tool::Call;

/// As the archive's Release file calls its maker.
pub const ORIGIN: &str = "Story";
/// Where a host has the archive.
const ARCHIVE: &str = "/srv/story";
const SOURCE: &str = "/etc/apt/sources.list.d/story.list";
/// $1 the unpacked package, $2 the file whose contents are others than its list says, or nothing, $3 the package.
const BUILD: &str = r#"cd "$1" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0r md5sum > DEBIAN/md5sums
if [ -n "$2" ]; then echo tampered >> ".$2"; fi
exec dpkg-deb --root-owner-group -Zgzip -z1 -b . "$3""#;
const INDEX: &str = r#"cd "$1" && apt-ftparchive packages . > Packages
apt-ftparchive -o "APT::FTPArchive::Release::Origin=$2" release . > ../Release && mv ../Release Release"#;

/// A package to be built.
#[derive(Debug)]
pub struct Deb {
    name: &'static str,
    version: u32,
    files: Vec<(String, String)>,
    postinst: Option<&'static str>,
    tampered: Option<&'static str>,
}

impl Deb {
    pub const fn new(name: &'static str, version: u32) -> Self {
        Self { name, version, files: Vec::new(), postinst: None, tampered: None }
    }

    /// A file whose contents differ from version to version.
    #[must_use]
    pub fn file(mut self, path: &'static str) -> Self {
        self.push(path.to_owned());
        self
    }

    /// As [`Self::file`], so many in a folder.
    #[must_use]
    pub fn files(mut self, folder: &'static str, count: usize) -> Self {
        (0..count).for_each(|number| self.push(format!("{folder}/{number:04}")));
        self
    }

    fn push(&mut self, path: String) {
        let contents = format!("{path} of version {}\n", self.version);
        self.files.push((path, contents));
    }

    /// Lines of shell that configure it.
    #[must_use]
    pub const fn postinst(mut self, lines: &'static str) -> Self {
        self.postinst = Some(lines);
        self
    }

    /// Its file has other contents than its own list says.
    #[must_use]
    pub const fn tampered(mut self, path: &'static str) -> Self {
        self.tampered = Some(path);
        self
    }

    async fn build(&self, folder: &Path) -> anyhow::Result<()> {
        let unpacked = folder.with_file_name(format!("{}-{}", self.name, self.version));
        let write = |path: &str, contents: &str| {
            let path = unpacked.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap_or(&unpacked))?;
            std::fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))
        };
        for (path, contents) in &self.files {
            write(path, contents)?;
        }
        let Self { name, version, .. } = self;
        let maintainer = "Maintainer: Trueline's tests <tests@example.com>\nDescription: made for a story";
        write("DEBIAN/control", &format!("Package: {name}\nVersion: {version}\nArchitecture: all\n{maintainer}\n"))?;
        if let Some(lines) = self.postinst {
            write("DEBIAN/postinst", &format!("#!/bin/sh\nset -e\n{lines}\n"))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(unpacked.join("DEBIAN/postinst"), mode)?;
        }
        let call = Call::new("sh").args(["-euc", BUILD, "build"]).arg(&unpacked).arg(self.tampered.unwrap_or_default());
        call.arg(folder.join(format!("{name}_{version}.deb"))).run().await?;
        std::fs::remove_dir_all(&unpacked).with_context(|| format!("removing {}", unpacked.display()))
    }
}

/// Adds the packages to what the host's archive holds, and has apt look.
pub async fn publish(host: &Host, debs: &[Deb]) -> anyhow::Result<()> {
    let folder = host.folder().join("story").join("archive");
    std::fs::create_dir_all(&folder)?;
    for deb in debs {
        deb.build(&folder).await.with_context(|| format!("building {} {}", deb.name, deb.version))?;
    }
    Call::new("sh").args(["-euc", INDEX, "index"]).arg(&folder).arg(ORIGIN).run().await?;
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        host.copy_in(&entry.path(), &format!("{ARCHIVE}/{}", entry.file_name().to_string_lossy()), "0644").await?;
    }
    host.write(SOURCE, "0644", format!("deb [trusted=yes] file:{ARCHIVE} ./\n")).await?;
    host.root("apt-get -q update").await.map(drop)
}
