//! A host that is the collector: installed from its package, PostgreSQL from Debian's beside it, REST over HTTPS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use trueline_tests::rest::Rest;
use trueline_tests::wait;

use crate::fleet::Fleet;
use crate::host::Host;
use crate::packages::Packages;
use crate::root::Root;

const READY: Duration = Duration::from_secs(180);
/// Peer authentication over PostgreSQL's socket: no password.
const DATABASE: &str = "postgres://trueline-collector@localhost/trueline?host=/run/postgresql";
const HOSTNAME: &str = "collector";
/// Where a token is asked for as its administrator does, on the collector's host.
const TOKEN: &str = "trueline-collector token --kind api --role admin --name tests";

/// What a story sets otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setting {
    /// Life of agents' certificates.
    pub certificate_seconds: Option<u64>,
}

#[derive(Debug)]
pub struct Collector {
    pub host: Host,
    rest: Rest,
    ca_sha256: String,
}

impl Collector {
    pub async fn install(fleet: &Fleet, packages: &Packages, setting: Setting) -> anyhow::Result<Self> {
        let host = fleet.running(HOSTNAME, Root::Collector).await?;
        packages.publish(&host).await?;
        host.install(&["trueline-collector", "trueline"]).await?;
        host.root("runuser -u postgres -- createuser trueline-collector").await?;
        host.root("runuser -u postgres -- createdb --owner=trueline-collector trueline").await?;
        let certificate = rcgen::generate_simple_self_signed([HOSTNAME.to_owned(), host.address().to_string()])?;
        let pem = certificate.cert.pem();
        host.write("/etc/trueline/rest.pem", "0644", pem.clone()).await?;
        host.write("/etc/trueline/rest.key", "0640", certificate.signing_key.serialize_pem()).await?;
        host.write("/etc/trueline/collector.toml", "0640", configuration(setting, host.address())).await?;
        host.root("chgrp trueline-collector /etc/trueline/rest.key /etc/trueline/collector.toml").await?;
        host.root("systemctl restart trueline-collector").await?;
        let token = wait::until("the collector to be there", READY, async || {
            // Its database has no schema before its first start is through.
            let asked = host.root(&format!("runuser -u trueline-collector -- {TOKEN}")).await;
            Ok(asked.ok().map(|token| token.trim().to_owned()))
        });
        let token = token.await?;
        let digest = host.root("runuser -u trueline-collector -- trueline-collector ca").await?;
        let ca_sha256 = digest.lines().last().context("the collector names no CA")?.trim().to_owned();
        let rest = Rest::trusting(&format!("https://{}:8089", host.address()), &token, pem.as_bytes())?;
        let collector = Self { host, rest, ca_sha256 };
        collector.ready().await?;
        Ok(collector)
    }

    /// Waits until it answers and has its database.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let ready = wait::until("the collector to be ready", READY, async || {
            let answer = self.rest.status("/readyz").await;
            Ok(answer.is_ok_and(|(status, _)| status == 200).then_some(()))
        });
        ready.await
    }

    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    pub fn agents(&self) -> SocketAddr {
        SocketAddr::from((self.host.address(), 9440))
    }

    pub fn enrolment(&self) -> SocketAddr {
        SocketAddr::from((self.host.address(), 9441))
    }

    pub fn ca_sha256(&self) -> anyhow::Result<[u8; 32]> {
        let bytes = hex::decode(&self.ca_sha256).with_context(|| format!("`{}` is no digest", self.ca_sha256))?;
        bytes.try_into().ok().context("the CA's digest is not 32 bytes")
    }

    pub async fn join_token(&self, uses: usize) -> anyhow::Result<String> {
        let made = self.rest.post("/tokens", &json!({ "kind": "join", "uses": uses })).await?;
        Ok(made["token"].as_str().context("the answer holds no token")?.to_owned())
    }

    /// The text of `/etc/trueline/enroll.env` for a host that may join with this token.
    pub fn enrolment_file(&self, token: &str) -> String {
        format!("TRUELINE_COLLECTOR={HOSTNAME}:9441\nTRUELINE_JOIN_TOKEN={token}\nTRUELINE_CA_SHA256={}\n", self.ca_sha256)
    }

    /// The host enrolled last under this name, once its first inventory is here. Its id.
    pub async fn inventoried(&self, name: &str) -> anyhow::Result<String> {
        wait::until(&format!("the first inventory of {name}"), Duration::from_secs(300), async || {
            let hosts = self.rest.all("/hosts", &[]).await?;
            let named = hosts.into_iter().filter(|host| host["name"] == name);
            let newest = named.max_by_key(|host| host["enrolled_at"].as_str().map(str::to_owned));
            let whole = newest.filter(|host| host["inventory_completed_at"].is_string());
            Ok(whole.and_then(|host| host["id"].as_str().map(str::to_owned)))
        })
        .await
    }

    pub async fn shown(&self, id: &str) -> anyhow::Result<Value> {
        self.rest.get(&format!("/hosts/{id}"), &[]).await
    }

    /// Of the host, oldest first; those of one item where it is given.
    pub async fn changes(&self, id: &str, item: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let mut query = vec![("host", id)];
        query.extend(item.map(|item| ("item", item)));
        let mut changes = self.rest.all("/changes", &query).await?;
        changes.reverse();
        Ok(changes)
    }

    pub async fn gaps(&self, id: &str, reason: &str) -> anyhow::Result<Vec<Value>> {
        let gaps = self.rest.all("/coverage", &[("host", id)]).await?;
        Ok(gaps.into_iter().filter(|gap| gap["reason"] == reason).collect())
    }

    pub async fn capture_baseline(&self, id: &str, name: &str) -> anyhow::Result<()> {
        self.rest.post("/baselines/capture", &json!({ "host": id, "name": name, "assign": true })).await.map(drop)
    }

    /// Changes its database behind its back.
    pub async fn sql(&self, statements: &str) -> anyhow::Result<()> {
        let psql = format!("runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 -d trueline -c '{statements}'");
        self.host.root(&psql).await.map(drop)
    }

    /// How often the collector noted this action about this subject.
    pub async fn actions(&self, action: &str, subject: &str) -> anyhow::Result<usize> {
        let actions = self.rest.all("/actions", &[]).await?;
        Ok(actions.iter().filter(|noted| noted["action"] == action && noted["subject"] == subject).count())
    }
}

