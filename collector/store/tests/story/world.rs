//! A fresh database, hosts that send to it, and a judge like the collector's.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection as _};
use trueline_drift::actor::Session;
use trueline_drift::baseline::ClosedScope;
use trueline_drift::change::ChangeKind;
use trueline_drift::judge::{BaselineName, weigh};
use trueline_drift::reconcile::reconcile;
use trueline_drift::transaction::{Transaction, TransactionKind};
use trueline_drift::{
    Actor, Cause, Certainty, Change, CoverageGap, Epoch, Facts, FieldChange, FieldName, Fields, GapReason, HostId, ItemId, Observation,
    RecordBody, TenantId, Time,
};
pub use trueline_store::testing::Sender;
use trueline_store::{
    AppendOutcome, Baseline, CompareRow, Compared, DriftWrite, JudgeOutput, KnownState, NewCapture, Page, Store, StoreError, testing,
};
use uuid::Uuid;

/// More pages than any story has: what follows a cursor counts them, so that one that does not go on fails.
pub const PAGES: std::ops::Range<u32> = 0..10_000;

/// Takes one of [`PAGES`].
pub fn turn(pages: &mut std::ops::Range<u32>) {
    assert!(pages.next().is_some(), "the pages have no end");
}

pub struct World {
    pub store: Arc<dyn Store>,
    uri: String,
    /// Of SQLite.
    folder: Option<tempfile::TempDir>,
}

impl World {
    pub async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uri = format!("sqlite:{}", folder.path().join("store.db").display());
        Self { store: trueline_store::open(&uri).await.unwrap(), uri, folder: Some(folder) }
    }

    pub async fn on_postgresql(test: &str) -> Option<Self> {
        match testing::postgres() {
            Ok(server) => {
                let uri = server.uri("story");
                Some(Self { store: trueline_store::open(&uri).await.unwrap(), uri, folder: None })
            }
            Err(missing) => {
                testing::skip(&format!("on_postgresql::{test}"), missing);
                None
            }
        }
    }

    /// Another database of the same kind, as statements make it before it is opened.
    pub async fn of_script(&self, script: fn(is_sqlite: bool) -> String) -> Self {
        let (uri, folder) = if self.folder.is_some() {
            let folder = tempfile::tempdir().unwrap();
            let uri = format!("sqlite:{}", folder.path().join("store.db").display());
            let mut connection = sqlx::SqliteConnection::connect(&format!("{uri}?mode=rwc")).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(script(true))).execute(&mut connection).await.unwrap();
            (uri, Some(folder))
        } else {
            let uri = testing::postgres().unwrap().uri("story");
            let mut connection = sqlx::PgConnection::connect(&uri).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(script(false))).execute(&mut connection).await.unwrap();
            (uri, None)
        };
        Self { store: trueline_store::open(&uri).await.unwrap(), uri, folder }
    }

    /// Another collector on the same database.
    pub async fn another(&self) -> Arc<dyn Store> {
        trueline_store::open(&self.uri).await.unwrap()
    }

    pub async fn host(&self, name: &str) -> Sender {
        self.host_of(&main(), name).await
    }

    pub async fn host_of(&self, tenant: &TenantId, name: &str) -> Sender {
        let id = HostId(Uuid::now_v7());
        let facts = facts(name);
        testing::enrol(&*self.store, tenant, id, &facts, at(0)).await.unwrap();
        self.store.host_connected(id, &facts, "0.1.0", Epoch(1), at(1)).await.unwrap();
        Sender::new(id, Epoch(1))
    }

    /// Appends the records as the host's next batch.
    pub async fn send(&self, sender: &mut Sender, records: Vec<RecordBody>) {
        self.send_at(sender, records, at(100)).await;
    }

    /// As they are received then.
    pub async fn send_at(&self, sender: &mut Sender, records: Vec<RecordBody>, received_at: Time) {
        let batch = sender.batch(records);
        let outcomes = self.store.append(vec![batch], received_at).await.unwrap();
        assert!(matches!(outcomes[..], [AppendOutcome::Accepted { .. }]), "{outcomes:?}");
    }

    /// Takes the host's state as its baseline; no scopes means all of it.
    pub async fn capture(&self, tenant: &TenantId, host: HostId, scopes: Vec<ClosedScope>) -> Result<Baseline, StoreError> {
        let (tenant, name, by) = (tenant.clone(), "web".into(), "token:ops".into());
        self.store.capture_baseline(NewCapture { tenant, host, name, scopes, by, at: at(200), assign: true }).await
    }

    pub async fn judge(&self) -> usize {
        let (mut judged, mut pages) = (0, PAGES);
        while let Some(output) = judgement(&*self.store, 1000).await {
            turn(&mut pages);
            judged += output.judgements.len();
            assert!(self.store.record_judgements(output).await.unwrap());
        }
        judged
    }

    /// Compares every host that is due, in pages of this many items.
    pub async fn compare(&self, limit: u32) {
        for host in self.store.hosts_to_compare(None, 100).await.unwrap() {
            let decide = |rows: Vec<CompareRow>| {
                let mut writes = Vec::new();
                for row in rows {
                    let name = host.baseline.as_ref().map_or(BaselineName { name: String::new(), version: 0 }, |(_, name)| name.clone());
                    let fields = match &row.state {
                        KnownState::There(fields) => Some(fields),
                        KnownState::Missing => None,
                        KnownState::Unwatched => continue,
                    };
                    let findings = trueline_drift::baseline::departures(&row.expectation, fields);
                    let findings = findings.into_iter().map(|departure| weigh(&row.item, departure, &name)).collect();
                    for step in reconcile(&row.open, findings, |_| false) {
                        let item = row.item.clone();
                        writes.push(DriftWrite { host: host.host, item, item_row: row.item_row, at: at(300), change: None, step });
                    }
                }
                writes
            };
            let (mut after, mut pages) = (None, PAGES);
            let end = loop {
                turn(&mut pages);
                match self.store.compare(&host, after, limit, &decide).await.unwrap() {
                    Compared::UpTo(last) => after = Some(last),
                    end => break end,
                }
            };
            assert_eq!(end, Compared::End);
            self.store.comparison_done(&host).await.unwrap();
        }
    }
}

