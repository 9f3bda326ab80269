//! `trueline check` beside a collector in this process, whose host's state is made through the store as ingest would.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trueline_collector::config::Settings;
use trueline_collector::hub::{Life, now};
use trueline_collector::serve::{Serving, serve};
use trueline_collector::token::TokenText;
use trueline_drift::change::ChangeKind;
use trueline_drift::{
    Actor, Cause, Change, Epoch, Facts, FieldChange, FieldName, Fields, HostId, Observation, RecordBody, Sequence, TenantId,
};
use trueline_proto::{ChainLink, RunId};
use trueline_store::{AppendOutcome, Batch, HostStatus, KeyDigest, NewHost, NewToken, Role, Store, TokenKind};

use crate::running::{ended, errors, output, text, trueline};

pub const HOST: &str = "web1";
/// Guards against a test that would hang; nothing is measured.
const GUARD: Duration = Duration::from_secs(60);
/// Enough that comparing them takes longer than a program takes to start.
const ITEMS: usize = 4_000;

pub struct Site {
    serving: Serving,
    shutdown: CancellationToken,
    host: HostId,
    epoch: Epoch,
    next: Sequence,
    link: ChainLink,
    home: tempfile::TempDir,
}

impl Site {
    pub async fn start() -> Self {
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
        let join = TokenText::random(TokenKind::Join);
        let kept = NewToken {
            tenant: TenantId::main(),
            kind: TokenKind::Join,
            role: Role::Viewer,
            name: "join".into(),
            digest: join.digest(),
            created_at: now(),
            expires_at: None,
            uses: Some(1),
        };
        serving.hub.store.add_token(kept).await.unwrap();
        let key = KeyDigest(join.digest().0);
        let new = NewHost { id: host, facts: facts(), enrolled_at: now(), token: join.digest(), key };
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

    pub async fn append(&mut self, records: Vec<RecordBody>) {
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
    pub async fn ask(&self, words: &[&str]) -> Output {
        self.store().host_status(self.host, &HostStatus::default(), now()).await.unwrap();
        let mut command = self.command(words);
        tokio::task::spawn_blocking(move || output(&mut command)).await.unwrap()
    }

    /// As [`Self::ask`], with a standard output whose reader has gone.
    async fn ask_unread(&self, words: &[&str]) -> Output {
        self.store().host_status(self.host, &HostStatus::default(), now()).await.unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = self.command(words).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        tokio::task::spawn_blocking(|| ended(child)).await.unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(GUARD, self.serving.join).await.expect("the collector stops").unwrap().unwrap();
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
    let agrees = tokio::task::spawn_blocking(|| ended(waiting)).await.unwrap();
    assert_eq!(agrees.status.code(), Some(0), "{}", errors(&agrees));
    assert_eq!((text(&agrees).lines().count(), errors(&agrees).as_str()), (1, ""));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_calls_no_host_compliant_whose_identity_two_machines_have() {
    let site = Site::start().await;
    let good = site.baseline("good", "0644");
    let applied = site.ask(&["baseline", "apply", good.to_str().unwrap(), "--host", HOST]).await;
    assert!(applied.status.success(), "{}", errors(&applied));
    assert_eq!(site.ask(&["check", HOST, "--wait", "300"]).await.status.code(), Some(0));

    let seat = |run| site.serving.hub.seat(site.host, Life::told(Some(RunId::new([run; 16])), None), now());
    let (_original, _copy) = (seat(1).unwrap(), seat(2).unwrap());
    for _ in 0..2 {
        seat(1).unwrap_err();
    }
    let refused = site.ask(&["check", HOST]).await;
    assert_eq!((refused.status.code(), text(&refused).as_str()), (Some(1), ""), "{}", errors(&refused));
    let said = errors(&refused);
    assert!(said.contains("web1 cannot be called compliant: two machines speak as this host"), "{said}");
    site.stop().await;
}

/// `trueline check HOST | true` in a script that looks at the exit code of each.
#[tokio::test(flavor = "multi_thread")]
async fn check_is_no_pass_because_nobody_reads_its_answer() {
    let mut site = Site::start().await;
    for (mode, expected) in [("0600", 1), ("0644", 0)] {
        let baseline = site.baseline("held", mode);
        let applied = site.ask(&["baseline", "apply", baseline.to_str().unwrap(), "--host", HOST]).await;
        assert!(applied.status.success(), "{}", errors(&applied));
        assert_eq!(site.ask(&["check", HOST, "--wait", "300"]).await.status.code(), Some(expected));
        let unread = site.ask_unread(&["check", HOST]).await;
        assert_eq!(unread.status.code(), Some(expected), "{}", errors(&unread));
    }
    // Nothing was said of it to anybody.
    assert_eq!(site.ask_unread(&["check", HOST, "--output", "json"]).await.status.code(), Some(1));
    site.tell_anew().await;
    let unknown = site.ask_unread(&["check", HOST, "--wait", "0", "--output", "json"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(errors(&unknown).contains("cannot be called compliant"), "{}", errors(&unknown));
    site.stop().await;
}

fn changed(item: &str, field: &'static str, before: &str, after: &str, shipped_by: Option<&str>) -> RecordBody {
    RecordBody::Changed(Box::new(Change {
        item: item.parse().unwrap(),
        kind: ChangeKind::Modified,
        fields: vec![FieldChange { name: FieldName::known(field), before: Some(before.into()), after: Some(after.into()) }],
        unchanged: Fields::new(),
        observed_after: now(),
        observed_at: now(),
        cause: Cause::Event,
        actor: Actor::unknown("a test"),
        transaction: None,
        shipped_by: shipped_by.map(|package| package.parse().unwrap()),
        candidates: trueline_drift::Candidates::default(),
        lines: None,
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_folded_is_left_out_told_of_and_no_pass() {
    let mut site = Site::start().await;
    let fields = Fields::new().with("version", "1");
    site.append(vec![RecordBody::Observed(Observation { item: "package:nginx".parse().unwrap(), fields, observed_at: now() })]).await;
    let document = "name: parts\nitems:\n  \"package:nginx\": { version: \"1\" }\n  \"file:/0\": { mode: \"0644\" }\n  \"file:/1\": { mode: \"0644\" }\n";
    let path = site.home.path().join("parts.yaml");
    std::fs::write(&path, document).unwrap();
    let applied = site.ask(&["baseline", "apply", path.to_str().unwrap(), "--host", HOST]).await;
    assert!(applied.status.success(), "{}", errors(&applied));
    let part = |item| changed(item, "mode", "0644", "0640", Some("package:nginx"));
    site.append(vec![part("file:/0"), changed("package:nginx", "version", "1", "2", None), part("file:/1")]).await;

    let departs = site.ask(&["check", HOST, "--wait", "300"]).await;
    assert_eq!(departs.status.code(), Some(1), "{}", errors(&departs));
    assert!(text(&departs).contains("package:nginx") && !text(&departs).contains("file:/0"), "{}", text(&departs));
    assert_eq!(
        errors(&departs),
        format!("{HOST} departs from its baseline in 1 field, and in 2 more that are folded under its packages.\n")
    );

    let ask = async |words: &[&str]| {
        let answer = site.ask(words).await;
        assert!(answer.status.success(), "{words:?}: {}", errors(&answer));
        (text(&answer), errors(&answer))
    };
    let (rows, note) = ask(&["drift", "list"]).await;
    assert!(rows.contains("folds 2") && !rows.contains("file:/0"), "{rows}");
    assert_eq!(note, "2 more are folded under a package listed here: --folded yes\n");
    let (rows, note) = ask(&["drift", "list", "--kind", "file"]).await;
    assert_eq!((rows.as_str(), note.as_str()), ("", "No drift.\nThere is more, folded under packages: --folded yes\n"));
    let (rows, note) = ask(&["drift", "list", "--folded", "yes"]).await;
    assert_eq!((rows.matches(", folded").count(), rows.lines().count(), note.as_str()), (2, 4, ""), "{rows}");
    for words in [&["--folded", "only"], &["--folded-under", "package:nginx"]] {
        let (rows, note) = ask(&[&["drift", "list"], &words[..]].concat()).await;
        assert!(rows.contains("file:/0") && !rows.contains("package:nginx") && note.is_empty(), "{rows}{note}");
    }
    let (rows, note) = ask(&["drift", "list", "--item", "file:/0"]).await;
    assert!(rows.contains("file:/0") && note.is_empty(), "{rows}{note}");
    let (document, note) = ask(&["drift", "list", "--output", "json"]).await;
    assert!(!document.contains("file:/0") && note.is_empty(), "{document}{note}");

    let id = async |item: &str| {
        let (document, _) = ask(&["drift", "list", "--item", item, "--output", "json"]).await;
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        document["items"][0]["id"].to_string()
    };
    let (sheet, _) = ask(&["drift", "show", &id("file:/0").await]).await;
    assert!(sheet.contains("folded under") && sheet.contains("package:nginx"), "{sheet}");
    let (sheet, _) = ask(&["drift", "show", &id("package:nginx").await]).await;
    assert!(sheet.contains("2 drifts of its parts (trueline drift list --host web1 --folded-under package:nginx)"), "{sheet}");
    let (rows, _) = ask(&["changes", "list", "--limit", "3"]).await;
    assert_eq!(rows.matches("expected, shipped").count(), 2, "{rows}");
    let (sheet, _) = ask(&["changes", "show", "1"]).await;
    assert!(sheet.contains("shipped by") && sheet.contains("package:nginx"), "{sheet}");
    assert!(ask(&["hosts", "list"]).await.0.contains(" 1 +2 "));
    assert!(ask(&["hosts", "show", HOST]).await.0.contains("2 more, under packages whose drift stands for their parts"));
    let refused = site.ask(&["drift", "list", "--folded-under", "file:/0"]).await;
    assert!(!refused.status.success() && errors(&refused).contains("package:name"), "{}", errors(&refused));
    site.stop().await;
}
