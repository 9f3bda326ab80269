//! What stands still, a disk or a name server, and how long the agent stands with it.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::site::{AGENT, Agent, PATIENCE, Site, is_root, need};

/// The data directory on a file system of its own, which can be made to stand still. Unmounted when dropped.
struct Disk {
    place: PathBuf,
}

impl Disk {
    fn tool(program: &str, arguments: &[&std::ffi::OsStr]) -> bool {
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// `None` where this machine cannot, which is said.
    fn mount(site: &Site) -> Option<Self> {
        let image = site.path("disk.img");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        // Unmounted whatever comes after.
        let disk = Self { place: site.path("data") };
        let made = Self::tool("mkfs.ext4", &["-q".as_ref(), image.as_ref()])
            && Self::tool("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), disk.place.as_ref()]);
        need(made, "needs root, mkfs.ext4 and loop devices").then_some(disk)
    }

    fn freeze(&self) -> Frozen<'_> {
        assert!(Self::tool("fsfreeze", &["--freeze".as_ref(), self.place.as_ref()]));
        Frozen { disk: self }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Self::tool("umount", &["--lazy".as_ref(), self.place.as_ref()]);
    }
}

/// A disk that stands still, until dropped: to be declared after the agent, which cannot be killed while it waits for it.
struct Frozen<'a> {
    disk: &'a Disk,
}

impl Frozen<'_> {
    fn thaw(self) {}
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let thawed = Disk::tool("fsfreeze", &["--unfreeze".as_ref(), self.disk.place.as_ref()]);
        assert!(thawed || std::thread::panicking());
    }
}

#[test]
fn an_observer_that_stands_still_is_not_passed_off_as_alive() {
    let site = Site::enrolled();
    let identity = site.path("data/identity");
    std::fs::rename(&identity, site.path("identity")).unwrap();
    let Some(disk) = Disk::mount(&site) else { return };
    assert!(Disk::tool("cp", &["-r".as_ref(), site.path("identity").as_ref(), identity.as_ref()]));
    let mut agent = site.run(&[("WATCHDOG_USEC", "2000000")]);
    site.notified("READY=1");
    site.notified("WATCHDOG=1");
    site.notified("WATCHDOG=1");

    let frozen = disk.freeze();
    // What there is to write has it wait for the disk.
    std::fs::write(site.path("watched/file.conf"), "another").unwrap();
    let began = Instant::now();
    site.manager.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length) = site.manager.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(began.elapsed() < PATIENCE, "the manager is still told `{text}`");
    }
    assert!(agent.log().contains("a part of the service stands still part=\"observer\""), "{}", agent.log());

    frozen.thaw();
    site.manager.set_read_timeout(Some(PATIENCE)).unwrap();
    site.notified("WATCHDOG=1");
    agent.signal(Signal::SIGTERM);
    site.notified("STOPPING=1");
    assert!(agent.end().success(), "{}", agent.log());
}

/// A name server that hears and never answers.
struct Silence {
    socket: UdpSocket,
    configuration: PathBuf,
}

impl Silence {
    fn new(site: &Site) -> Option<Self> {
        // An address of the loopback network that nobody else uses.
        let address = "127.83.71.59";
        let socket = UdpSocket::bind((address, 53));
        if !is_root() || !need(socket.is_ok(), "needs port 53 of a loopback address") {
            return None;
        }
        let (socket, configuration) = (socket.unwrap(), site.path("resolv.conf"));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Half a minute for each of two tries.
        std::fs::write(&configuration, format!("nameserver {address}\noptions timeout:30 attempts:2\n")).unwrap();
        std::fs::set_permissions(&configuration, std::fs::Permissions::from_mode(0o644)).unwrap();
        Some(Self { socket, configuration })
    }

    /// The agent, which asks it alone, at the moment when it has asked.
    fn asked(&self, site: &Site, variables: &[(&str, &str)]) -> Agent {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#]).arg(&self.configuration).arg(AGENT);
        let mut command = site.prepared(command, "run");
        command.envs(variables.iter().copied());
        let agent = site.spawn(command);
        let heard = self.socket.recv(&mut [0; 512]);
        assert!(heard.is_ok(), "no name was looked up; the agent's log:\n{}", agent.log());
        agent
    }
}

/// A look-up of a name cannot be broken off, and has minutes to go.
#[test]
fn a_silent_name_server_does_not_hold_up_the_end() {
    let digest = "ab".repeat(32);
    for is_enrolled in [true, false] {
        let site = Site::new();
        let Some(silence) = Silence::new(&site) else { return };
        if is_enrolled {
            site.enrol("collector.example:9440");
        }
        let variables =
            [("TRUELINE_COLLECTOR", "collector.example:9441"), ("TRUELINE_JOIN_TOKEN", "t0ken"), ("TRUELINE_CA_SHA256", digest.as_str())];
        let mut agent = silence.asked(&site, &variables);
        let began = Instant::now();
        agent.signal(Signal::SIGTERM);
        assert!(agent.end().success(), "{}", agent.log());
        assert!(began.elapsed() < Duration::from_secs(20), "enrolled: {is_enrolled}; it took {:?}", began.elapsed());
    }
}

/// Seen while it waits for the disk: once opened, the thread is gone.
#[test]
fn state_and_spool_are_opened_by_a_confined_thread() {
    let site = Site::enrolled();
    std::fs::rename(site.path("data/identity"), site.path("identity")).unwrap();
    let Some(disk) = Disk::mount(&site) else { return };
    assert!(Disk::tool("cp", &["-r".as_ref(), site.path("identity").as_ref(), site.path("data/identity").as_ref()]));
    let agent;
    let frozen = disk.freeze();
    agent = site.run(&[]);
    let began = Instant::now();
    let opening = |threads: &[(String, String)]| threads.iter().any(|(name, privileges)| name == "opening" && privileges == "1");
    while !opening(&agent.threads("NoNewPrivs")) {
        assert!(began.elapsed() < PATIENCE, "{:?}; the agent's log:\n{}", agent.threads("NoNewPrivs"), agent.log());
        std::thread::yield_now();
    }
    frozen.thaw();
    site.notified("READY=1");
}