/// What the judge would write of the next changes.
pub async fn judgement(store: &dyn Store, limit: u32) -> Option<JudgeOutput> {
    testing::judgement(store.unjudged(limit).await.unwrap())
}

pub fn main() -> TenantId {
    TenantId::main()
}

pub fn at(seconds: i64) -> Time {
    Time::from_seconds(1_700_000_000 + seconds)
}

pub fn facts(name: &str) -> Facts {
    Facts { hostname: name.to_owned(), ..Facts::default() }
}

pub fn item(text: &str) -> ItemId {
    text.parse().unwrap()
}

pub fn page(limit: u32) -> Page {
    Page { limit, after: None }
}

pub fn observed(name: &str, fields: Fields) -> RecordBody {
    RecordBody::Observed(Observation { item: item(name), fields, observed_at: at(10) })
}

pub fn inventory_complete(items: u64) -> RecordBody {
    RecordBody::InventoryComplete { items, observed_at: at(11) }
}

pub fn gap() -> RecordBody {
    RecordBody::Gap(CoverageGap {
        scope: "file:/etc".into(),
        reason: GapReason::QueueOverflow,
        began_at: at(1),
        ended_at: Some(at(2)),
        lost: None,
        remedy: Some("rescanned 3 items".into()),
    })
}

pub fn actor() -> Actor {
    Actor { certainty: Certainty::Strong, via: vec!["fanotify".into()], reason: None, ..Actor::unknown("") }
}

/// A change of one field, of a file that has a mode as well.
pub fn changed(name: &str, field: &'static str, before: &str, after: &str) -> RecordBody {
    let fields = vec![FieldChange { name: FieldName::known(field), before: Some(before.into()), after: Some(after.into()) }];
    change(name, ChangeKind::Modified, fields)
}

pub fn removed(name: &str, field: &'static str, before: &str) -> RecordBody {
    change(name, ChangeKind::Removed, vec![FieldChange { name: FieldName::known(field), before: Some(before.into()), after: None }])
}

/// The same change, said to be a part of a package's.
pub fn shipped(record: RecordBody, package: &str) -> RecordBody {
    let RecordBody::Changed(mut change) = record else { panic!("only a change is a part of another") };
    change.shipped_by = Some(item(package));
    RecordBody::Changed(change)
}

/// The same change, made in this session and in these runs, innermost first.
pub fn made_in(record: RecordBody, session: Option<&str>, runs: &[&str]) -> RecordBody {
    let RecordBody::Changed(mut change) = record else { panic!("only a change is made in a session or a run") };
    change.actor.session = session.map(|id| Session::bare(id.parse().unwrap()));
    change.transaction = runs.iter().rev().fold(None, |within, id| {
        Some(Transaction {
            id: id.parse().unwrap(),
            kind: TransactionKind::Apt,
            certainty: Certainty::Exact,
            name: None,
            command: None,
            requested_by: None,
            began_at: None,
            within: within.map(Box::new),
        })
    });
    RecordBody::Changed(change)
}

fn change(name: &str, kind: ChangeKind, fields: Vec<FieldChange>) -> RecordBody {
    RecordBody::Changed(Box::new(Change {
        item: item(name),
        kind,
        fields,
        unchanged: Fields::new().with("mode", "0644"),
        observed_after: at(20),
        observed_at: at(21),
        cause: Cause::Event,
        actor: actor(),
        transaction: None,
        shipped_by: None,
        candidates: trueline_drift::Candidates::default(),
        lines: None,
    }))
}
