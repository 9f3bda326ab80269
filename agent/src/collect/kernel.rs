//! The kernel that runs: its release, what it was started with, what has tainted it, and how far it is locked down.

use std::io;
use std::time::Duration;

use trueline_drift::redact::{self, RedactionKey};
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Place, folder, listing, refusal};

const RELEASE: &str = "/proc/sys/kernel/osrelease";
const VERSION: &str = "/proc/sys/kernel/version";
const TAINTED: &str = "/proc/sys/kernel/tainted";
const COMMAND_LINE: &str = "/proc/cmdline";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

const LIMIT: u64 = 64 * 1024;

/// Taint and lockdown change while it runs, and neither /proc nor securityfs tells of it.
const POLL: Duration = Duration::from_secs(60);

/// By bit, as Documentation/admin-guide/tainted-kernels.rst has them.
const TAINTS: &[&str] = &[
    "proprietary_module",
    "forced_module",
    "out_of_specification",
    "forced_unload",
    "machine_check",
    "bad_page",
    "user_request",
    "died",
    "overridden_acpi_table",
    "warning",
    "staging_driver",
    "firmware_workaround",
    "out_of_tree_module",
    "unsigned_module",
    "soft_lockup",
    "live_patch",
    "auxiliary",
    "randomised_structures",
    "in_kernel_test",
    "fwctl",
];

pub const COLLECTOR: Collector = Collector { kind: ItemKind::Kernel, sources: &[], poll: Some(POLL), read: read_all };

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let word = |path: &str| folder::word(place.root, path).map_err(|error| CollectError::database(path, &error));
    let Some(release) = word(RELEASE)? else { return Ok(Listing::default()) };
    let mut fields = Fields::new();
    fields.set(FieldName::known("release"), Value::text(&release));
    if let Some(version) = word(VERSION)? {
        fields.set(FieldName::known("version"), Value::text(&version));
    }
    set(&mut fields, "parameters", place.root.read(COMMAND_LINE, LIMIT), |line| {
        let parameters = parameters(&line, place.key);
        Some(parameters).filter(|parameters| !parameters.is_empty()).map(Value::list)
    });
    set(&mut fields, "taint", folder::word(place.root, TAINTED), |tainted| match tainted.parse() {
        Ok(0) => None,
        Ok(bits) => Some(Value::list(taints(bits))),
        Err(_) => Some(Value::unreadable("it is not a number")),
    });
    set(&mut fields, "lockdown", folder::word(place.root, LOCKDOWN), |modes| Some(chosen(&modes)));
    set(&mut fields, "secure_boot", place.root.read(SECURE_BOOT, LIMIT), |variable| Some(secure_boot(&variable)));
    Ok(listing(ItemKind::Kernel, [(b"running".to_vec(), fields)], 0))
}

/// What this kernel does not have is absent; what may not be read is told as such.
fn set<T>(fields: &mut Fields, name: &'static str, read: io::Result<Option<T>>, value: impl FnOnce(T) -> Option<Value>) {
    let value = match read {
        Ok(read) => read.and_then(value),
        Err(error) => Some(Value::unreadable(refusal::reason(&error))),
    };
    if let Some(value) = value {
        fields.set(FieldName::known(name), value);
    }
}

/// The parameters in their order, which counts (`console`, `--`); blanks in quotes do not part them.
fn parameters(line: &[u8], key: &RedactionKey) -> Vec<String> {
    let mut quoted = false;
    let parts = line.split(|byte| {
        quoted ^= *byte == b'"';
        !quoted && byte.is_ascii_whitespace()
    });
    let masked = |parameter: &[u8]| {
        let parameter = text::printable(parameter);
        match parameter.split_once('=') {
            Some((name, value)) => format!("{name}={}", redact::setting(name, value, key)),
            None => parameter.into_owned(),
        }
    };
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    // Behind it stand the arguments of the first process.
    let end = parts.iter().position(|part| *part == b"--").unwrap_or(parts.len());
    let (own, others) = parts.split_at(end);
    let others: Vec<_> = others.iter().map(|part| text::printable(part).into_owned()).collect();
    own.iter().map(|part| masked(part)).chain(redact::arguments(&others)).collect()
}