fn configuration(setting: Setting, address: Ipv4Addr) -> String {
    let mut text = format!(
        "database = \"{DATABASE}\"\nlisten_rest = \"0.0.0.0:8089\"\nrest_certificate = \"/etc/trueline/rest.pem\"\n\
         rest_key = \"/etc/trueline/rest.key\"\nnames = [\"{HOSTNAME}\", \"{address}\"]\nlink_address = \"{HOSTNAME}:9440\"\nheartbeat_seconds = 1\n"
    );
    if let Some(seconds) = setting.certificate_seconds {
        text.push_str(&format!("certificate_seconds = {seconds}\n"));
    }
    text
}

/// A host of the fleet that an agent watches, as its collector knows it.
#[derive(Debug)]
pub struct Watched {
    pub host: Host,
    pub id: String,
}

impl Watched {
    /// A new host on which the agent is installed with one file and one command, and has told its first inventory.
    pub async fn install(fleet: &Fleet, collector: &Collector, packages: &Packages, name: &str) -> anyhow::Result<Self> {
        Self::install_on(fleet, collector, packages, name, Root::Plain).await
    }

    /// The same, on a host that begins as this root.
    pub async fn install_on(fleet: &Fleet, collector: &Collector, packages: &Packages, name: &str, root: Root) -> anyhow::Result<Self> {
        let host = fleet.running(name, root).await?;
        packages.publish(&host).await?;
        host.root(&format!("echo '{} {HOSTNAME}' >> /etc/hosts", collector.host.address())).await?;
        let token = collector.join_token(1).await?;
        host.write("/etc/trueline/enroll.env", "0600", collector.enrolment_file(&token)).await?;
        host.install(&["trueline-agent"]).await?;
        let id = collector.inventoried(name).await?;
        Ok(Self { host, id })
    }

    /// Waits until the collector's picture of the files in this folder of the host is what lies on its disk.
    pub async fn equals_disk(&self, collector: &Collector, folder: &str) -> anyhow::Result<()> {
        let listed = self.host.root(&format!("find {folder} -type f -exec sha256sum {{}} +")).await?;
        let mut disk: Vec<String> = listed.lines().map(str::to_owned).collect();
        disk.sort();
        ensure!(!disk.is_empty(), "{folder} is empty on {}", self.host.name());
        let beginning = format!("file:{folder}/");
        let mut last = Vec::new();
        let waited = wait::until("the collector's picture to equal the disk", Duration::from_secs(90), async || {
            let mut held = Vec::new();
            let note = |row: &mut Value| {
                let path = row["item"].as_str().filter(|item| item.starts_with(&beginning)).map(|item| &item["file:".len()..]);
                let line = path.zip(row["fields"]["sha256"].as_str()).map(|(path, digest)| format!("{digest}  {path}"));
                held.extend(line);
            };
            let path = format!("/hosts/{}/items", self.id);
            collector.rest.each(&path, &[("kind", "file")], note).await?;
            held.sort();
            last = held;
            Ok((last == disk).then_some(()))
        });
        waited.await.with_context(|| {
            let missing: Vec<_> = disk.iter().filter(|line| !last.contains(line)).take(3).collect();
            format!("{} files on the disk of {}, {} at the collector; missing there: {missing:?}", disk.len(), self.host.name(), last.len())
        })
    }
}
