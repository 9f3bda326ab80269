//! A collector's REST side over a fresh SQLite database, served on loopback, with a host and its
//! changes made through the store as ingest would.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value as Json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trueline_collector::hub::{Hub, now};
use trueline_collector::rest::{RestContext, router};
use trueline_collector::token::TokenText;
use trueline_collector::{compare, judge};
use trueline_drift::actor::{Origin, Process, Session, SessionKind, Sudo, User};
use trueline_drift::change::ChangeKind;
use trueline_drift::format::lines::{Line, Lines, Side};
use trueline_drift::operation::{Engine, Means, ProcessFeed};
use trueline_drift::transaction::{Transaction, TransactionKind};
use trueline_drift::{
    Actor, Cause, Certainty, Change, CoverageGap, Epoch, Facts, FieldChange, FieldName, Fields, GapReason, HostId, ItemId, Observation,
    OperationCoverage, RecordBody, Sequence, TenantId, Time, Value,
};
use trueline_proto::ChainLink;
use trueline_store::{AppendOutcome, Batch, KeyDigest, NewCapture, NewHost, NewToken, Role, TokenKind, open};

use crate::client::{Answer, send};

pub struct Site {
    pub at: SocketAddr,
    pub hub: Arc<Hub>,
    pub host: HostId,
    next: Sequence,
    link: ChainLink,
    state: HashMap<String, Fields>,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

pub const HOST: &str = "web-01";

impl Site {
    pub async fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&format!("sqlite:{}", folder.path().join("trueline.db").display())).await.unwrap();
        let hub = Hub::new(store, CancellationToken::new());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let context = RestContext { metrics: Some(recorder()), version: "0.1.0", public_url: format!("http://{at}") };
        let app = router(Arc::clone(&hub), context);
        let shutdown = hub.shutdown.clone();
        let server = tokio::spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await.unwrap();
        });
        let host = HostId(uuid::Uuid::now_v7());
        Self { at, hub, host, next: Sequence(1), link: ChainLink::START, state: HashMap::new(), server, _folder: folder }
    }

    pub async fn stop(self) {
        self.hub.shutdown.cancel();
        self.server.await.unwrap();
    }

    pub async fn token(&self, kind: TokenKind, role: Role) -> String {
        let text = TokenText::random(kind);
        let token = NewToken {
            tenant: TenantId::main(),
            kind,
            role,
            name: "tester".into(),
            digest: text.digest(),
            created_at: now(),
            expires_at: Some(now().plus_seconds(3600)),
            uses: matches!(kind, TokenKind::Login | TokenKind::Join).then_some(1),
        };
        self.hub.store.add_token(token).await.unwrap();
        text.as_str().to_owned()
    }

    pub async fn bearer(&self, role: Role) -> String {
        format!("Bearer {}", self.token(TokenKind::Api, role).await)
    }

    /// A browser's session, from a login link.
    pub async fn session(&self, role: Role) -> String {
        let login = self.token(TokenKind::Login, role).await;
        let answer = send(self.at, "GET", &format!("/login?token={login}"), &[], b"").await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{answer:?}");
        answer.cookie()
    }

    pub async fn get(&self, path: &str, bearer: &str) -> Answer {
        send(self.at, "GET", path, &[("authorization", bearer)], b"").await
    }

    pub async fn post(&self, path: &str, bearer: &str, body: &Json) -> Answer {
        let headers = [("authorization", bearer), ("content-type", "application/json")];
        send(self.at, "POST", path, &headers, body.to_string().as_bytes()).await
    }

    /// A host with an inventory, held against a baseline of it.
    pub async fn with_host(mut self, items: &[(&str, Fields)]) -> Self {
        let store = Arc::clone(&self.hub.store);
        let text = TokenText::random(TokenKind::Join);
        store
            .add_token(NewToken {
                tenant: TenantId::main(),
                kind: TokenKind::Join,
                role: Role::Viewer,
                name: "join".into(),
                digest: text.digest(),
                created_at: now(),
                expires_at: None,
                uses: Some(1),
            })
            .await
            .unwrap();
        let facts = Facts {
            hostname: HOST.into(),
            os: Some("Debian GNU/Linux 12".into()),
            kernel: Some("6.1.0-18-amd64".into()),
            architecture: Some("x86_64".into()),
            ..Facts::default()
        };
        let (token, key) = (text.digest(), KeyDigest(text.digest().0));
        let host = NewHost { id: self.host, facts: facts.clone(), enrolled_at: now(), token, key };
        store.enrol_host(host).await.unwrap();
        store.host_connected(self.host, &facts, "0.1.0", Epoch(1), now()).await.unwrap();
        self.state = items.iter().map(|(item, fields)| ((*item).to_owned(), fields.clone())).collect();
        let observed_at = now();
        let observed = items
            .iter()
            .map(|(item, fields)| RecordBody::Observed(Observation { item: item.parse().unwrap(), fields: fields.clone(), observed_at }));
        let mut records: Vec<RecordBody> = observed.collect();
        records.push(RecordBody::InventoryComplete { items: items.len() as u64, observed_at });
        self.append(records).await;
        let capture = NewCapture {
            tenant: TenantId::main(),
            host: self.host,
            name: "web".into(),
            scopes: Vec::new(),
            by: "tester".into(),
            at: now(),
            assign: true,
        };
        store.capture_baseline(capture).await.unwrap();
        compare::compare_all(&self.hub).await.unwrap();
        self
    }

    /// Records of the host, appended, judged and announced.
    pub async fn append(&mut self, records: Vec<RecordBody>) {
        let count = records.len() as u64;
        let link = ChainLink([u8::try_from(self.next.0 % 251).unwrap() + 1; 32]);
        let batch = Batch { host: self.host, epoch: Epoch(1), first: self.next, records, previous: self.link, link };
        let outcomes = self.hub.store.append(vec![batch], now()).await.unwrap();
        assert!(matches!(outcomes[..], [AppendOutcome::Accepted { .. }]), "{outcomes:?}");
        (self.next, self.link) = (self.next.plus(count), link);
        judge::judge_all(&self.hub).await.unwrap();
        self.hub.news.ring();
    }

    pub async fn change(&mut self, item: &str, field: &'static str, before: &str, after: &str) {
        let change = self.changed(item, field, before, after);
        self.append(vec![RecordBody::Changed(Box::new(change))]).await;
    }

    /// A change of one field, the others of the item as they were.
    pub fn changed(&mut self, item: &str, field: &'static str, before: &str, after: &str) -> Change {
        let fields = self.state.entry(item.to_owned()).or_default();
        let mut unchanged = fields.clone();
        unchanged.remove(field);
        fields.set(FieldName::known(field), Value::text(after));
        Change {
            item: item.parse::<ItemId>().unwrap(),
            kind: ChangeKind::Modified,
            fields: vec![FieldChange { name: FieldName::known(field), before: Some(Value::text(before)), after: Some(Value::text(after)) }],
            unchanged,
            observed_after: now().plus_seconds(-1),
            observed_at: now(),
            cause: Cause::Event,
            actor: alice(),
            transaction: None,
            shipped_by: None,
            candidates: trueline_drift::Candidates::default(),
            lines: None,
        }
    }
}

