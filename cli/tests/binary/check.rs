//! `trueline check` beside a collector in this process, whose host's state is made through the store as ingest would.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tokio_util::sync::CancellationToken;
use trueline_collector::config::Settings;
use trueline_collector::hub::now;
use trueline_collector::serve::{Serving, serve};
use trueline_collector::token::TokenText;
use trueline_drift::{Epoch, Facts, Fields, HostId, Observation, RecordBody, Sequence, TenantId};
use trueline_proto::ChainLink;
use trueline_store::{AppendOutcome, Batch, HostStatus, NewHost, NewToken, Role, Store, TokenKind};

use crate::running::{errors, text, trueline};

const HOST: &str = "web1";
/// Enough that comparing them takes longer than a program takes to start.
const ITEMS: usize = 4_000;

struct Site {
    serving: Serving,
    shutdown: CancellationToken,
    host: HostId,
    epoch: Epoch,
    next: Sequence,
    link: ChainLink,
    home: tempfile::TempDir,
}

impl Site {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let any = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let settings = Settings {
            data_dir: Some(home.path().join("collector")),
            listen_agents: any,
            listen_enrolment: any,
            listen_rest: any,
            ..Settings::default()
        };
        let shutdown = CancellationToken::new();
        let serving = serve(settings.into_config().unwrap(), shutdown.clone()).await.unwrap();
        let token = TokenText::random(TokenKind::Api);
        let kept = NewToken {
            tenant: TenantId::main(),
            kind: TokenKind::Api,
            role: Role::Operator,
            name: "test".into(),
            digest: token.digest(),
            created_at: now(),
            expires_at: None,
            uses: None,
        };
        serving.hub.store.add_token(kept).await.unwrap();
        let context = format!("url = 'http://{}'\ntoken = '{}'\n", serving.addresses.rest, token.as_str());
        let path = home.path().join("context.toml");
        std::fs::write(&path, context).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let host = HostId(uuid::Uuid::now_v7());
        let new = NewHost { id: host, tenant: TenantId::main(), facts: facts(), enrolled_at: now(), token: 1 };
        serving.hub.store.enrol_host(new).await.unwrap();
        let mut site = Self { serving, shutdown, host, epoch: Epoch(0), next: Sequence(1), link: ChainLink::START, home };
        site.tell_anew().await;
        site.end_inventory().await;
        site
    }

    fn store(&self) -> &dyn Store {
        self.serving.hub.store.as_ref()
    }

    /// The host begins an epoch and tells what it has, without an end.
    async fn tell_anew(&mut self) {
        (self.epoch, self.next, self.link) = (Epoch(self.epoch.0 + 1), Sequence(1), ChainLink::START);
        self.store().host_connected(self.host, &facts(), "0.1.0", self.epoch, now()).await.unwrap();
        let observed_at = now();
        let fields = || Fields::new().with("mode", "0644");
        let observed = |number| Observation { item: format!("file:/{number}").parse().unwrap(), fields: fields(), observed_at };
        self.append((0..ITEMS).map(|number| RecordBody::Observed(observed(number))).collect()).await;
    }

    async fn end_inventory(&mut self) {
        self.append(vec![RecordBody::InventoryComplete { items: ITEMS as u64, observed_at: now() }]).await;
        self.serving.hub.compare.ring();
    }

    async fn append(&mut self, records: Vec<RecordBody>) {
        let count = records.len() as u64;
        let link = self.link.next(self.epoch, self.next, count as u32, b"payload");
        let batch = Batch { host: self.host, epoch: self.epoch, first: self.next, records, previous: self.link, link };
        let outcomes = self.store().append(vec![batch], now()).await.unwrap();
        assert!(matches!(outcomes[..], [AppendOutcome::Accepted { .. }]), "{outcomes:?}");
        (self.next, self.link) = (self.next.plus(count), link);
    }

    /// A baseline in which every file has this mode.
    fn baseline(&self, name: &str, mode: &str) -> PathBuf {
        let items: String = (0..ITEMS).map(|number| format!("  \"file:/{number}\": {{ mode: \"{mode}\" }}\n")).collect();
        let path = self.home.path().join(format!("{name}.yaml"));
        std::fs::write(&path, format!("name: {name}\nitems:\n{items}")).unwrap();
        path
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = trueline();
        command.env("TRUELINE_CONTEXT", self.home.path().join("context.toml")).args(words);
        command
    }

    /// Beside the collector, which needs this thread's runtime.
    async fn ask(&self, words: &[&str]) -> Output {
        self.store().host_status(self.host, &HostStatus::default(), now()).await.unwrap();
        let mut command = self.command(words);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.serving.join.await.unwrap();
    }
}

