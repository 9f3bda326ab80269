//! A full disk under SQLite: told as such, nothing half written, and well again once space returns.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::process::Command;

use trueline_drift::{Epoch, Facts, Fields, HostId, Observation, RecordBody, Sequence, TenantId, Time};
use trueline_proto::ChainLink;
use trueline_store::{AppendOutcome, Batch, ItemFilter, Page, Store, StoreError, testing};
use uuid::Uuid;

/// A small file system of the test's own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=20m", "trueline-test"]).arg(folder.path()).output();
        match mounted {
            Ok(done) if done.status.success() => Ok(Self(folder)),
            Ok(done) => Err(format!("cannot mount a small tmpfs: {}", String::from_utf8_lossy(&done.stderr).trim())),
            Err(error) => Err(format!("cannot mount a small tmpfs: {error}")),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn batch(host: HostId, first: u64) -> Batch {
    let records = (first..first + 100)
        .map(|number| {
            let item = format!("file:/{number}").parse().unwrap();
            RecordBody::Observed(Observation {
                item,
                fields: Fields::new().with("link_target", "x".repeat(2000).as_str()),
                observed_at: Time::from_seconds(1),
            })
        })
        .collect();
    let link = |number: u64| if number == 1 { ChainLink::START } else { ChainLink([(number % 251) as u8; 32]) };
    Batch { host, epoch: Epoch(1), first: Sequence(first), records, previous: link(first), link: link(first + 100) }
}

async fn count(store: &dyn Store, host: HostId) -> u64 {
    let (mut count, mut after, mut pages) = (0, None, 0);
    loop {
        pages += 1;
        assert!(pages < 1000, "the pages have no end");
        let page = store.host_items(&TenantId::main(), host, &ItemFilter::default(), Page { limit: 1000, after }).await.unwrap();
        count += page.items.len() as u64;
        after = page.next;
        if after.is_none() {
            return count;
        }
    }
}

#[tokio::test]
async fn sqlite_says_that_the_disk_is_full_and_goes_on_when_it_is_not() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => return testing::skip("sqlite_says_that_the_disk_is_full_and_goes_on_when_it_is_not", reason),
    };
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![1; 13 << 20]).unwrap();
    let uri = format!("sqlite:{}", disk.path().join("store.db").display());
    let store = trueline_store::open(&uri).await.unwrap();
    let (host, facts) = (HostId(Uuid::now_v7()), Facts { hostname: "web".into(), ..Facts::default() });
    testing::enrol(&*store, &TenantId::main(), host, &facts, Time::from_seconds(0)).await.unwrap();
    store.host_connected(host, &facts, "0.1.0", Epoch(1), Time::from_seconds(1)).await.unwrap();
    let mut acknowledged = 0;
    let refused = loop {
        match store.append(vec![batch(host, acknowledged + 1)], Time::from_seconds(2)).await {
            Ok(outcomes) => match outcomes[..] {
                [AppendOutcome::Accepted { acknowledged: now, .. }] => acknowledged = now.0,
                ref other => panic!("{other:?}"),
            },
            Err(error) => break error,
        }
        assert!(acknowledged < 100_000, "the disk never filled");
    };
    assert!(matches!(refused, StoreError::NoSpace { .. }), "{refused:?}");
    // The log may have been copied back meanwhile, and then there is room for one more.
    match store.append(vec![batch(host, acknowledged + 1)], Time::from_seconds(3)).await {
        Ok(_) => acknowledged += 100,
        Err(error) => assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}"),
    }
    assert_eq!(count(&*store, host).await, acknowledged, "what was acknowledged is there, and no more");
    std::fs::remove_file(&filler).unwrap();
    let outcomes = store.append(vec![batch(host, acknowledged + 1)], Time::from_seconds(4)).await.unwrap();
    assert_eq!(outcomes, [AppendOutcome::Accepted { acknowledged: Sequence(acknowledged + 100), changes: 0 }]);
    drop(store);
    let store = trueline_store::open(&uri).await.unwrap();
    assert_eq!(count(&*store, host).await, acknowledged + 100);
    store.probe(Time::from_seconds(5)).await.unwrap();
}