/// The process's measurements, which all sites of a run share.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap()).clone()
}

/// `alice`, who went through sudo and a shell.
pub fn alice() -> Actor {
    let process = |pid, argv: &[&str]| Process {
        started_at: Some(Time::from_seconds(1_770_000_000)),
        exe: Some(format!("/usr/bin/{}", argv[0])),
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        ..Process::bare(pid)
    };
    Actor {
        certainty: Certainty::Strong,
        via: vec!["fanotify".into(), "procfs".into()],
        process: Some(process(8123, &["vim", "/etc/ssh/sshd_config"])),
        parents: vec![
            process(8120, &["sudo", "vim", "/etc/ssh/sshd_config"]),
            process(8001, &["bash"]),
            process(7990, &["sshd: alice@pts/0"]),
        ],
        user: Some(User { uid: 0, euid: Some(0), login_uid: Some(1000), name: Some("root".into()), login_name: Some("alice".into()) }),
        session: Some(Session {
            certainty: Certainty::Strong,
            kind: SessionKind::Ssh,
            user: Some("alice".into()),
            origin: Some(Origin { address: "10.0.4.17".parse().unwrap(), port: Some(51022) }),
            terminal: Some("pts/0".into()),
            key: Some("SHA256:Zk3vQ0p7cZ1oV9b1h2m4n6q8s0u2w4y6A8C0E2G4I6k".into()),
            began_at: Some(Time::from_seconds(1_770_000_000)),
            ..Session::bare("3f2a9c01d4e7-42".parse().unwrap())
        }),
        sudo: Some(Sudo {
            certainty: Certainty::Strong,
            by: Some("alice".into()),
            as_user: Some("root".into()),
            command: Some("vim /etc/ssh/sshd_config".into()),
            terminal: Some("pts/0".into()),
        }),
        unit: Some("session-42.scope".into()),
        slice: Some("user-1000.slice".into()),
        container: None,
        reason: None,
    }
}

