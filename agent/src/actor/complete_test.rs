use std::os::unix::fs::MetadataExt;
use std::path::Path;

use trueline_drift::actor::{Container, Sudo, User};

use super::*;
use crate::actor::image::FileIdentity;

struct Scene {
    completion: Completion,
    state: State,
    boot: BootId,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (state, _) = State::open(&folder.path().join("state.redb"), 1 << 20, "0").unwrap();
        let completion = Completion::alone();
        let boot = completion.boot.expect("the kernel names its boot");
        Self { completion, state, boot, _folder: folder }
    }

    fn complete(&mut self, actor: &Actor) -> Actor {
        self.completion.complete(actor, &self.state).0
    }

    /// Logins from a folder of records of logind's, of which there are none yet.
    fn follow_logins(&mut self) -> tempfile::TempDir {
        let records = tempfile::tempdir().unwrap();
        self.completion.logins = Some(Logins::of_records(records.path()));
        records
    }

    fn settled(&mut self, actor: &Actor, number: u32) -> Session {
        crate::testing::until("the search for its login", || {
            self.complete(actor);
            self.completion.logins.as_ref().unwrap().is_settled(AuditSession(number))
        });
        self.complete(actor).session.unwrap()
    }

    fn note(&mut self, pid: u32, exe: &str, uid: u32) {
        let file = std::fs::metadata(exe).unwrap();
        let changed = Duration::new(file.ctime() as u64, file.ctime_nsec() as u32);
        let file = FileIdentity { device: file.dev(), inode: file.ino(), changed: Some(changed) };
        let image = ProcessImage { pid, started_at: None, exe: exe.to_owned(), file: Some(file), uid: Some(uid), is_apart: false };
        self.completion.note(image, &self.state);
    }
}

fn process(pid: u32, exe: &str) -> Process {
    Process { exe: Some(exe.to_owned()), ..Process::bare(pid) }
}

fn actor(chain: &[Process]) -> Actor {
    let user = User { uid: 0, euid: Some(0), login_uid: Some(0), name: Some("root".into()), login_name: Some("root".into()) };
    Actor {
        certainty: Certainty::Strong,
        process: chain.first().cloned(),
        parents: chain[1..].to_vec(),
        user: Some(user),
        reason: None,
        ..Actor::unknown("")
    }
}

#[test]
fn a_job_of_cron_is_no_login() {
    let mut scene = Scene::new();
    let started_at = Some(Time::from_seconds(9));
    let job = Process { started_at, ..process(265, "/usr/sbin/cron") };
    let chain = [process(267, "/usr/bin/dash"), job, process(45, "/usr/sbin/cron"), process(1, "/usr/lib/systemd/systemd")];
    let session = Some(Session::bare(SessionId::audit(scene.boot, 469)));
    let of = |unit: &str, slice: &str| Actor {
        unit: Some(unit.to_owned()),
        slice: Some(slice.to_owned()),
        session: session.clone(),
        ..actor(&chain)
    };
    let guess = scene.complete(&of("cron.service", "system.slice")).session.unwrap();
    assert_eq!((guess.kind, guess.certainty), (SessionKind::Cron, Certainty::Correlated), "its login was not looked for");
    let _records = scene.follow_logins();
    scene.completion.known.clear();
    let told = scene.settled(&of("cron.service", "system.slice"), 469);
    assert_eq!((told.kind, told.certainty, told.began_at), (SessionKind::Cron, Certainty::Strong, started_at));
    assert_eq!(told.user.as_deref(), Some("root"));
    let kind = |scene: &mut Scene, unit, slice| scene.settled(&of(unit, slice), 469).kind;
    assert_eq!(kind(&mut scene, "user@1000.service", "user-1000.slice"), SessionKind::Service);
    for (unit, slice) in [("user@x.service", "user-1000.slice"), ("cron.service", "user-1000.slice"), ("user@1000.service", "system.slice")]
    {
        assert_eq!(scene.settled(&of(unit, slice), 469), session.clone().unwrap(), "anybody can name a service of his own: {unit}");
    }
}

