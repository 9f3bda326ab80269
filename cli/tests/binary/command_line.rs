//! What holds without any collector: usage, contexts, exit codes.

use std::net::TcpListener;
use std::path::Path;

use crate::running::{errors, text, trueline};

/// A port on which nobody listens: bound once, then let go.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn context(path: &Path, port: u16) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("url = 'http://127.0.0.1:{port}'\ntoken = 'tl_api_0'\n")).unwrap();
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_would_be_right() {
    let home = tempfile::tempdir().unwrap();
    for (words, hint) in [
        (&["hosts", "lst"][..], "list"),
        (&["drift", "list", "--item", "/etc/hosts"], "kind:key"),
        (&["changes", "list", "--since", "yesterday"], "15m"),
        (&["changes", "list", "--session", "a b"], "3f2a9c01d4e7-42"),
        (&["changes", "list", "--transaction", "<b>"], "apt-9c41d0e2a7f35b18"),
        (&["tokens", "create", "--kind", "api", "--expires", "24"], "24h"),
        (&["drift", "list", "--limit", "0"], "1..=500"),
        (&["drift", "list"], "trueline quickstart"),
        (&["drift", "list", "--context", "missing.toml"], "there is no context file missing.toml"),
        (&["drift", "show", "abc"], "trueline drift list"),
        (&["changes", "show", "abc"], "trueline changes list"),
        (&["tokens", "revoke", "abc"], "trueline tokens list"),
    ] {
        let output =
            trueline().current_dir(home.path()).env("HOME", home.path()).env_remove("XDG_CONFIG_HOME").args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", errors(&output));
        assert!(errors(&output).contains(hint), "{words:?}: {}", errors(&output));
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn a_collector_that_does_not_answer_is_exit_code_3() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("context.toml");
    context(&path, closed_port());
    for words in [&["hosts", "list"][..], &["check", "web1"], &["events"], &["tokens", "list", "--output", "json"]] {
        let output = trueline().arg("--context").arg(&path).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{words:?}: {}", errors(&output));
        assert!(errors(&output).contains("is the collector running?"), "{words:?}: {}", errors(&output));
    }
}

#[test]
fn the_context_is_found_from_the_nearest_place_outwards() {
    let home = tempfile::tempdir().unwrap();
    let (option, variable) = (home.path().join("o.toml"), home.path().join("v.toml"));
    let (here, user) = (home.path().join("here/.trueline/context.toml"), home.path().join(".config/trueline/context.toml"));
    let ports: Vec<u16> = [&option, &variable, &here, &user]
        .map(|path| (path, closed_port()))
        .map(|(path, port)| {
            context(path, port);
            port
        })
        .to_vec();
    let ask = |option: Option<&Path>, variable: Option<&Path>, folder: &str| {
        let mut command = trueline();
        command.env("HOME", home.path()).env_remove("XDG_CONFIG_HOME").current_dir(home.path().join(folder)).args(["hosts", "list"]);
        option.map(|path| command.arg("--context").arg(path));
        variable.map(|path| command.env("TRUELINE_CONTEXT", path));
        errors(&command.output().unwrap())
    };
    for (said, port) in [
        (ask(Some(&option), Some(&variable), "here"), ports[0]),
        (ask(None, Some(&variable), "here"), ports[1]),
        (ask(None, None, "here"), ports[2]),
        (ask(None, None, ""), ports[3]),
    ] {
        assert!(said.contains(&format!("127.0.0.1:{port}")), "{port}: {said}");
    }
}

#[test]
fn a_context_that_others_can_read_is_used_with_a_warning() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("context.toml");
    context(&path, closed_port());
    let said = errors(&trueline().arg("--context").arg(&path).args(["hosts", "list"]).output().unwrap());
    assert!(said.contains("chmod 600"), "{said}");
}

#[test]
fn a_baseline_is_checked_without_a_collector() {
    let home = tempfile::tempdir().unwrap();
    let (good, bad) = (home.path().join("good.yaml"), home.path().join("bad.yaml"));
    std::fs::write(&good, "name: web\nitems:\n  \"sysctl:net.ipv4.ip_forward\": { value: \"0\" }\n").unwrap();
    std::fs::write(&bad, "name: web\nitms: {}\n").unwrap();
    let fine = trueline().args(["baseline", "lint"]).arg(&good).output().unwrap();
    assert!(fine.status.success() && text(&fine).contains("baseline web, 1 item, 0 closed scopes: fine"), "{}", errors(&fine));
    let faulty = trueline().args(["baseline", "lint"]).arg(&bad).output().unwrap();
    assert_eq!(faulty.status.code(), Some(1));
    let nonsense = home.path().join("nonsense.yaml");
    std::fs::write(&nonsense, "name: web\nitems:\n  \"file:/a\": { mode: 644 }\n  \"file:b\": absnt\n").unwrap();
    let told = trueline().args(["baseline", "lint"]).arg(&nonsense).output().unwrap();
    assert_eq!((told.status.code(), errors(&told).matches("nonsense.yaml:").count()), (Some(1), 3), "{}", errors(&told));
    assert!(errors(&faulty).contains("bad.yaml:2:1: unknown key `itms`: did you mean `items`?"), "{}", errors(&faulty));
}

#[test]
fn something_else_behind_the_address_is_named_as_such() {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("context.toml");
    context(&path, listener.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\n<html></html").unwrap();
    });
    let output = trueline().arg("--context").arg(&path).args(["hosts", "list"]).output().unwrap();
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("is it a Trueline collector?"), "{}", errors(&output));
}