/// A run of apt by Ansible, with a command that must be escaped.
pub fn within_ansible() -> Transaction {
    let run = |id: &str, kind, certainty, name: &str| Transaction {
        id: id.parse().unwrap(),
        kind,
        certainty,
        name: Some(name.to_owned()),
        command: None,
        requested_by: None,
        began_at: None,
        within: None,
    };
    Transaction {
        command: Some("apt-get install <nginx>".to_owned()),
        requested_by: Some("alice".to_owned()),
        within: Some(Box::new(run("ansible-1", TransactionKind::Ansible, Certainty::Correlated, "apt"))),
        ..run("apt-1", TransactionKind::Apt, Certainty::Exact, "install")
    }
}

pub fn gap(scope: &str, ended: bool) -> RecordBody {
    RecordBody::Gap(CoverageGap {
        scope: scope.into(),
        reason: GapReason::QueueOverflow,
        began_at: now().plus_seconds(-90),
        ended_at: ended.then(now),
        lost: Some(16_384),
        remedy: ended.then(|| "rescanned 2,431 items, 3 had changed".into()),
    })
}

pub fn file(mode: &str) -> Fields {
    Fields::new().with("type", "file").with("mode", mode).with("owner", "root").with("sha256", "ab")
}

/// As a host with the process connector tells of its operations.
pub fn told() -> Vec<OperationCoverage> {
    let means = Means {
        files: Ok(Engine::Fanotify),
        files_less: None,
        processes: ProcessFeed::Connector,
        processes_less: Some("ebpf: the kernel has no BTF".to_owned()),
        settings: Ok(()),
        audit: false,
        hooks: Vec::new(),
    };
    means.coverage()
}

