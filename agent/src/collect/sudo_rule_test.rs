use proptest::prelude::*;

use super::*;

fn key() -> RedactionKey {
    RedactionKey::new([7; 32])
}

fn shown(listing: &Listing) -> String {
    listing.items.iter().map(|(item, reading)| format!("{item} {}\n", serde_json::to_string(&reading.fields).unwrap())).collect()
}

fn of(text: &str) -> Listing {
    let key = key();
    let mut found = Found::new(&key);
    found.take(&Root::at("/nonexistent"), "/etc/sudoers", text.as_bytes(), 0);
    found.listing()
}

#[test]
fn a_comment_that_ends_in_a_backslash_hides_no_rule() {
    let listing =
        of("# a comment \\\nmallory ALL=(ALL) ALL\nalice ALL = /bin/ls # one \\\nbob ALL = /bin/id, \\\n  /bin/ps\neve ALL = ALL\\");
    let keys: Vec<_> = listing.items.iter().map(|(item, _)| item.key.as_str()).collect();
    let expected =
        ["alice ALL=(root) /bin/ls", "bob ALL=(root) /bin/id", "bob ALL=(root) /bin/ps", "eve ALL=(root) ALL", "mallory ALL=(ALL) ALL"];
    assert_eq!((keys.as_slice(), listing.skipped), (expected.as_slice(), 0));
}

#[test]
fn what_is_told_of_a_rule_does_not_multiply_with_its_commands() {
    let many = |letter: char, count: usize| (0..count).map(|number| format!("{letter}{number}")).collect::<Vec<_>>().join(",");
    let listing = of(&format!("{} ALL = {}\nbob ALL = /bin/id\n", many('u', 20_000), many('/', 20_000)));
    assert!(listing.items.len() < 1000, "{}", listing.items.len());
    let told = shown(&listing);
    assert!(told.contains("sudo_rule:file /etc/sudoers ") && told.contains("more users and commands than are told"));
}

#[test]
fn rules_defaults_and_aliases_are_told_with_what_is_included() {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [
        (
            "etc/sudoers",
            "# sudo\nDefaults\tenv_reset, !lecture\nDefaults:alice secure_path=\"/usr/sbin:/usr/bin\"\nUser_Alias ADMINS = alice, \\\n  bob\n\
             root ALL=(ALL:ALL) ALL\nADMINS, #1007 ALL, web = (root) NOPASSWD: /usr/bin/apt update, PASSWD: /usr/bin/dpkg # both\nnonsense\n@includedir /etc/sudoers.d\n",
        ),
        ("etc/sudoers.d/deploy", "deploy ALL=NOPASSWD: /usr/bin/systemctl restart app\n"),
        ("etc/sudoers.d/deploy.dpkg-old", "mallory ALL=(ALL) ALL\n"),
        ("etc/sudoers.d/looped", "@include looped\n"),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let policy = trueline_drift::watch::WatchPolicy::default();
    let root = Root::at(folder.path());
    let listing = read_all(&Place {
        root: &root,
        policy: &policy,
        key: &key(),
        holders: &crate::collect::Holders::here(root.clone()),
        kept: &crate::collect::Kept::default(),
    });
    assert_eq!(listing.skipped, 1);
    let told = shown(&listing);
    let expected = [
        r##"sudo_rule:ADMINS,#1007 ALL,web=(root) /usr/bin/apt update {"command":"/usr/bin/apt update","hosts":["ALL","web"],"run_as":"root","source":"/etc/sudoers","tags":["NOPASSWD"],"type":"rule","users":["#1007","alice","bob"]}"##,
        r##"sudo_rule:ADMINS,#1007 ALL,web=(root) /usr/bin/dpkg {"command":"/usr/bin/dpkg","hosts":["ALL","web"],"run_as":"root","source":"/etc/sudoers","tags":["PASSWD"],"type":"rule","users":["#1007","alice","bob"]}"##,
        r##"sudo_rule:Defaults env_reset {"source":"/etc/sudoers","type":"defaults","value":["true"]}"##,
        r##"sudo_rule:Defaults lecture {"source":"/etc/sudoers","type":"defaults","value":["false"]}"##,
        r##"sudo_rule:Defaults:alice secure_path {"source":"/etc/sudoers","type":"defaults","value":["/usr/sbin:/usr/bin"]}"##,
        r##"sudo_rule:User_Alias ADMINS {"members":["alice","bob"],"source":"/etc/sudoers","type":"alias"}"##,
        r##"sudo_rule:deploy ALL=(root) /usr/bin/systemctl restart app {"command":"/usr/bin/systemctl restart app","hosts":["ALL"],"run_as":"root","source":"/etc/sudoers.d/deploy","tags":["NOPASSWD"],"type":"rule","users":["deploy"]}"##,
        r##"sudo_rule:file /etc/sudoers.d/looped {"source":"/etc/sudoers.d/looped","type":"file","users":{"unreadable":"files are included in each other too deeply"}}"##,
        r##"sudo_rule:root ALL=(ALL:ALL) ALL {"command":"ALL","hosts":["ALL"],"run_as":"ALL:ALL","source":"/etc/sudoers","type":"rule","users":["root"]}"##,
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_tag_is_a_field_and_the_later_line_counts() {
    let listing = of("alice ALL=(root) /usr/bin/apt\nalice ALL=(root) NOPASSWD: /usr/bin/apt\n");
    assert_eq!(listing.items.len(), 1);
    assert_eq!(listing.items[0].1.fields.value("tags"), Some(&Value::list(vec!["NOPASSWD".into()])));
    let listing = of("alice ALL=(root) NOPASSWD: /usr/bin/apt\nalice ALL=(root) /usr/bin/apt\n");
    assert_eq!(listing.items[0].1.fields.value("tags"), None);
}

#[test]
fn aliases_that_name_each_other_come_to_an_end_and_secrets_are_masked() {
    let listing = of("User_Alias A = B\nUser_Alias B = A, carol\nA ALL = /usr/bin/backup --password hunter2secret\n");
    let shown = shown(&listing);
    assert!(shown.contains(r#""users":["carol"]"#) && !shown.contains("hunter2secret"), "{shown}");
}

proptest! {
    #[test]
    fn hostile_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in "(alice|ALL|=|\\(|\\)|,|:|NOPASSWD:|Defaults|User_Alias|!|\"|\\\\|#| |\n|é|\\+){0,60}") {
        let key = key();
        let mut found = Found::new(&key);
        found.take(&Root::at("/nonexistent"), "/f", &bytes, 1);
        found.take(&Root::at("/nonexistent"), "/f", text.as_bytes(), 1);
        found.listing();
    }
}
