use proptest::prelude::*;

use super::*;
use crate::redact::line;

const SECRET: &str = "Zq9hunter2";

fn key() -> RedactionKey {
    RedactionKey::new([7; 32])
}

fn masked(name: &str, value: &str) -> String {
    setting(name, value, &key()).into_owned()
}

/// Settings whose whole value is a secret because of their name.
#[test]
fn a_secret_is_known_by_the_last_part_of_its_name() {
    for name in [
        "password",
        "client.password",
        "DB_PASSWORD",
        "mysqld.secret-key",
        "wifi-security.psk",
        "rocommunity",
        "snmp.community",
        "Interface.PrivateKey",
        "Peer.PresharedKey",
        "passwords",
        "users[name=bob].passwd",
        "env[name=DB_PASSWORD].value",
        "env[3].api_token",
        "auths.\"registry.example.org\".identitytoken",
        "secrets[0]",
        "user@password",
        "http.server example.org.proxy_set_header Authorization",
        "SetEnv AWS_SECRET_ACCESS_KEY",
        "requirepass",
        "secrets.db",
        "app.credentials[0].db_main",
        "bindpw",
        "credential",
        "wpa_passphrase",
    ] {
        assert_eq!(masked(name, SECRET), key().digest(SECRET.as_bytes()), "{name}");
    }
}

#[test]
fn what_only_tells_of_a_secret_stays_readable() {
    for (name, value) in [
        ("PasswordAuthentication", "yes"),
        ("PermitEmptyPasswords", "no"),
        ("KbdInteractiveAuthentication", "no"),
        ("password_file", "/etc/x/password"),
        ("PASS_MAX_DAYS", "99999"),
        ("PASS_MIN_LEN", "5"),
        ("passwd", "files systemd sss"),
        ("passwd", "files [NOTFOUND=return] ldap"),
        ("password", "[success=1 default=ignore] pam_unix.so obscure use_authtok try_first_pass yescrypt"),
        ("password", "required pam_deny.so"),
        ("passwd_tries", "3"),
        ("smtp_sasl_password_maps", "hash:/etc/postfix/sasl_passwd"),
        ("ssl_certificate_key", "/etc/ssl/private/site.pem"),
        ("private_key", "/etc/ssl/private/site.pem"),
        ("HostKey", "/etc/ssh/ssh_host_ed25519_key"),
        ("password", "${DB_PASSWORD}"),
        ("password", "{{ vault.password }}"),
        ("root.password", "locked"),
        ("password", ""),
        ("proxy_pass", "http://backend:8080"),
        ("net.ipv4.tcp_keepalive_time", "7200"),
        ("bypass", "a b c"),
        ("Defaults", "env_reset, timestamp_timeout=5"),
        ("%sudo", "ALL=(ALL:ALL) ALL"),
        ("%sudo", "ALL=(root) NOPASSWD: /bin/systemctl restart x, PASSWD: /bin/su, PASSWD: ALL"),
        ("token_ttl", "3600"),
        ("secrets.db.file", "./db.txt"),
        ("credentials.username", "bob"),
        ("secrets.db.external", "true"),
        ("sha256", "6f1ed002ab5595859014ebf0951522d9e3b0c44298fc1c149afbf4c8996fb924"),
    ] {
        assert_eq!(masked(name, value), value, "{name}");
    }
}

