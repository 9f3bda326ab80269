use super::*;

/// Every setting as the fields that it becomes.
fn told(format: Format, text: &str) -> String {
    match format.read(text.as_bytes()) {
        Ok(settings) => {
            let fields = settings.fields(|_, value| value.to_owned());
            fields.iter().map(|(name, value)| format!("{name}: {}\n", serde_json::to_string(value).expect("values are JSON"))).collect()
        }
        Err(error) => format!("refused: {error}\n"),
    }
}

#[test]
fn the_last_assignment_counts_and_a_conflict_is_shown() {
    insta::assert_snapshot!(told(Format::KeyValue, "# comment\nexport A=\"1\"\nB=2\nA=3\nB=2\n"), @r#"
    config.A: "3"
    config.B: "2"
    conflict.A: ["1","3"]
    "#);
}

#[test]
fn sshd_keywords_match_blocks_and_repeats_are_told_as_sshd_takes_them() {
    let text = "PERMITROOTLOGIN no # why\nPermitRootLogin yes\nport=22\nAcceptEnv LC_* LANG\nSubsystem sftp \"/usr/lib/sftp server\"\nMatch User bob\n  X11Forwarding yes\n  Odd 1\n";
    insta::assert_snapshot!(told(Format::SshdConfig, text), @r#"
    config.AcceptEnv: ["LANG","LC_*"]
    config.Match User bob.X11Forwarding: "yes"
    config.Match User bob.odd: "1"
    config.PermitRootLogin: "no"
    config.Port: ["22"]
    config.Subsystem.sftp: "/usr/lib/sftp server"
    conflict.PermitRootLogin: ["no","yes"]
    "#);
    insta::assert_snapshot!(told(Format::SshdConfig, "Port 22\nBanner \"x\n"), @"refused: line 2: a quote is not closed");
}

#[test]
fn a_sysctl_has_one_name_in_both_spellings() {
    let text = "net/ipv4/conf/eth0.1/rp_filter = 1\nnet.ipv4.ip_forward=0\n-net/ipv4/ip_forward = 1\nnet.ipv4.tcp_rmem = 1\t2  3\n-net.ipv4.conf.all.rp_filter\n";
    insta::assert_snapshot!(told(Format::Sysctl, text), @r#"
    config.-net.ipv4.conf.all.rp_filter: ""
    config.net.ipv4.conf.eth0/1.rp_filter: "1"
    config.net.ipv4.ip_forward: "1"
    config.net.ipv4.tcp_rmem: "1 2 3"
    conflict.net.ipv4.ip_forward: ["0","1"]
    "#);
}

#[test]
fn a_password_is_told_by_its_state_alone() {
    let text = "a:$6$salt$hash:19000:0:99999:7:::\nb:!$y$salt$hash:1\nc:*:\nd::\ne:$hunter2$x:\n";
    let told = told(Format::Shadow, text);
    for secret in ["salt", "hash", "hunter2"] {
        assert!(!told.contains(secret), "{told}");
    }
    for line in [
        "a.password: \"set ($6$)\"",
        "a.maximum_age: \"99999\"",
        "b.password: \"locked ($y$)\"",
        "c.password: \"locked\"",
        "d.password: \"empty\"",
        "e.password: \"set\"",
    ] {
        assert!(told.contains(line), "{line} is not in\n{told}");
    }
}

#[test]
fn order_that_means_nothing_does_not_show() {
    for (format, one, other) in [
        (Format::Group, "sudo:x:27:bob,al\nadm:x:4:", "# who\nadm:x:4:\n\nsudo:x:27:al,bob\n"),
        (Format::Fstab, "/dev/a / ext4 noatime,ro 0 1\n", "# root\n/dev/a\t/ ext4 ro,noatime 0 1"),
        (Format::Limits, "* hard core 0\n@a - nofile 1", "@a - nofile 1 # more\n*  hard  core  0"),
        (Format::ResolvConf, "options a b\nnameserver 1.1.1.1", "nameserver 1.1.1.1\noptions b\noptions a"),
        (Format::LoginDefs, "UMASK 022\nPASS_MAX_DAYS 9", "# c\nPASS_MAX_DAYS\t9\nUMASK 022"),
    ] {
        assert_eq!(told(format, one), told(format, other), "{}", format.name());
        assert!(told(format, one).contains("config."), "{}", format.name());
    }
}

#[test]
fn order_that_means_something_shows() {
    for (format, one, other) in [
        (Format::Fstab, "/dev/a / ext4 exec,user", "/dev/a / ext4 user,exec"),
        (Format::Hosts, "127.0.0.1 a b", "127.0.0.1 b a"),
        (Format::Nsswitch, "passwd: files sss", "passwd: sss files"),
        (Format::ResolvConf, "nameserver 1.1.1.1\nnameserver 8.8.8.8", "nameserver 8.8.8.8\nnameserver 1.1.1.1"),
        (Format::Passwd, "a:x:1:1::/:/bin/sh\na:x:0:0::/:/bin/sh", "a:x:0:0::/:/bin/sh\na:x:1:1::/:/bin/sh"),
    ] {
        assert_ne!(told(format, one), told(format, other), "{}", format.name());
    }
}

#[test]
fn only_files_that_are_read_are_covered() {
    assert_eq!(Format::of("/etc/ssh/sshd_config.d/50-cloud.conf"), Some(Format::SshdConfig));
    assert_eq!(Format::of("/usr/lib/sysctl.d/50-default.conf"), Some(Format::Sysctl));
    assert_eq!(Format::of("/etc/security/limits.d/a.conf"), Some(Format::Limits));
    for path in [
        "/etc/ssh/sshd_config.dpkg-old",
        "/etc/sysctl.d/a.conf~",
        "/etc/shadow-",
        "/etc/pam.d/sshd.dpkg-old",
        "/etc/pam.d/sshd~",
        "/etc/default/grub.ucf-dist",
        "/etc/passwd~",
        "/srv/etc/fstab",
    ] {
        assert_eq!(Format::of(path), None, "{path}");
    }
    for path in ["/etc/ssh/sshd_config.d/.a.conf", "/etc/sysctl.d/b/a.conf", "/etc/motd"] {
        assert_eq!(Format::of(path), Some(Format::Text), "{path}");
    }
}

/// A long block's name must not lead 512 names at its full length, nor many lines cost more than their bytes.
#[test]
fn hostile_texts_of_full_length_end_within_bounds() {
    for format in Format::ALL {
        for unit in ["a", "a:", "a=b\n", "\"", "/.", "a b c d\n", "Match a\na b\n", ",", "\n", "\\"] {
            let text = unit.repeat(TEXT_LIMIT / unit.len());
            let Ok(settings) = format.read(text.as_bytes()) else { continue };
            assert!(settings.fields(|_, value| value.to_owned()).len() <= 2 * SETTINGS_LIMIT + 1);
        }
        let long = format!("Match {}\n{}", "m".repeat(TEXT_LIMIT / 2), "a b\n".repeat(TEXT_LIMIT / 8 - 8));
        if let Ok(settings) = format.read(long.as_bytes()) {
            assert!(settings.settings.keys().map(String::len).sum::<usize>() <= TEXT_LIMIT, "{}", format.name());
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_alike_each_time_and_printably(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        for format in Format::ALL {
            let (one, other) = (format.read(&bytes), format.read(&bytes));
            proptest::prop_assert_eq!(&one, &other);
            if let Ok(settings) = one {
                for (name, _) in settings.fields(|_, value| value.to_owned()) {
                    proptest::prop_assert!(!name.to_string().contains(char::is_control));
                }
            }
        }
    }
}

#[test]
fn a_unit_accumulates_continues_and_resets() {
    let text = "[Unit]\nAfter=a.target\nAfter=b.target\n[Service]\nExecStart=/bin/a\nExecStart=\nExecStart=/bin/b \\\n# comment\n  --c\nRestart=no\nRestart=always\n";
    insta::assert_snapshot!(told(Format::Unit, text), @r#"
    config.Service.ExecStart: ["","/bin/b --c"]
    config.Service.Restart: "always"
    config.Unit.After: ["a.target","b.target"]
    conflict.Service.Restart: ["no","always"]
    "#);
    for path in [
        "/etc/systemd/journald.conf",
        "/usr/lib/systemd/system/ssh.service",
        "/etc/systemd/system/ssh.service.d/a.conf",
        "/etc/systemd/system.conf.d/a.conf",
    ] {
        assert_eq!(Format::of(path), Some(Format::Unit), "{path}");
    }
    for path in ["/etc/systemd/system/ssh.service~", "/etc/systemd/system/a.wants/ssh.service", "/etc/systemd/system/ssh.service.dpkg-old"]
    {
        assert_ne!(Format::of(path), Some(Format::Unit), "{path}");
    }
}

#[test]
fn a_unit_and_its_drop_ins_come_to_one() {
    let files = [
        "[Service]\nExecStart=/bin/a\nRestart=no\nUser=web\nEnvironment=A=1\n[Unit]\nAfter=a.target\n",
        "[Service]\nExecStart=\nExecStart=/bin/b\nRestart=always\nUser=\n",
        "[Service]\nEnvironment=B=2\n[Unit]\nAfter=\n",
    ];
    let settings = unit::effective(files.map(str::as_bytes)).unwrap();
    let told: Vec<String> = settings.fields(|_, value| value.to_owned()).iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(told, ["config.Service.Environment: [A=1, B=2]", "config.Service.ExecStart: [/bin/b]", "config.Service.Restart: always"]);
    assert_eq!(unit::effective([b"[Service]\0".as_slice()]).unwrap_err().to_string(), "line 0: it holds a NUL byte");
}

#[test]
fn a_pam_stack_keeps_its_order_and_its_includes() {
    insta::assert_snapshot!(told(Format::Pam, "auth [success=1 default=ignore] \\\n pam_unix.so nullok # c\n@include x\n-auth optional pam_y.so\n"), @r#"
    config.account: ["@include x"]
    config.auth: ["[success=1 default=ignore] pam_unix.so nullok","@include x","-optional pam_y.so"]
    config.password: ["@include x"]
    config.session: ["@include x"]
    "#);
}

#[test]
fn modules_options_add_up_and_the_first_install_counts() {
    insta::assert_snapshot!(told(Format::Modprobe, "# c\nblacklist b\nblacklist a-c\noptions m x=1\noptions m y=2\ninstall u /bin/false\ninstall u /bin/true\n"), @r#"
    config.blacklist: ["a_c","b"]
    config.install.u: "/bin/false"
    config.options.m: ["x=1","y=2"]
    conflict.install.u: ["/bin/false","/bin/true"]
    "#);
}

#[test]
fn a_change_of_a_byte_that_is_no_utf8_shows() {
    let read = |bytes: &[u8]| Format::KeyValue.read(bytes).unwrap();
    assert_ne!(read(b"A=\xff\n"), read(b"A=\xfe\n"));
}

#[test]
fn jobs_of_cron_have_no_order_and_their_environment_is_told() {
    let text = "# m h dom mon dow\nSHELL=/bin/sh\nMAILTO = \"root\"\n17 *\t* * *\troot  cd / && run-parts /etc/cron.hourly\n@daily root A=1 /bin/x\nSHELL=/bin/bash\n";
    insta::assert_snapshot!(told(Format::Crontab, text), @r#"
    config.MAILTO: "root"
    config.SHELL: "/bin/bash"
    config.jobs: ["17 * * * * root cd / && run-parts /etc/cron.hourly","@daily root A=1 /bin/x"]
    conflict.SHELL: ["/bin/sh","/bin/bash"]
    "#);
}

#[test]
fn rules_of_sudo_keep_their_order_and_a_users_number_is_no_comment() {
    let text = "Defaults env_reset # as ever\nDefaults:bob !requiretty\nUser_Alias OPS = alice, \\\n  bob : WEB = carol\nCmnd_Alias LS = /bin/ls \\:x\nHost_Alias NET = 2001:db8::1, 10.0.0.1\n\
                root ALL=(ALL:ALL) ALL\nOPS ALL=(ALL) NOPASSWD: LS\nOPS  ALL=(ALL) /bin/id\n#1000 ALL=ALL\n# a comment\n#includedir /etc/sudoers.d\n@include /etc/more\n";
    insta::assert_snapshot!(told(Format::Sudoers, text), @r##"
    config.@include: ["/etc/more"]
    config.@includedir: ["/etc/sudoers.d"]
    config.Cmnd_Alias.LS: "/bin/ls \\\\:x"
    config.Defaults: ["env_reset"]
    config.Defaults:bob: ["!requiretty"]
    config.Host_Alias.NET: "2001:db8::1, 10.0.0.1"
    config.User_Alias.OPS: "alice, bob"
    config.User_Alias.WEB: "carol"
    config.rules.#1000: ["ALL=ALL"]
    config.rules.OPS: ["ALL=(ALL) NOPASSWD: LS","ALL=(ALL) /bin/id"]
    config.rules.root: ["ALL=(ALL:ALL) ALL"]
    "##);
}

#[test]
fn a_comment_that_ends_in_a_backslash_hides_nothing() {
    let text = "# a comment \\\nmallory ALL=(ALL) ALL\nalice ALL = /bin/ls # one \\\nbob ALL = /bin/id, \\\n  /bin/ps\n";
    insta::assert_snapshot!(told(Format::Sudoers, text), @r#"
    config.rules.alice: ["ALL = /bin/ls"]
    config.rules.bob: ["ALL = /bin/id, /bin/ps"]
    config.rules.mallory: ["ALL=(ALL) ALL"]
    "#);
    let text = "# a comment \\\nauth sufficient pam_permit.so # one \\\nauth required \\\n  pam_unix.so\n";
    insta::assert_snapshot!(told(Format::Pam, text), @r#"config.auth: ["sufficient pam_permit.so","required pam_unix.so"]"#);
}

#[test]
fn sources_of_apt_are_told_in_both_spellings() {
    let text = "deb [signed-by=/k.gpg]  http://deb.debian.org/debian bookworm main # why\n# deb http://old x y\ndeb-src http://deb.debian.org/debian bookworm main\n";
    insta::assert_snapshot!(told(Format::AptSources, text), @r#"
    config.deb: ["[signed-by=/k.gpg] http://deb.debian.org/debian bookworm main"]
    config.deb-src: ["http://deb.debian.org/debian bookworm main"]
    "#);
    let text = "# comment\ntypes: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n\nTypes: deb\nURIs: http://x\nSuites: y\nEnabled: no\n";
    insta::assert_snapshot!(told(Format::AptStanzas, text), @r#"
    config.http://deb.debian.org/debian bookworm bookworm-updates.Components: "main"
    config.http://deb.debian.org/debian bookworm bookworm-updates.Signed-By: "-----BEGIN . abc"
    config.http://deb.debian.org/debian bookworm bookworm-updates.Suites: "bookworm bookworm-updates"
    config.http://deb.debian.org/debian bookworm bookworm-updates.Types: "deb"
    config.http://deb.debian.org/debian bookworm bookworm-updates.URIs: "http://deb.debian.org/debian"
    config.http://x y.Enabled: "no"
    config.http://x y.Suites: "y"
    config.http://x y.Types: "deb"
    config.http://x y.URIs: "http://x"
    "#);
}
