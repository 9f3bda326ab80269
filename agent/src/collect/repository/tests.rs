use trueline_drift::watch::WatchPolicy;

use super::*;

fn read_beneath(root: &Root) -> Listing {
    read_all(&Place {
        root,
        policy: &WatchPolicy::default(),
        key: &RedactionKey::new([1; 32]),
        holders: &crate::collect::Holders::here(root.clone()),
        kept: &crate::collect::Kept::default(),
    })
    .unwrap()
}

fn shown(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::at(folder.path());
    for (path, text) in files {
        std::fs::create_dir_all(root.path(path).parent().unwrap()).unwrap();
        std::fs::write(root.path(path), text).unwrap();
    }
    let listing = read_beneath(&root);
    listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
}

#[test]
fn an_address_with_a_suite_is_one_item_whichever_files_name_it() {
    let shown = shown(&[
        (APT_LIST, "deb http://deb.debian.org/debian bookworm main\n# deb http://old.example/ x main\n"),
        ("/etc/apt/sources.list.d/more.list", "deb-src http://deb.debian.org/debian/ bookworm main contrib\n"),
        (
            "/etc/apt/sources.list.d/off.sources",
            "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: non-free\nEnabled: no\n",
        ),
        ("/etc/apt/sources.list.d/off.list.save", "deb http://saved.example/ x main\n"),
        ("/etc/apt/sources.list.d/odd.sources", "Types: deb\nURIs: http://x\x1b[2J.example\nSuites: sid\nTrusted: yes\nEnabled: false\n"),
    ]);
    assert_eq!(
        shown,
        [
            r#"repository:http://deb.debian.org/debian bookworm {"components":["contrib","main"],"enabled":true,"files":["/etc/apt/sources.list","/etc/apt/sources.list.d/more.list"],"type":"apt","types":["deb","deb-src"]}"#,
            r#"repository:http://x\x1b[2J.example sid {"enabled":false,"files":["/etc/apt/sources.list.d/odd.sources"],"options":["trusted=yes"],"type":"apt","types":["deb"]}"#,
        ]
    );
}

#[test]
fn a_key_ring_that_a_source_names_is_an_item_with_its_keys() {
    let ring = "/opt/example/stable.asc";
    let shown = shown(&[
        (APT_LIST, "deb [signed-by=/opt/example/stable.asc,/opt/example/absent.gpg] https://repo.example/apt stable main\n"),
        (ring, openpgp::tests::STABLE),
        ("/etc/apt/trusted.gpg.d/broken.gpg", "no key"),
        ("/etc/apt/trusted.gpg.d/broken.gpg~", "no key"),
    ]);
    let fingerprint = "4D64FEC119C2029067D6E791F8D2585B8783D481";
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown[0].starts_with("repository:/etc/apt/trusted.gpg.d/broken.gpg {\"fingerprints\":{\"unreadable\""), "{shown:?}");
    let expires = format!(r#""expires":["{fingerprint} 2031-01-21T16:44:03.000000Z"]"#);
    assert!(shown[1].starts_with("repository:/opt/example/stable.asc ") && shown[1].contains(&expires), "{shown:?}");
    assert!(shown[2].contains(r#""signed_by":["/opt/example/absent.gpg","/opt/example/stable.asc"]"#), "{shown:?}");
    let stanza = openpgp::tests::STABLE.lines().map(|line| format!(" {}\n", if line.is_empty() { "." } else { line })).collect::<String>();
    let inline =
        self::shown(&[("/etc/apt/sources.list.d/a.sources", &format!("Types: deb\nURIs: http://a\nSuites: b\nSigned-By:\n{stanza}"))]);
    assert!(inline[0].contains(&format!(r#""signed_by":["{fingerprint}"]"#)), "{inline:?}");
}

#[test]
fn what_lets_somebody_in_is_not_told_and_its_change_shows() {
    let of = |secret: &str| {
        shown(&[
            (
                APT_LIST,
                &format!("deb https://bob:{secret}@repo.example/apt stable main\ndeb https://{secret}@other.example/ stable main\n"),
            ),
            ("/etc/yum.repos.d/a.repo", &format!("[a]\nbaseurl=https://u:{secret}@rpm.example/\npassword={secret}\n")),
            (APK_LIST, &format!("https://u:{secret}@apk.example/main\n")),
        ])
    };
    let (before, after) = (of("hunter2secret"), of("hunter3secret"));
    assert_eq!(before.len(), 4);
    for (before, after) in before.iter().zip(&after) {
        assert!(!before.contains("hunter") && before != after, "{before}");
        assert_eq!(before.split(" {").next(), after.split(" {").next(), "the key stays");
    }
}

#[test]
fn repositories_of_dnf_are_told_by_their_id() {
    let text = "[fedora]\nname=Fedora\nmetalink=https://mirrors.example/metalink?repo=fedora-$releasever&arch=$basearch\nenabled=0\n\
        gpgcheck=1\nrepo_gpgcheck=0\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-$releasever\nskip_if_unavailable=False\n[main]\nx=1\n";
    assert_eq!(
        shown(&[("/etc/yum.repos.d/fedora.repo", text), (APK_LIST, "# x\n@edge https://apk.example/edge/main\n")]),
        [
            r#"repository:fedora {"addresses":["https://mirrors.example/metalink?repo=fedora-$releasever&arch=$basearch"],"enabled":false,"files":["/etc/yum.repos.d/fedora.repo"],"gpgcheck":true,"options":["skip_if_unavailable=False"],"repo_gpgcheck":false,"signed_by":["file:///etc/pki/rpm-gpg/RPM-GPG-KEY-$releasever"],"type":"dnf"}"#,
            r#"repository:https://apk.example/edge/main {"enabled":true,"files":["/etc/apk/repositories"],"options":["tag=edge"],"type":"apk"}"#,
        ]
    );
}

#[test]
fn this_machines_sources_can_be_read() {
    let listing = read_beneath(&Root::host());
    let is_ring = |item: &trueline_drift::ItemId| item.key.as_str().starts_with("/etc/apt/trusted.gpg.d/debian-archive-");
    for (item, reading) in listing.items.iter().filter(|(item, _)| is_ring(item)) {
        assert!(matches!(reading.fields.value("fingerprints"), Some(Value::List(_))), "{item} {:?}", reading.fields);
    }
    if listing.items.is_empty() {
        super::super::skipped("this_machines_sources_can_be_read", "there is no source of packages");
    }
}