fn facts() -> Facts {
    Facts { hostname: HOST.into(), ..Facts::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_right_after_another_baseline_was_assigned_speaks_of_that_baseline() {
    let site = Site::start().await;
    let (good, bad) = (site.baseline("good", "0644"), site.baseline("bad", "0600"));
    for version in 1..=3 {
        let applied = site.ask(&["baseline", "apply", bad.to_str().unwrap(), "--host", HOST]).await;
        assert!(applied.status.success(), "{}", errors(&applied));
        let departs = site.ask(&["check", HOST, "--wait", "300"]).await;
        assert_eq!(departs.status.code(), Some(1), "{}{}", text(&departs), errors(&departs));
        assert!(errors(&departs).contains("departs from its baseline in 4,000 fields"), "{}", errors(&departs));

        let applied = site.ask(&["baseline", "apply", good.to_str().unwrap(), "--host", HOST]).await;
        assert!(applied.status.success(), "{}", errors(&applied));
        let agrees = site.ask(&["check", HOST, "--wait", "300"]).await;
        assert_eq!(agrees.status.code(), Some(0), "{}{}", text(&agrees), errors(&agrees));
        assert_eq!(text(&agrees), format!("{HOST} agrees with baseline good v{version}: 4,000 items.\n"));
        assert_eq!(errors(&agrees), "");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_calls_no_host_compliant_that_is_not_compared() {
    let mut site = Site::start().await;
    let good = site.baseline("good", "0644");
    let applied = site.ask(&["baseline", "apply", good.to_str().unwrap(), "--host", HOST]).await;
    assert!(applied.status.success(), "{}", errors(&applied));
    let agrees = site.ask(&["check", HOST, "--wait", "300", "--output", "json"]).await;
    assert_eq!((agrees.status.code(), text(&agrees).as_str(), errors(&agrees).as_str()), (Some(0), "{\"items\":[]}\n", ""));

    // The host tells anew what it has: nothing can be said until it has ended.
    site.tell_anew().await;
    for wait in ["0", "1"] {
        let refused = site.ask(&["check", HOST, "--wait", wait]).await;
        assert_eq!((refused.status.code(), text(&refused).as_str()), (Some(1), ""), "{}", errors(&refused));
        let said = errors(&refused);
        assert!(said.contains("cannot be called compliant") && said.contains("baseline good v1") && said.contains("--wait"), "{said}");
    }
    let refused = site.ask(&["check", HOST, "--wait", "0", "--output", "json"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).starts_with("{\"items\":[],\"unknown\":\"web1 cannot be called compliant"), "{}", text(&refused));
    assert!(text(&site.ask(&["hosts", "show", HOST]).await).contains("good v1, not compared yet"));

    site.store().host_status(site.host, &HostStatus::default(), now()).await.unwrap();
    let waiting = site.command(&["check", HOST, "--wait", "300"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    site.end_inventory().await;
    let agrees = tokio::task::spawn_blocking(|| waiting.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(agrees.status.code(), Some(0), "{}", errors(&agrees));
    assert_eq!((text(&agrees).lines().count(), errors(&agrees).as_str()), (1, ""));
    site.stop().await;
}
