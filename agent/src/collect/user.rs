//! Users, from /etc/passwd and /etc/shadow. A password hash leaves only as a keyed digest.

use std::collections::HashMap;
use std::io;

use trueline_drift::redact::RedactionKey;
use trueline_drift::{FieldName, Fields, ItemKind, Time, Value};

use super::account::{Misshapen, number, number_value, records};
use super::{CollectError, Collector, Listing, Root, listing, refusal};

const DATABASE_LIMIT: u64 = 16 * 1024 * 1024;
const DAY_MICROS: i64 = 86_400_000_000;

const FIELDS: [&str; 13] = [
    "uid",
    "gid",
    "gecos",
    "home",
    "shell",
    "locked",
    "password",
    "password_changed",
    "password_min_days",
    "password_max_days",
    "password_warn_days",
    "password_inactive_days",
    "expires_at",
];

type Shown = fn(&[u8]) -> Value;

/// Fields of shadow(5) by their place in its line.
const AGEING: [(&str, usize, Shown); 6] = [
    ("password_changed", 2, |days| if days == b"0" { Value::text("to be changed at the next login") } else { date(days) }),
    ("password_min_days", 3, number_value),
    ("password_max_days", 4, number_value),
    ("password_warn_days", 5, number_value),
    ("password_inactive_days", 6, number_value),
    ("expires_at", 7, date),
];

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::User, sources: &["/etc/passwd", "/etc/shadow"], poll: None, read: |place| read_all(place.root, place.key) };

pub fn read_all(root: &Root, key: &RedactionKey) -> Result<Listing, CollectError> {
    let failed = |error: io::Error| CollectError::database("/etc/passwd", &error);
    let passwd = root.read("/etc/passwd", DATABASE_LIMIT).map_err(failed)?;
    let shadow = root.read("/etc/shadow", DATABASE_LIMIT);
    let shadow = match &shadow {
        Ok(shadow) => Ok(shadow.as_deref().unwrap_or_default()),
        Err(error) => Err(refusal::reason(error)),
    };
    parse(&passwd.unwrap_or_default(), shadow, key).map_err(failed)
}

/// `shadow` is the database, or why it could not be read.
pub fn parse(passwd: &[u8], shadow: Result<&[u8], String>, key: &RedactionKey) -> io::Result<Listing> {
    let mut lines = HashMap::new();
    for record in shadow.as_ref().map(|shadow| records(shadow)).into_iter().flatten() {
        if let Some(name) = record.first() {
            lines.entry(*name).or_insert(record);
        }
    }
    let mut misshapen = Misshapen::default();
    let mut users = Vec::new();
    for record in records(passwd) {
        let [name, password, uid, gid, gecos, home, shell] = record[..] else {
            users.push(misshapen.account(&record, 7, &FIELDS)?);
            continue;
        };
        let mut fields = Fields::new();
        fields.set(FieldName::known("uid"), number_value(uid));
        fields.set(FieldName::known("gid"), number_value(gid));
        for (field, value) in [("gecos", gecos), ("home", home), ("shell", shell)] {
            if !value.is_empty() {
                fields.set(FieldName::known(field), Value::bytes(value));
            }
        }
        let unreadable = |reason: &str| (Value::unreadable(reason), Value::unreadable(reason));
        let line = lines.get(name).filter(|_| password == b"x");
        let (locked, password) = match (password, &shadow, line.map(|line| line.get(1))) {
            (b"x", Err(reason), _) => unreadable(reason),
            (b"x", Ok(_), Some(None)) => unreadable("its line in /etc/shadow has a name and nothing else"),
            (b"x", Ok(_), Some(Some(hash))) => judged(hash, key),
            // No line in shadow: there is no password that could be right.
            (b"x", Ok(_), None) => judged(b"*", key),
            (hash, _, _) => judged(hash, key),
        };
        fields.set(FieldName::known("locked"), locked);
        fields.set(FieldName::known("password"), password);
        for (field, at, shown) in AGEING {
            let value = match (&shadow, line.and_then(|line| line.get(at)).copied()) {
                (Ok(_), None | Some(b"")) => continue,
                (Ok(_), Some(number)) => shown(number),
                (Err(reason), _) => Value::unreadable(reason),
            };
            fields.set(FieldName::known(field), value);
        }
        users.push((name.to_vec(), fields));
    }
    Ok(listing(ItemKind::User, users, 0))
}