/// A site with something of everything to look at.
pub async fn shown(port: u16) -> Site {
    let sysctl = |value: &str| Fields::new().with("value", value);
    let digest = "9f2c4e8ab1d05c7fb0a7d2c1e36f984512aa07cbe4413d7f6f0c2be8d9315a60";
    let mut site = Site::start(port)
        .await
        .with_host(&[
            ("file:/etc/ssh/sshd_config", file("0644").with("sha256", digest).with("config.PermitRootLogin", "no")),
            ("file:/etc/cron.d/backup", file("0644")),
            (
                "file:/etc/nginx/sites-enabled/very/long/path/with/many/folders/that/does/not/fit/on/one/line/of/a/small/screen.conf",
                file("0644"),
            ),
            ("file:/etc/motd", file("0644")),
            ("sysctl:net.ipv4.ip_forward", sysctl("0")),
            ("sysctl:vm.swappiness", sysctl("60")),
            ("file:/usr/lib/x86_64-linux-gnu/libssl.so.3", file("0644").with("sha256", digest)),
            ("file:/usr/lib/x86_64-linux-gnu/libcrypto.so.3", file("0644").with("sha256", digest)),
            ("file:/usr/bin/openssl", file("0755").with("sha256", digest)),
            ("package:openssl", Fields::new().with("version", "3.0.11-1~deb12u2").with("status", "installed")),
            ("unit:ssh.service", Fields::new().with("enabled", "enabled").with("active", true)),
            ("file:/etc/profile.d/proxy.sh", file("0644").with("sha256", digest)),
        ])
        .await;
    let other = "5d41402abc4b2a76b9719d911017c592ae2f1c4d7e0b3a5968c7d6e5f4a3b2c1";
    let status = trueline_store::HostStatus {
        sensors: vec![
            trueline_store::SensorStatus { name: "fanotify".into(), scope: "file:/etc".into(), watching: true, reason: None },
            trueline_store::SensorStatus { name: "fanotify".into(), scope: "file:/usr".into(), watching: true, reason: None },
            trueline_store::SensorStatus {
                name: "exact".into(),
                scope: "*".into(),
                watching: false,
                reason: Some("the kernel has no BTF; actors are strong at best".into()),
            },
        ],
        operations: told(),
        ..trueline_store::HostStatus::default()
    };
    site.hub.store.host_status(site.host, &status, now()).await.unwrap();
    site.append(vec![gap("file:/usr", true)]).await;
    site.change("unit:ssh.service", "enabled", "enabled", "disabled").await;
    for part in ["file:/usr/lib/x86_64-linux-gnu/libssl.so.3", "file:/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "file:/usr/bin/openssl"] {
        let mut part = site.changed(part, "sha256", digest, other);
        part.shipped_by = Some("package:openssl".parse().unwrap());
        site.append(vec![RecordBody::Changed(Box::new(part))]).await;
    }
    let mut package = site.changed("package:openssl", "version", "3.0.11-1~deb12u2", "3.0.13-1~deb12u1");
    package.transaction = Some(within_ansible());
    site.append(vec![RecordBody::Changed(Box::new(package))]).await;
    site.change(
        "file:/etc/nginx/sites-enabled/very/long/path/with/many/folders/that/does/not/fit/on/one/line/of/a/small/screen.conf",
        "mode",
        "0644",
        "0664",
    )
    .await;
    site.change("sysctl:net.ipv4.ip_forward", "value", "0", "1").await;
    site.change("file:/etc/motd", "owner", "root", "<script>alert(1)</script>").await;
    let mut edited = site.changed("file:/etc/profile.d/proxy.sh", "sha256", digest, other);
    let line = |side, number, text: &str| Line { side, number, text: text.to_owned() };
    let told = vec![
        line(Side::Removed, 3, "export http_proxy=http://proxy.example.org:3128"),
        line(Side::Added, 3, "export http_proxy=http://alice:keyed:19bd104af99c6f3b83797eabbc231efb@proxy.example.net:3128"),
        line(Side::Added, 118, &"export no_proxy=localhost,127.0.0.1,".repeat(6)),
    ];
    edited.lines = Some(Lines { told, removed: 1, added: 40, is_smallest: true });
    site.append(vec![RecordBody::Changed(Box::new(edited))]).await;
    site.change("file:/etc/ssh/sshd_config", "sha256", digest, other).await;
    site.change("file:/etc/ssh/sshd_config", "config.PermitRootLogin", "no", "yes").await;
    let mut unknown = site.changed("file:/etc/cron.d/backup", "mode", "0644", "0777");
    unknown.actor = Actor::unknown("the process had ended before it could be read");
    site.append(vec![RecordBody::Changed(Box::new(unknown))]).await;
    site
}