/// `§` stands for the secret in a text.
#[test]
fn secrets_are_known_by_their_shape_whatever_the_name() {
    for (value, secret) in [
        ("https://bob:§@example.org/x", "Zq9hunter2"),
        ("root:§:19000:0", "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq"),
        ("userPassword {x} § end", "{SSHA}DkMTwBl+a/3DQTxCYEApdUtNXGgdUac3"),
        ("§", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"),
        ("id § x", "AKIAIOSFODNN7EXAMPLE"),
        ("x=§", "ghp_0123456789012345678901234567890123456"),
        ("a §", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"),
        ("password_pbkdf2 root §", "grub.pbkdf2.sha512.10000.9CA4611006FE96BC77A0DCC3C3A1B5E2"),
        ("Environment=DB_PASSWORD=§ x", "Zq9hunter2"),
        ("-----BEGIN PRIVATE KEY-----§", "\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END"),
    ] {
        let told = masked("anything", &value.replace('§', secret));
        assert_eq!(told, value.replace('§', &key().digest(secret.as_bytes())), "{value}");
    }
}

#[test]
fn an_operators_rules_mask_more_and_keep_more() {
    let rules: Rules = crate::document::parse_toml(
        "a.toml",
        "mask_names = ['door_code']\nkeep_names = ['csrf*']\nprefixes = [{ starts_with = 'corp_', at_least = 12 }]",
    )
    .unwrap();
    let ruled = key().with_rules(rules);
    assert_ne!(ruled.fingerprint(), key().fingerprint());
    assert_eq!(key().with_rules(Rules::default()).fingerprint(), key().fingerprint());
    let told = |name: &str, value: &'static str| setting(name, value, &ruled).into_owned();
    assert_eq!(told("house.door-code", "4711"), key().digest(b"4711"));
    assert_eq!(told("csrf_token", "x1"), "x1");
    assert_eq!(told("csrf_token", "AKIAIOSFODNN7EXAMPLE"), key().digest(b"AKIAIOSFODNN7EXAMPLE"));
    assert_eq!(told("x", "a corp_12345678"), format!("a {}", key().digest(b"corp_12345678")));
    assert_eq!(line("door_code = 4711", &ruled), format!("door_code = {}", key().digest(b"4711")));
}

#[test]
fn a_changed_secret_shows_that_it_changed_and_equal_ones_are_equal() {
    assert_ne!(masked("password", "a"), masked("password", "b"));
    assert_eq!(masked("password", "a"), masked("other.passwd", "a"));
    assert_ne!(masked("u", "http://a:b@h"), masked("u", "http://a:c@h"));
    let long = |last: &str| masked("script", &format!("{}{last}", "x ".repeat(LOOKED_AT)));
    assert_ne!(long("a"), long("b"));
    assert!(long("a").starts_with("keyed:"));
}

#[test]
fn lines_show_their_names_and_not_their_secrets() {
    let told = |text: &str| line(text, &key()).into_owned();
    let digest = key().digest(SECRET.as_bytes());
    for text in [
        "password = §",
        "  \"password\": \"§\",",
        "requirepass §",
        "snmp community §",
        "#password=§",
        "export DB_PASSWORD='§'",
        "- token: §",
        "psk=§",
        "machine h login bob password §",
    ] {
        assert_eq!(told(&text.replace('§', SECRET)), text.replace('§', &digest), "{text}");
    }
    for text in [
        "PasswordAuthentication yes",
        "PASS_MAX_DAYS\t99999",
        "passwd:         files systemd",
        "# the password is not here",
        "%sudo ALL=(ALL) NOPASSWD: ALL",
    ] {
        assert_eq!(told(text), text);
    }
}

fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~é\u{202e}\n]{0,12}",
        proptest::sample::select(vec![
            "keyed:",
            "0123456789abcdef0123456789abcdef",
            "[redacted]",
            "password",
            "=",
            ":",
            " ",
            "://",
            "a:b@h",
            "$6$",
            "{SSHA}",
            "aaaaaaaaaa",
            "Bearer ",
            "-----BEGIN PRIVATE KEY-----",
            "token=",
            "\"",
            "'",
            ";",
            "&",
            ",",
            "8Zq3vKpL0xWm2TnB7yRc",
            "ghp_01234567890123456789",
            "AKIAIOSFODNN7EXAMPLE",
            "\\",
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn masking_settings_and_lines_does_nothing_twice(name in texts(), value in texts()) {
        let once = masked(&name, &value);
        prop_assert_eq!(&masked(&name, &once), &once);
        let once = line(&value, &key()).into_owned();
        prop_assert_eq!(line(&once, &key()), once.as_str());
    }

    #[test]
    fn a_named_secret_is_never_told(secret in "[a-zA-Z0-9!#%+,./:=@^_~ $-]{6,24}", before in "[a-z .]{0,12}", after in "[a-z ]{0,8}") {
        let secret = format!("Zq9{}", secret.trim());
        for name in ["password", "a.b[name=x].token", "list.api_keys", "x.\"a.b\".secret"] {
            prop_assert!(!masked(name, &secret).contains("Zq9"));
            let listed = format!("{before}{secret}{after}");
            prop_assert!(!masked(name, &listed).contains("Zq9"));
        }
        for text in [format!("password = {secret}"), format!("\"token\": \"{secret}\","), format!("secret {secret}"), format!("  api_key: {secret}")] {
            let told = line(&text, &key());
            prop_assert!(!told.contains("Zq9"), "{}", told);
        }
    }
}