#[test]
fn whoever_logged_in_stays_so_in_whatever_unit() {
    let mut scene = Scene::new();
    let records = scene.follow_logins();
    let record = "UID=1000\nUSER=alice\nAUDIT=7\nREALTIME=5000000\nLEADER=9\nSERVICE=login\nTTY=tty1\n";
    std::fs::write(records.path().join("7"), record).unwrap();
    std::fs::set_permissions(records.path().join("7"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let session = Some(Session::bare(SessionId::audit(scene.boot, 7)));
    let of = |login_uid, unit: &str, slice: &str| {
        let user = User { uid: 0, euid: Some(0), login_uid: Some(login_uid), name: Some("root".into()), login_name: None };
        let (unit, slice) = (Some(unit.to_owned()), Some(slice.to_owned()));
        Actor { user: Some(user), session: session.clone(), unit, slice, ..actor(&[process(9, "/bin/sh")]) }
    };
    for (unit, slice) in
        [("cron.service", "system.slice"), ("user@1000.service", "user-1000.slice"), ("session-7.scope", "user-1000.slice")]
    {
        crate::testing::until("the login", || scene.complete(&of(1000, unit, slice)).session.unwrap().kind == SessionKind::Console);
        let others = scene.complete(&of(1001, unit, slice)).session;
        assert_eq!(others, session, "somebody's login is known: {unit}");
    }
}

#[test]
fn a_container_that_a_user_or_a_service_named_is_a_guess() {
    let mut scene = Scene::new();
    let id = "0123456789abcdef".repeat(4);
    let mut told = |unit: Option<&str>, slice: Option<&str>| {
        let container = Some(Container { certainty: Certainty::Strong, id: id.clone(), image: None });
        let (unit, slice) = (unit.map(str::to_owned), slice.map(str::to_owned));
        scene.complete(&Actor { unit, slice, container, ..actor(&[process(9, "/bin/sh")]) }).container.unwrap().certainty
    };
    let docker = format!("docker-{id}.scope");
    assert_eq!(told(Some(&docker), Some("system.slice")), Certainty::Strong);
    assert_eq!(told(None, None), Certainty::Strong);
    assert_eq!(told(Some(&docker), Some("user-1000.slice")), Certainty::Correlated);
    assert_eq!(told(Some("svc.service"), Some("system.slice")), Certainty::Correlated);
}

#[test]
fn a_login_is_added_to_a_session_of_the_same_user_alone() {
    let mut scene = Scene::new();
    let records = tempfile::tempdir().unwrap();
    let record = "UID=1000\nUSER=alice\nAUDIT=7\nREALTIME=5000000\nLEADER=9\nSERVICE=login\nTTY=tty1\n";
    std::fs::write(records.path().join("7"), record).unwrap();
    std::fs::set_permissions(records.path().join("7"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    scene.completion.logins = Some(Logins::of_records(records.path()));
    let of = |login_uid| {
        let user = User { uid: 0, euid: Some(0), login_uid, name: Some("root".into()), login_name: None };
        let session = Some(Session::bare(SessionId::audit(BootId(scene.boot.0), 7)));
        Actor { user: Some(user), session, ..actor(&[process(9, "/bin/sh")]) }
    };
    let (alices, anothers, nobodys) = (of(Some(1000)), of(Some(1001)), of(None));
    crate::testing::until("the login", || scene.complete(&alices).session.unwrap().kind == SessionKind::Console);
    let told = scene.complete(&alices).session.unwrap();
    assert_eq!((told.user.as_deref(), told.terminal.as_deref(), told.certainty), (Some("alice"), Some("tty1"), Certainty::Strong));
    for other in [anothers, nobodys] {
        assert_eq!(scene.complete(&other).session, other.session, "it is not that user's login");
    }
}

#[test]
fn a_session_without_a_record_below_a_users_own_service_manager_is_a_service() {
    let mut scene = Scene::new();
    let records = tempfile::tempdir().unwrap();
    scene.completion.logins = Some(Logins::of_records(records.path()));
    // Any of the host's own programs will do for one that lies at that path on every host.
    let manager = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].into_iter().find(|path| Path::new(path).exists());
    let Some(manager) = manager.and_then(|path| Path::new(path).canonicalize().ok()) else {
        return crate::collect::skipped("a session without a record", "there is no systemd on this machine");
    };
    let manager = manager.to_str().unwrap().to_owned();
    let session = Some(Session::bare(SessionId::audit(scene.boot, 7)));
    let of = |above: u32| Actor {
        session: session.clone(),
        unit: Some("x.service".into()),
        ..actor(&[process(9, "/bin/sh"), process(above, &manager)])
    };
    let kind = |scene: &mut Scene, above| {
        let number = AuditSession(7);
        crate::testing::until("the search for it", || {
            scene.complete(&of(above));
            scene.completion.logins.as_ref().unwrap().is_settled(number)
        });
        scene.complete(&of(above)).session.unwrap().kind
    };
    assert_eq!(kind(&mut scene, 64), SessionKind::Other, "nothing is known of that program but its name");
    scene.note(64, &manager, 1000);
    scene.note(1, &manager, 0);
    // What was settled for the same actor before stays as it was told.
    scene.completion.known.clear();
    assert_eq!(kind(&mut scene, 64), SessionKind::Service);
    assert_eq!(kind(&mut scene, 1), SessionKind::Other, "the host's own manager");
}

#[test]
fn a_session_of_another_boot_is_not_this_ones() {
    let scene = Scene::new();
    assert_eq!(audit_session(&SessionId::audit(scene.boot, 42), scene.boot), Some(AuditSession(42)));
    for other in ["3f2a9c01d4e7-42", "42", "c2", &format!("{}-x", scene.boot.short()), &format!("{}-042", scene.boot.short())] {
        assert_eq!(audit_session(&other.parse().unwrap(), scene.boot), None, "{other}");
    }
}

#[test]
fn a_program_that_calls_itself_sudo_is_a_guess_at_best() {
    let mut scene = Scene::new();
    let sudo = Sudo { certainty: Certainty::Strong, by: Some("alice".into()), as_user: None, command: None, terminal: None };
    let under = |exe: &str| Actor { sudo: Some(sudo.clone()), ..actor(&[process(9, "/bin/sh"), process(8, exe), process(7, "/bin/sh")]) };
    // Nothing is known of it but its name.
    assert_eq!(scene.complete(&under("/usr/bin/sudo")).sudo.unwrap().certainty, Certainty::Correlated);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().canonicalize().unwrap().join("sudo").to_str().unwrap().to_owned();
    std::fs::copy("/bin/true", &copy).unwrap();
    scene.note(8, &copy, 0);
    let forged = scene.complete(&under(&copy)).sudo.unwrap();
    assert_eq!((forged.certainty, forged.by.as_deref()), (Certainty::Correlated, Some("alice")));
}

#[test]
fn what_completes_an_actor_is_asked_once_where_it_cannot_change() {
    let mut scene = Scene::new();
    let session = Some(Session::bare(SessionId::audit(scene.boot, 4)));
    let of = |pid| Actor { unit: Some("x.service".into()), session: session.clone(), ..actor(&[process(pid, "/bin/sh")]) };
    for pid in 0..REMEMBERED as u32 * 2 {
        scene.complete(&of(pid));
        scene.complete(&of(pid));
    }
    assert_eq!(scene.completion.known.len(), REMEMBERED);
}

#[test]
fn an_executable_has_the_digest_that_the_state_has_or_is_read() {
    let mut scene = Scene::new();
    scene.completion.digests = Some(Digests::start(&Confinement::default()).unwrap());
    let shell = Path::new("/bin/sh").canonicalize().unwrap().to_str().unwrap().to_owned();
    scene.note(9, &shell, 0);
    let of_shell = actor(&[process(9, &shell)]);
    let expected = trueline_drift::actor::Sha256Digest(
        sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), std::fs::read(&shell).unwrap())).into(),
    );
    crate::testing::until("the digest", || scene.complete(&of_shell).process.unwrap().sha256 == Some(expected));
    assert_eq!(scene.complete(&actor(&[process(10, &shell)])).process.unwrap().sha256, None, "which file that one runs is not known");
}

#[test]
fn waiting_is_a_small_share_of_the_time() {
    let start = Instant::now();
    let mut patience = Patience::new(start);
    let wish = Duration::from_millis(150);
    for _ in 0..2 {
        assert_eq!(patience.at_most(wish, start), wish);
        patience.spend(wish);
    }
    assert_eq!(patience.at_most(wish, start), Duration::ZERO);
    assert_eq!(patience.at_most(wish, start + Duration::from_secs(1)), Duration::from_millis(100));
    assert_eq!(patience.at_most(Duration::MAX, start + Duration::from_secs(3600)), Patience::MOST);
}