/// A day counted from 1 January 1970, as `2030-01-31`.
fn date(days: &[u8]) -> Value {
    let shown = number(days).map(|days| Time::from_micros(i64::from(days) * DAY_MICROS).to_string());
    let date = shown.as_ref().and_then(|shown| shown.split_once('T')).map(|(date, _)| Value::text(date));
    date.unwrap_or_else(|| Value::unreadable("it is not a day"))
}

/// `locked` and `password` from the hash field of shadow(5). A `!` before a hash is what passwd -l
/// puts there; the hash behind it is the one that an unlock would bring back.
fn judged(hash: &[u8], key: &RedactionKey) -> (Value, Value) {
    if hash.is_empty() {
        return (Value::Boolean(false), Value::text("none"));
    }
    let locked = matches!(hash[0], b'!' | b'*');
    let start = hash.iter().position(|byte| !matches!(byte, b'!' | b'*'));
    let password = match start {
        // `!*`, `!!`, and words such as NP and LK are no hashes.
        Some(start) if hash.len() - start >= 8 => Value::Text(key.digest(&hash[start..])),
        _ => Value::text("locked"),
    };
    let locked = locked || password == Value::text("locked");
    (Value::Boolean(locked), password)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n# note\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n\
        open:x:1000:1000:Open,,,:/home/open:/bin/sh\nkept:x:1001:1001::/:/bin/sh\nold:$1$abc$defghij:1002:1002::/:/bin/sh\n\
        root:x:0:0:again:/:/bin/sh\n";
    const SHADOW: &[u8] = b"root:$6$salt$secrethash::::::\nwww-data:*:::::::\nopen::::::::\nkept:!$6$salt$secrethash:::::::\n";

    fn shown(listing: &Listing) -> String {
        listing.items.iter().map(|(item, reading)| format!("{item} {}\n", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn users_are_told_without_their_hashes() {
        let key = RedactionKey::new([7; 32]);
        let listing = parse(PASSWD, Ok(SHADOW), &key).unwrap();
        let digest = key.digest(b"$6$salt$secrethash");
        let old = key.digest(b"$1$abc$defghij");
        let expected = format!(
            r#"user:kept {{"gid":1001,"home":"/","locked":true,"password":"{digest}","shell":"/bin/sh","uid":1001}}
user:old {{"gid":1002,"home":"/","locked":false,"password":"{old}","shell":"/bin/sh","uid":1002}}
user:open {{"gecos":"Open,,,","gid":1000,"home":"/home/open","locked":false,"password":"none","shell":"/bin/sh","uid":1000}}
user:root {{"gecos":"root","gid":0,"home":"/root","locked":false,"password":"{digest}","shell":"/bin/bash","uid":0}}
user:www-data {{"gid":33,"home":"/var/www","locked":true,"password":"locked","shell":"/usr/sbin/nologin","uid":33}}
"#
        );
        assert_eq!(shown(&listing), expected);
        assert_eq!(listing.skipped, 1);
        assert!(!shown(&listing).contains("secrethash"));
    }

    #[test]
    fn when_a_password_and_an_account_end_is_told_in_days() {
        let shadow = b"root:!:20000:0:99999:7:30:21915:\nwww-data:*:0:::::soon:\nopen:\n";
        let listing = parse(PASSWD, Ok(shadow), &RedactionKey::new([7; 32])).unwrap();
        let of = |name: &str| &listing.items.iter().find(|(item, _)| item.key.as_str() == name).unwrap().1.fields;
        let shown = |name: &str| {
            let ageing = of(name).iter().filter(|(field, _)| AGEING.iter().any(|(known, ..)| *known == field.as_str()));
            ageing.map(|(field, value)| format!("{field}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown("root"),
            "expires_at=2030-01-01 password_changed=2024-10-04 password_inactive_days=30 password_max_days=99999 password_min_days=0 password_warn_days=7"
        );
        assert_eq!(shown("www-data"), "expires_at=unreadable: it is not a day password_changed=to be changed at the next login");
        assert_eq!((shown("open"), shown("old")), (String::new(), String::new()), "no line, or a short one");
    }

    #[test]
    fn an_unreadable_shadow_is_not_taken_for_no_password() {
        let listing = parse(PASSWD, Err("permission denied".into()), &RedactionKey::new([7; 32])).unwrap();
        let (_, root) = listing.items.iter().find(|(item, _)| item.key.as_str() == "root").unwrap();
        assert!(root.fields.value("password").unwrap().is_unreadable() && root.fields.value("locked").unwrap().is_unreadable());
    }

    /// A user that is left out would be told as removed, and compared no more.
    #[test]
    fn a_user_whose_line_makes_no_sense_is_unreadable_and_not_gone() {
        let key = RedactionKey::new([7; 32]);
        let passwd = b"root:x:0:0:root:/root:/bin/bash:\nbin:x:two:2::/:\nbare\n+::::::\ntorn:x:9:9::/:/bin/sh\n";
        let listing = parse(passwd, Ok(b"root:$6$salt$secrethash:1::::::\ntorn\n"), &key).unwrap();
        let of = |name: &str| &listing.items.iter().find(|(item, _)| item.key.as_str() == name).unwrap().1.fields;
        assert_eq!((listing.items.len(), listing.skipped), (5, 0));
        for name in ["root", "bare"] {
            assert!(of(name).len() == FIELDS.len() && of(name).iter().all(|(_, value)| value.is_unreadable()), "{:?}", of(name));
        }
        assert_eq!(of("root").value("uid").unwrap().to_string(), "unreadable: its line has 8 fields between colons, not 7");
        assert!(of("bin").value("uid").unwrap().is_unreadable() && of("bin").value("gid") == Some(&Value::Integer(2)));
        assert!(of("+").value("uid").unwrap().is_unreadable());
        assert!(of("torn").value("password").unwrap().is_unreadable() && of("torn").value("uid") == Some(&Value::Integer(9)));
        let garbage = "a:b\n".repeat(1001);
        assert!(parse(garbage.as_bytes(), Ok(b""), &key).unwrap_err().to_string().contains("not 7 fields"));
    }

    #[test]
    fn a_huge_line_is_read_and_its_values_are_bounded() {
        let passwd = format!("root:x:0:0:{}:/root:/bin/bash\n", "\u{1}".repeat(100_000));
        let listing = parse(passwd.as_bytes(), Ok(SHADOW), &RedactionKey::new([7; 32])).unwrap();
        let fields = &listing.items[0].1.fields;
        assert_eq!(fields.value("uid"), Some(&Value::Integer(0)));
        let gecos = fields.value("gecos").unwrap().to_string();
        assert!(gecos.len() <= trueline_drift::value::VALUE_LIMIT + 64 && gecos.contains("100000 bytes in all"), "{}", gecos.len());
    }

    proptest! {
        #[test]
        fn hostile_databases_never_panic(a in proptest::collection::vec(any::<u8>(), 0..200), b in "[a-c:!*\n]{0,80}") {
            let key = RedactionKey::new([7; 32]);
            let _ = parse(&a, Ok(b.as_bytes()), &key);
            let _ = parse(b.as_bytes(), Ok(&a), &key);
        }
    }
}
