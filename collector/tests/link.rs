//! The agents' ports over real TLS: who is let in, what is taken, and that what one peer does wrong
//! does not disturb another.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "link/agent.rs"]
mod agent;

use agent::{Chain, Collector, GUARD, observed, shake};
use futures_util::future::select_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use trueline_collector::ca::CertificateAuthority;
use trueline_collector::hub::now;
use trueline_collector::tls::PeerIdentity;
use trueline_drift::change::ChangeKind;
use trueline_drift::{Actor, Cause, Change, FieldChange, FieldName, Fields, RecordBody, TenantId, Time, Value};
use trueline_proto::{MESSAGE_LIMIT, v1};
use trueline_store::{DriftFilter, NewCapture, Page};

const PAGE: Page = Page { limit: 100, after: None };

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_join_token_enrols_and_the_refusal_says_why() {
    let collector = Collector::start().await;
    let used_up = collector.join_token(Some(1), None).await;
    collector.enrol(&used_up).await.unwrap();
    let expired = collector.join_token(None, Some(now().plus_seconds(-1))).await;
    for (token, reason) in [("tl_join_00", "unknown"), (&used_up, "used up"), (&expired, "expired")] {
        let status = collector.enrol(token).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains(reason), "{status}");
    }
    let hosts = collector.store().hosts(&TenantId::main(), PAGE).await.unwrap();
    assert_eq!(hosts.items.len(), 1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_signed_enrols_nobody() {
    let collector = Collector::start().await;
    let token = collector.join_token(None, None).await;
    for (csr, reason) in [(b"junk".to_vec(), "is not PKCS #10"), (vec![0x30; 20_000], "limit"), (agent::forged_request(), "own key")] {
        let status = collector.enrol_with(&token, csr).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(reason), "{status}");
    }
    assert!(collector.store().hosts(&TenantId::main(), PAGE).await.unwrap().items.is_empty());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_answer_was_lost_asks_again_and_is_the_same_host() {
    let collector = Collector::start().await;
    let token = collector.join_token(Some(1), None).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let refused = collector.enrol_with(&token, b"junk".to_vec()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "and it costs no use");
    let lost = collector.enrol_with(&token, agent::request(&key)).await.unwrap();
    let agent = collector.enrol_as(&token, key).await.unwrap();
    assert_eq!(agent.host, lost.host_id);
    let status = collector.enrol(&token).await.unwrap_err();
    assert!(status.message().contains("used up"), "another key is another host: {status}");
    let hosts = async || collector.store().hosts(&TenantId::main(), PAGE).await.unwrap().items.len();
    assert_eq!(hosts().await, 1);
    let noted = collector.store().actions(&TenantId::main(), PAGE).await.unwrap().items;
    assert_eq!(noted.iter().filter(|action| action.action == "host.enrol").count(), 2);

    // Its answer has come.
    drop(agent.stream(1).await.unwrap());
    let status = collector.enrol_with(&token, agent::request(&agent.key)).await.unwrap_err();
    assert!(status.message().contains("used up"), "{status}");
    assert_eq!(hosts().await, 1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_acknowledged_once_durable_and_what_is_sent_again_is_dropped() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let mut chain = Chain::new(1);
    let frames: Vec<_> =
        (0..3).map(|number| chain.frame(vec![observed(&format!("/etc/{number}")), observed(&format!("/usr/{number}"))])).collect();

    let mut stream = agent.stream(1).await.unwrap();
    assert_eq!(stream.acknowledged, 0);
    stream.send(frames.clone()).await;
    stream.acknowledged_up_to(6).await.unwrap();
    drop(stream);

    let mut again = agent.stream(1).await.unwrap();
    assert_eq!(again.acknowledged, 6);
    again.send(frames).await;
    again.acknowledged_up_to(6).await.unwrap();
    again.send(vec![chain.frame(vec![observed("/etc/y")])]).await;
    again.acknowledged_up_to(7).await.unwrap();
    let host = collector.store().host(&TenantId::main(), &agent.host).await.unwrap().unwrap();
    assert_eq!((host.acknowledged.0, host.items), (7, 7));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_welcome_tells_which_epoch_the_host_is_at() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let mut chain = Chain::new(5);
    let mut stream = agent.stream(5).await.unwrap();
    stream.send(vec![chain.frame(vec![observed("/etc/a")])]).await;
    stream.acknowledged_up_to(1).await.unwrap();
    drop(stream);
    for (said, epoch, acknowledged) in [(5, 5, 1), (4, 5, 0), (5, 5, 1), (6, 6, 0), (5, 6, 0)] {
        let stream = agent.stream(said).await.unwrap();
        assert_eq!((stream.epoch, stream.acknowledged), (epoch, acknowledged), "Hello of epoch {said}");
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_or_a_broken_chain_ends_the_stream_with_the_reason() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let mut chain = Chain::new(1);
    let first = chain.frame(vec![observed("/etc/a")]);
    let _lost = chain.frame(vec![observed("/etc/b")]);
    let third = chain.frame(vec![observed("/etc/c")]);

    let mut stream = agent.stream(1).await.unwrap();
    stream.send(vec![first.clone()]).await;
    stream.acknowledged_up_to(1).await.unwrap();
    stream.send(vec![third.clone()]).await;
    let status = stream.acknowledged_up_to(3).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
    assert!(status.message().contains("expected 2, got 3"), "{status}");

    let mut stream = agent.stream(1).await.unwrap();
    stream.send(vec![v1::Frame { first_sequence: 2, ..third }]).await;
    let status = stream.acknowledged_up_to(2).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
    assert!(status.message().contains("hash chain is broken at sequence 2"), "{status}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_without_a_good_certificate_are_refused_and_others_go_on() {
    let collector = Collector::start().await;
    let mut steady = collector.steady().await;
    let agent = collector.enrolled().await;
    let day_ago = now().plus_seconds(-86_400);
    let folder = tempfile::tempdir().unwrap();
    let other_ca = CertificateAuthority::open(folder.path(), day_ago).unwrap();

    let expired = agent.with_certificate(&collector.ca, std::time::Duration::from_secs(1), day_ago);
    let other = agent.with_certificate(&other_ca, std::time::Duration::from_secs(3600), now());
    for (who, alert) in [(Some(&expired), "CertificateExpired"), (Some(&other), "UnknownCA"), (None, "CertificateRequired")] {
        let error = shake(&collector, who).await.unwrap_err().to_string();
        assert!(error.contains(alert), "{alert}: {error}");
        steady.goes_on().await;
    }
    let mut stranger = agent.clone();
    stranger.host = "018f0000-0000-7000-8000-000000000001".to_owned();
    let unknown = stranger.with_certificate(&collector.ca, std::time::Duration::from_secs(3600), now());
    let status = unknown.stream(1).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("unknown here"), "{status}");
    steady.goes_on().await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_this_ca_that_a_restored_database_lacks_is_adopted_unless_its_host_was_revoked() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let renewed = agent.with_certificate(&collector.ca, std::time::Duration::from_secs(3600), now());
    renewed.stream(1).await.unwrap();
    renewed.stream(1).await.unwrap();
    let actions = collector.store().actions(&TenantId::main(), PAGE).await.unwrap().items;
    assert_eq!(actions.iter().filter(|action| action.action == "certificate.adopt").count(), 1);
    collector.store().revoke_host(&TenantId::main(), agent.host.parse().unwrap(), now()).await.unwrap();
    let another = agent.with_certificate(&collector.ca, std::time::Duration::from_secs(3600), now());
    let status = another.stream(1).await.unwrap_err();
    assert!(status.message().contains("revoked"), "{status}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_tls_are_hung_up_on_and_others_go_on() {
    let collector = Collector::start().await;
    let mut steady = collector.steady().await;
    let noise: Vec<u8> = (0..4096u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for bytes in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &noise] {
        let mut socket = tokio::net::TcpStream::connect(collector.serving.addresses.agents).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // Ends by itself, in order or by a reset: the collector hangs up.
        let _ = tokio::time::timeout(GUARD, socket.read_to_end(&mut answer)).await.expect("the collector hangs up");
        assert!(answer.len() < 64, "nothing but an alert is answered: {answer:?}");
        steady.goes_on().await;
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_end_their_own_stream_with_the_reason_and_others_go_on() {
    let collector = Collector::start().await;
    let mut steady = collector.steady().await;
    let hostile = collector.enrolled().await;
    let bomb = RecordBody::Observed(trueline_drift::Observation {
        item: "file:/etc/bomb".parse().unwrap(),
        fields: Fields::new(),
        observed_at: Time::from_seconds(1),
    });
    let mut bomb = v1::Record::from(bomb);
    if let Some(v1::record::Body::Observed(observation)) = &mut bomb.body {
        let value = v1::Value { kind: Some(v1::value::Kind::Text("a".repeat(64 * 1024 * 1024))) };
        observation.fields.push(v1::Field { name: "x".to_owned(), value: Some(value) });
    }
    let bomb = Chain::new(1).wire_frame(vec![bomb]);
    assert!(bomb.payload.len() < 64 * 1024, "the bomb is small on the wire");
    let noise = Chain::new(1).raw_frame(1, vec![7; 100]);
    let large = Chain::new(1).raw_frame(1, vec![7; MESSAGE_LIMIT + 1]);
    let miscounted = v1::Frame { count: 4097, ..noise.clone() };
    for (frame, reason) in [(bomb, "decompresses to more than"), (noise, "zstd"), (large, "too large"), (miscounted, "impossible numbers")]
    {
        let mut stream = hostile.stream(1).await.unwrap();
        stream.send(vec![frame]).await;
        let status = stream.acknowledged_up_to(1).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(reason), "{reason}: {status}");
        steady.goes_on().await;
    }
    let status = hostile.stream_with(|hello| hello.protocol = 99).await.unwrap_err();
    assert!(status.message().contains("protocol 99"), "{status}");
    steady.goes_on().await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_certifies_the_peer_that_asks_and_nobody_else() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let renewed = agent.renew().await.unwrap();
    let identity = PeerIdentity::from_certificate(&renewed.certificates[0]).unwrap();
    assert_eq!(identity.host.to_string(), agent.host);
    assert_ne!(identity.serial, PeerIdentity::from_certificate(&agent.certificates[0]).unwrap().serial);
    renewed.stream(1).await.unwrap();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_renews_without_end_is_refused_and_others_go_on() {
    let collector = Collector::start().await;
    let mut steady = collector.steady().await;
    let (greedy, other) = (collector.enrolled().await, collector.enrolled().await);
    for _ in 0..10 {
        greedy.renew().await.unwrap();
    }
    let status = greedy.renew().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("try again in a minute"), "{status}");
    other.renew().await.unwrap();
    steady.goes_on().await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_the_live_stream_and_refuses_the_next() {
    let collector = Collector::start().await;
    let mut steady = collector.steady().await;
    for rung_here in [true, false] {
        let agent = collector.enrolled().await;
        let mut stream = agent.stream(1).await.unwrap();
        let host = agent.host.parse().unwrap();
        assert!(collector.store().revoke_host(&TenantId::main(), host, now()).await.unwrap());
        if rung_here {
            collector.serving.hub.streams.end(host);
        }
        let ended = stream.acknowledged_up_to(1).await.unwrap_err();
        let refused = agent.stream(1).await.unwrap_err();
        let renewal = agent.renew().await.err().unwrap();
        for status in [ended, refused, renewal] {
            assert_eq!(status.code(), Code::PermissionDenied, "{status}");
            assert!(status.message().contains("revoked"), "{status}");
        }
        steady.goes_on().await;
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_have_all_of_enrolment() {
    let collector = Collector::start().await;
    let token = collector.join_token(None, None).await;
    let enrolment = collector.serving.addresses.enrolment;
    // Half of the handshakes, none of which is ever ended.
    let mut silent = Vec::new();
    for _ in 0..600 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.2.9:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(enrolment).await.unwrap());
    }
    collector.enrol(&token).await.unwrap();
    drop(silent);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_so_many_connections_and_a_revoked_one_none() {
    let collector = Collector::start().await;
    let mut steady = collector.steady().await;
    let agent = collector.enrolled().await;
    let mut open = Vec::new();
    for _ in 0..9 {
        open.push(agent.connected().await.unwrap());
    }
    // Whichever came last to the collector: a handshake is over for the agent before it is for the other side.
    let ((), beyond, _) = select_all(open.iter_mut().map(|stream| Box::pin(agent::ended(stream)))).await;
    drop(open.remove(beyond));
    steady.goes_on().await;

    let host = agent.host.parse().unwrap();
    assert!(collector.store().revoke_host(&TenantId::main(), host, now()).await.unwrap());
    // By the task that looks for those revoked by any collector.
    for stream in &mut open {
        agent::ended(stream).await;
    }
    let mut revoked = agent.connected().await.unwrap();
    agent::ended(&mut revoked).await;
    steady.goes_on().await;
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_stream_of_a_host_takes_over() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let mut older = agent.stream(1).await.unwrap();
    let mut newer = agent.stream(1).await.unwrap();
    assert_eq!(older.acknowledged_up_to(1).await.unwrap_err().code(), Code::Aborted);
    newer.send(vec![Chain::new(1).frame(vec![observed("/etc/a")])]).await;
    newer.acknowledged_up_to(1).await.unwrap();
    collector.stop().await;
}

/// As two containers do that were made from one disk: one certificate, one kernel with its boot id, two agents.
#[tokio::test(flavor = "multi_thread")]
async fn two_machines_with_one_identity_are_noticed_and_one_of_them_stays() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let host = agent.host.parse().unwrap();
    let life = |run: u8| {
        move |hello: &mut v1::Hello| {
            hello.run_id = Some(vec![run; 16].into());
            hello.facts.get_or_insert_default().boot_id = Some("one kernel".to_owned());
        }
    };
    let duplicated = async || {
        let actions = collector.store().actions(&TenantId::main(), PAGE).await.unwrap().items;
        actions.into_iter().filter(|action| action.action == "host.duplicated").count()
    };
    let mut original = agent.stream_with(life(1)).await.unwrap();
    let mut copy = agent.stream_with(life(2)).await.expect("nobody can tell it from a restart");
    assert_eq!(original.acknowledged_up_to(1).await.unwrap_err().code(), Code::Aborted);
    for attempt in 0..4 {
        assert_eq!(duplicated().await, usize::from(attempt >= 2), "noted once, and not at the first attempt");
        let refused = agent.stream_with(life(1)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("another machine speaks as this host"), "{refused}");
    }
    assert!(collector.serving.hub.streams.has_twin(host, now()));
    copy.send(vec![Chain::new(1).frame(vec![observed("/etc/a")])]).await;
    copy.acknowledged_up_to(1).await.expect("the one that stays is undisturbed");

    let again = agent.stream_with(life(2)).await.expect("it lost its connection and comes back");
    let restarted = agent.stream_with(life(3)).await.expect("an agent that was started anew is never kept out");
    drop((copy, again, restarted));
    let let_in = async { while agent.stream_with(life(1)).await.is_err() {} };
    tokio::time::timeout(GUARD, let_in).await.expect("where the other is gone, this one speaks");
    assert_eq!(duplicated().await, 1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_id_of_another_length_is_the_peers_fault() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let status = agent.stream_with(|hello| hello.run_id = Some(vec![1; 15].into())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("run id"), "{status}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_speak_for_a_host_does_not_end_its_stream() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let mut stream = agent.stream(1).await.unwrap();
    let stranger = agent.of_other_tenant(&collector.ca);
    // Its own connection is ended, and no other of that name.
    agent::ended(&mut stranger.connected().await.unwrap()).await;
    assert_eq!(stranger.stream(1).await.unwrap_err().code(), Code::PermissionDenied);
    stream.send(vec![Chain::new(1).frame(vec![observed("/etc/a")])]).await;
    stream.acknowledged_up_to(1).await.unwrap();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_beyond_what_can_be_stored_is_the_peers_fault() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let status = agent.stream(u64::MAX).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("epoch 18446744073709551615"), "{status}");
    agent.stream(1).await.unwrap();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_policy_is_sent_changed_and_withdrawn_and_a_version_is_one_text() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watch.yaml");
    let text = |version: u64, watched: &str| format!("version: {version}\npaths: [{watched}]\n");
    let mut stream = agent.stream(1).await.unwrap();
    for (version, watched) in [(1, "/etc"), (2, "/usr")] {
        std::fs::write(&path, text(version, watched)).unwrap();
        collector.serving.reload(Some(path.clone())).await.unwrap();
        assert_eq!(stream.policy().await, (version, text(version, watched)));
    }
    collector.serving.reload(None).await.unwrap();
    assert_eq!(stream.policy().await, (0, String::new()));
    // Who was away hears of it at its next Hello.
    let mut back = agent.stream_with(|hello| hello.policy_version = 2).await.unwrap();
    assert_eq!(back.policy().await, (0, String::new()));

    // What is withdrawn in between is not forgotten: who is away still has version 2.
    std::fs::write(&path, text(2, "/opt")).unwrap();
    let refused = collector.serving.reload(Some(path.clone())).await.unwrap_err().to_string();
    assert!(refused.contains("is still version 2") && refused.contains("give a greater one"), "{refused}");
    std::fs::write(&path, text(2, "/usr")).unwrap();
    collector.serving.reload(Some(path)).await.unwrap();
    assert_eq!(back.policy().await, (2, text(2, "/usr")));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_starts_again_keeps_its_ca_and_what_it_acknowledged() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let mut chain = Chain::new(1);
    let mut stream = agent.stream(1).await.unwrap();
    stream.send(vec![chain.frame(vec![observed("/etc/a")])]).await;
    stream.acknowledged_up_to(1).await.unwrap();
    let collector = collector.restart().await;
    assert_eq!(stream.acknowledged_up_to(2).await.unwrap_err().code(), Code::Unavailable);
    let mut stream = agent.dialling(collector.serving.addresses.agents).stream(1).await.unwrap();
    assert_eq!(stream.acknowledged, 1);
    stream.send(vec![chain.frame(vec![observed("/etc/b")])]).await;
    stream.acknowledged_up_to(2).await.unwrap();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_departs_from_the_captured_baseline_opens_drift_that_its_return_resolves() {
    let collector = Collector::start().await;
    let agent = collector.enrolled().await;
    let mut chain = Chain::new(1);
    let mut stream = agent.stream(1).await.unwrap();
    let inventory = RecordBody::InventoryComplete { items: 1, observed_at: Time::from_seconds(1) };
    stream.send(vec![chain.frame(vec![observed("/etc/shadow"), inventory])]).await;
    stream.acknowledged_up_to(2).await.unwrap();
    let capture = NewCapture {
        tenant: TenantId::main(),
        host: agent.host.parse().unwrap(),
        name: "web".to_owned(),
        scopes: Vec::new(),
        by: "test".to_owned(),
        at: now(),
        assign: true,
    };
    collector.store().capture_baseline(capture).await.unwrap();
    collector.serving.hub.compare.ring();

    let changed = |before: &str, after: &str| {
        RecordBody::Changed(Box::new(Change {
            item: "file:/etc/shadow".parse().unwrap(),
            kind: ChangeKind::Modified,
            fields: vec![FieldChange {
                name: FieldName::known("mode"),
                before: Some(Value::text(before)),
                after: Some(Value::text(after)),
            }],
            unchanged: Fields::new(),
            observed_after: Time::from_seconds(2),
            observed_at: Time::from_seconds(3),
            cause: Cause::Event,
            actor: Actor::unknown("a test"),
            transaction: None,
            shipped_by: None,
            candidates: trueline_drift::Candidates::default(),
            lines: None,
        }))
    };
    stream.send(vec![chain.frame(vec![changed("0644", "0666")])]).await;
    stream.acknowledged_up_to(3).await.unwrap();
    let open = DriftFilter { unresolved: true, ..DriftFilter::default() };
    let drift = collector.drifts_until(&open, |drifts| !drifts.is_empty()).await;
    assert_eq!(drift[0].actual, Some(Value::text("0666")));
    assert!(drift[0].field == FieldName::known("mode") && drift[0].expected == Some(Value::text("0644")));
    stream.send(vec![chain.frame(vec![changed("0666", "0644")])]).await;
    stream.acknowledged_up_to(4).await.unwrap();
    collector.drifts_until(&open, |drifts| drifts.is_empty()).await;
    collector.stop().await;
}