fn taints(bits: u64) -> Vec<String> {
    let mut taints: Vec<_> = (0..64)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(|bit| TAINTS.get(bit).map_or_else(|| format!("bit_{bit}"), |name| (*name).to_owned()))
        .collect();
    taints.sort_unstable();
    taints
}

/// Of `none [integrity] confidentiality`, what is in brackets.
fn chosen(modes: &str) -> Value {
    let chosen = modes.split_whitespace().find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']'));
    chosen.map_or_else(|| Value::unreadable("no mode is marked as chosen"), Value::text)
}

/// Four bytes of attributes, and one of value.
fn secure_boot(variable: &[u8]) -> Value {
    match variable {
        [_, _, _, _, value @ (0 | 1)] => Value::Boolean(*value == 1),
        _ => Value::unreadable("the variable of the firmware makes no sense"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use trueline_drift::watch::WatchPolicy;

    use super::super::Root;
    use super::*;

    fn shown(root: &Root) -> Vec<String> {
        let place = Place {
            root,
            policy: &WatchPolicy::default(),
            key: &RedactionKey::new([1; 32]),
            holders: &crate::collect::Holders::here(root.clone()),
            kept: &crate::collect::Kept::default(),
        };
        let listing = read_all(&place).unwrap();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    fn write(root: &Root, path: &str, bytes: &[u8]) {
        fs::create_dir_all(root.path(path).parent().unwrap()).unwrap();
        fs::write(root.path(path), bytes).unwrap();
    }

    #[test]
    fn what_runs_is_one_item() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        assert!(shown(&root).is_empty());
        write(&root, RELEASE, b"6.1.0-37-amd64\n");
        assert_eq!(shown(&root), [r#"kernel:running {"release":"6.1.0-37-amd64"}"#]);
        write(&root, VERSION, b"#1 SMP Debian 6.1.140-1\n");
        write(
            &root,
            COMMAND_LINE,
            b"root=UUID=1b ro console=tty0 dyndbg=\"file a.c +p\" rd.password=hunter2secret quiet -- --token hunter2secret\n",
        );
        write(&root, TAINTED, b"4097\n");
        write(&root, LOCKDOWN, b"none [integrity] confidentiality\n");
        write(&root, SECURE_BOOT, &[6, 0, 0, 0, 1]);
        let shown = shown(&root);
        assert!(!shown[0].contains("hunter2"), "{shown:?}");
        let digest = RedactionKey::new([1; 32]).digest(b"hunter2secret");
        let parameters = format!(
            r#"["root=UUID=1b","ro","console=tty0","dyndbg=\"file a.c +p\"","rd.password={digest}","quiet","--","--token","[redacted]"]"#
        );
        let rest = r##""release":"6.1.0-37-amd64","secure_boot":true,"taint":["out_of_tree_module","proprietary_module"],"version":"#1 SMP Debian 6.1.140-1""##;
        assert_eq!(shown, [format!(r#"kernel:running {{"lockdown":"integrity","parameters":{parameters},{rest}}}"#)]);
    }

    #[test]
    fn what_makes_no_sense_is_unreadable_and_not_absent() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for (path, text) in [(RELEASE, "6"), (TAINTED, "many"), (LOCKDOWN, "none"), (SECURE_BOOT, "\x01")] {
            write(&root, path, text.as_bytes());
        }
        let shown = shown(&root);
        assert_eq!(shown[0].matches("unreadable").count(), 3, "{shown:?}");
    }

    #[test]
    fn this_machines_kernel_can_be_read() {
        let shown = shown(&Root::host());
        let release = fs::read_to_string(RELEASE).unwrap();
        assert!(shown[0].contains(release.trim()), "{shown:?}");
    }

    proptest! {
        #[test]
        fn hostile_command_lines_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), bits: u64) {
            let told = parameters(&bytes, &RedactionKey::new([1; 32]));
            prop_assert!(told.iter().all(|text| !text.chars().any(char::is_control)));
            prop_assert_eq!(taints(bits).len(), bits.count_ones() as usize);
        }
    }
}
