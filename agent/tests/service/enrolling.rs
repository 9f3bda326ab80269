//! A host without an identity: what it is told, and how it comes to have one.

use nix::sys::signal::Signal;

use crate::site::{HOST, Site, names};

#[test]
fn a_host_that_nobody_enrolled_is_told_how_and_nothing_is_tried_again() {
    let digest = "ab".repeat(32);
    for (collector, token, digest, expected) in [
        ("", "", "", "/etc/trueline/enroll.env and start the service again, or run `trueline-agent enroll --collector HOST:9441"),
        ("c:9441", "t0ken", "", "TRUELINE_CA_SHA256 is missing"),
        ("c:9441", "t0ken", "abc", "TRUELINE_CA_SHA256 is not 64 hexadecimal digits"),
        ("nowhere", "t0ken", digest.as_str(), "`nowhere` is not an address: write HOST:PORT: look at TRUELINE_COLLECTOR"),
    ] {
        let site = Site::new();
        let mut agent = site.run(&[("TRUELINE_COLLECTOR", collector), ("TRUELINE_JOIN_TOKEN", token), ("TRUELINE_CA_SHA256", digest)]);
        assert_eq!(agent.end().code(), Some(78), "{}", agent.log());
        assert!(agent.log().contains(expected), "{expected} is not in: {}", agent.log());
        assert!(!agent.log().contains("t0ken"), "{}", agent.log());
    }
}

#[test]
fn a_collector_that_is_not_there_is_tried_again_and_holds_no_start_up() {
    let site = Site::new();
    let digest = "ab".repeat(32);
    let variables = [("TRUELINE_COLLECTOR", "127.0.0.1:1"), ("TRUELINE_JOIN_TOKEN", "t0ken"), ("TRUELINE_CA_SHA256", digest.as_str())];
    let mut agent = site.run(&[&variables[..], &[("WATCHDOG_USEC", "2000000")]].concat());
    let status = site.notified("STATUS=not enrolled yet, trying again: cannot reach 127.0.0.1:1");
    site.notified("READY=1");
    site.notified("WATCHDOG=1");
    let (report, is_healthy) = site.status();
    assert!(!is_healthy && report["health"] == "enrolling" && names(&report).contains("not enrolled yet"), "{report:#}");
    agent.signal(Signal::SIGTERM);
    site.notified("STOPPING=1");
    assert!(agent.end().success(), "{}", agent.log());
    assert!(!agent.log().contains("t0ken") && !status.contains("t0ken"));
}

#[test]
fn an_identity_that_is_made_by_hand_meanwhile_is_used() {
    let site = Site::new();
    let digest = "ab".repeat(32);
    let variables = [("TRUELINE_COLLECTOR", "127.0.0.1:1"), ("TRUELINE_JOIN_TOKEN", "t0ken"), ("TRUELINE_CA_SHA256", digest.as_str())];
    let mut agent = site.run(&variables);
    site.notified("STATUS=not enrolled yet, trying again: cannot reach 127.0.0.1:1");
    site.enrol("127.0.0.1:2");
    let membership = std::fs::read(site.path("data/identity/membership.json")).unwrap();
    let report = site.status_where("the identity to be used", |report| report["host"] == HOST && report["link"]["collector"].is_string());
    assert_eq!(report["link"]["collector"], "127.0.0.1:2");
    assert_eq!(std::fs::read(site.path("data/identity/membership.json")).unwrap(), membership);
    agent.signal(Signal::SIGTERM);
    assert!(agent.end().success(), "{}", agent.log());
}
