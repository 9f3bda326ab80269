//! What the machine is made of: processors, memory, disks, and what it says of itself and its firmware.
//!
//! Invariant: nothing here changes while nobody changes the machine. Memory is told to a 16th, since each kernel keeps
//! another part of it for itself; a disk is called by what it bears and not by the order in which it was found.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Root, folder, listing};

const CPUS: &str = "/sys/devices/system/cpu";
const CPUINFO: &str = "/proc/cpuinfo";
const DEVICES: &str = "/sys/class/block";
const DMI: &str = "/sys/class/dmi/id";
const EFI: &str = "/sys/firmware/efi";
const HYPERVISOR: &str = "/sys/hypervisor/type";

/// Many times what the largest known hosts have.
const ENTRIES_LIMIT: usize = 16 * 1024;
/// A processor's part of it is about 1.5 KiB.
const CPUINFO_LIMIT: u64 = 16 * 1024 * 1024;
/// The unit of `size`, whatever the device's own is.
const SECTOR: u64 = 512;

/// sysfs tells of nothing by itself, and hardware is not changed twice in an hour.
const POLL: Duration = Duration::from_secs(300);

pub const COLLECTOR: Collector = Collector { kind: ItemKind::Hardware, sources: &[], poll: Some(POLL), read: |place| read_all(place.root) };

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let mut found = BTreeMap::new();
    // sysinfo asks the kernel that runs, which knows nothing of another host's folder.
    if root.is_host() {
        processors_and_memory(&mut found);
    }
    if let Some(sockets) = sockets(root).map_err(|error| CollectError::database(CPUS, &error))? {
        found.entry(b"cpu".to_vec()).or_insert_with(Fields::new).set(FieldName::known("sockets"), Value::Integer(sockets));
    }
    disks(root, &mut found).map_err(|error| CollectError::database(DEVICES, &error))?;
    system(root, &mut found).map_err(|error| CollectError::database(DMI, &error))?;
    Ok(listing(ItemKind::Hardware, found, 0))
}

fn processors_and_memory(found: &mut BTreeMap<Vec<u8>, Fields>) {
    let wanted = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()).with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(wanted);
    let mut cpu = Fields::new();
    if let Some(first) = system.cpus().first() {
        for (name, value) in [("model", first.brand()), ("vendor", first.vendor_id())] {
            if !value.trim().is_empty() {
                cpu.set(FieldName::known(name), Value::bytes(value.trim().as_bytes()));
            }
        }
        cpu.set(FieldName::known("count"), Value::Integer(system.cpus().len() as i64));
        if let Some(cores) = System::physical_core_count() {
            cpu.set(FieldName::known("cores"), Value::Integer(cores as i64));
        }
        found.insert(b"cpu".to_vec(), cpu);
    }
    if system.total_memory() > 0 {
        let size = i64::try_from(bought(system.total_memory())).unwrap_or(i64::MAX);
        found.insert(b"memory".to_vec(), Fields::new().with("size", size));
    }
}

/// What was bought, from what the kernel has left to give: up to the next 16th of the power of two that it lies beneath.
fn bought(bytes: u64) -> u64 {
    let step = bytes.checked_next_power_of_two().map_or(1 << 59, |above| above / 16).max(1);
    bytes.div_ceil(step).saturating_mul(step)
}

/// `None` where the kernel does not tell.
fn sockets(root: &Root) -> io::Result<Option<i64>> {
    let mut packages = BTreeSet::new();
    for (name, _) in folder::names(root, CPUS, ENTRIES_LIMIT)? {
        let is_cpu = name.strip_prefix(b"cpu").is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit));
        let Some(place) = folder::beneath(CPUS, &name).filter(|_| is_cpu) else { continue };
        // One that is offline has none.
        packages.extend(folder::word(root, &format!("{place}/topology/physical_package_id"))?);
    }
    Ok(Some(packages.len() as i64).filter(|sockets| *sockets > 0))
}

/// Disks that are built in. Of several paths to one disk the first is told.
fn disks(root: &Root, found: &mut BTreeMap<Vec<u8>, Fields>) -> io::Result<()> {
    for (name, _) in folder::names(root, DEVICES, ENTRIES_LIMIT)? {
        let Some(place) = folder::beneath(DEVICES, &name) else { continue };
        let word = |file: &str| match folder::word(root, &format!("{place}/{file}")) {
            // The device is being removed, or does not know.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => Ok(None),
            other => other,
        };
        // A partition, or made by a driver alone: nothing that somebody holds in a hand.
        if word("partition")?.is_some() || folder::names(root, &format!("{place}/device"), ENTRIES_LIMIT)?.is_empty() {
            continue;
        }
        let is_set = |word: Option<String>| word.is_some_and(|word| word != "0");
        let sectors = word("size")?.and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        if sectors == 0 || is_set(word("removable")?) || is_set(word("hidden")?) {
            continue;
        }
        let mut fields = Fields::new();
        fields.set(FieldName::known("size"), Value::Integer(i64::try_from(sectors.saturating_mul(SECTOR)).unwrap_or(i64::MAX)));
        for (name, files) in [("model", ["device/model", "model"]), ("vendor", ["device/vendor", "vendor"])] {
            // Of a bus without names it is a number.
            let told = first(word, &files)?.filter(|told| !told.starts_with("0x"));
            if let Some(told) = told {
                fields.set(FieldName::known(name), Value::text(&told));
            }
        }
        let serial = first(word, &["device/serial", "serial"])?;
        if let Some(serial) = &serial {
            fields.set(FieldName::known("serial"), Value::text(serial));
        }
        let called = match serial {
            Some(serial) => Some(serial),
            None => first(word, &["wwid", "device/wwid"])?,
        };
        // Without either its name is all there is.
        let called = called.map_or(name, |called| text::original(&called).into_owned());
        found.entry([b"disk ", called.as_slice()].concat()).or_insert(fields);
    }
    Ok(())
}

fn first(word: impl Fn(&str) -> io::Result<Option<String>>, files: &[&str]) -> io::Result<Option<String>> {
    for file in files {
        if let Some(told) = word(file)? {
            return Ok(Some(told));
        }
    }
    Ok(None)
}

fn system(root: &Root, found: &mut BTreeMap<Vec<u8>, Fields>) -> io::Result<()> {
    let dmi = |file: &str| folder::word(root, &format!("{DMI}/{file}"));
    let (vendor, product) = (dmi("sys_vendor")?, dmi("product_name")?);
    let board = match (dmi("board_vendor")?, dmi("board_name")?) {
        (Some(vendor), Some(name)) => Some(format!("{vendor} {name}")),
        (vendor, name) => vendor.or(name),
    };
    let bios = (dmi("bios_vendor")?, dmi("bios_version")?, dmi("bios_date")?);
    let facts = Facts {
        hypervisor: folder::word(root, HYPERVISOR)?,
        bios_vendor: bios.0.clone(),
        vendor: vendor.clone(),
        product: product.clone(),
        is_guest: root.read(CPUINFO, CPUINFO_LIMIT)?.and_then(|cpuinfo| is_guest(&cpuinfo)),
    };
    let virtualisation = virtualisation(&facts).map(str::to_owned);
    let is_told = bios.0.is_some() || bios.1.is_some();
    let firmware_type = is_told.then(|| if root.path(EFI).is_dir() { "uefi" } else { "bios" }.to_owned());
    let items = [
        ("system", vec![("board", board), ("product", product), ("vendor", vendor), ("virtualisation", virtualisation)]),
        ("firmware", vec![("date", bios.2), ("type", firmware_type), ("vendor", bios.0), ("version", bios.1)]),
    ];
    for (key, told) in items {
        let told: Fields = told.into_iter().filter_map(|(name, value)| Some((FieldName::known(name), Value::text(&value?)))).collect();
        if !told.is_empty() {
            found.insert(key.as_bytes().to_vec(), told);
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Default)]
struct Facts {
    hypervisor: Option<String>,
    vendor: Option<String>,
    product: Option<String>,
    bios_vendor: Option<String>,
    /// Whether the processor says that a hypervisor runs it; `None` where it is of a kind that says nothing.
    is_guest: Option<bool>,
}

/// What runs the machine; `none` where it is one of its own, `None` where nothing tells.
fn virtualisation(facts: &Facts) -> Option<&'static str> {
    if facts.hypervisor.as_deref() == Some("xen") {
        // Xen's first guest, which sees the hardware, is one too.
        return Some("xen");
    }
    let begins = |text: &Option<String>, with: &str| text.as_deref().is_some_and(|text| text.starts_with(with));
    let says = |with: &str| begins(&facts.product, with) || begins(&facts.vendor, with) || begins(&facts.bios_vendor, with);
    // Clouds sell whole machines under the same vendor's name.
    if facts.is_guest != Some(false) {
        let known = [
            ("KVM", "kvm"),
            ("OpenStack", "kvm"),
            ("Amazon EC2", "amazon"),
            ("Google", "google"),
            ("VMware", "vmware"),
            ("VMW", "vmware"),
            ("innotek GmbH", "virtualbox"),
            ("VirtualBox", "virtualbox"),
            ("Parallels", "parallels"),
            ("Xen", "xen"),
            ("BHYVE", "bhyve"),
            ("Apple Virtualization", "apple"),
            ("QEMU", "qemu"),
            ("Bochs", "bochs"),
        ];
        let is_metal = facts.is_guest.is_none() && facts.product.as_deref().is_some_and(|product| product.contains(".metal"));
        if let Some((_, name)) = known.iter().find(|(with, _)| says(with)).filter(|_| !is_metal) {
            return Some(name);
        }
        if begins(&facts.vendor, "Microsoft Corporation") && begins(&facts.product, "Virtual Machine") {
            return Some("hyper-v");
        }
    }
    match facts.is_guest {
        Some(true) => Some("other"),
        Some(false) => Some("none"),
        None => None,
    }
}

/// Only x86 says so: among the flags of its first processor.
fn is_guest(cpuinfo: &[u8]) -> Option<bool> {
    let flags = cpuinfo.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"flags"))?;
    Some(flags.split(u8::is_ascii_whitespace).any(|flag| flag == b"hypervisor"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn shown(root: &Root) -> Vec<String> {
        let listing = read_all(root).unwrap();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    fn write(folder: &tempfile::TempDir, path: &str, text: &str) {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_guest_with_two_disks_is_told_by_what_they_bear() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n"),
            ("sys/devices/system/cpu/cpu1/topology/physical_package_id", "0\n"),
            ("sys/devices/system/cpu/cpufreq/topology/physical_package_id", "9\n"),
            ("sys/class/block/nvme0n1/device/model", "ACME SSD \n"),
            ("sys/class/block/nvme0n1/device/serial", "S1\x1b[2J \n"),
            ("sys/class/block/nvme0n1/size", "2048\n"),
            ("sys/class/block/nvme0n1p1/partition", "1\n"),
            ("sys/class/block/nvme0n1p1/size", "1024\n"),
            ("sys/class/block/vda/device/vendor", "0x1af4\n"),
            ("sys/class/block/vda/size", "4096\n"),
            ("sys/class/block/loop0/size", "4096\n"),
            ("sys/class/block/sdb/size", "4096\n"),
            ("sys/class/block/sdb/removable", "1\n"),
            ("sys/class/block/sdb/device/model", "Stick\n"),
            ("sys/class/dmi/id/sys_vendor", "QEMU\n"),
            ("sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009)\n"),
            ("sys/class/dmi/id/bios_vendor", "SeaBIOS\n"),
            ("sys/class/dmi/id/bios_version", "1.16.2\n"),
            ("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu hypervisor lm\n"),
        ] {
            write(&folder, path, text);
        }
        let root = Root::at(folder.path());
        assert_eq!(
            shown(&root),
            [
                r#"hardware:cpu {"sockets":1}"#,
                r#"hardware:disk S1\x1b[2J {"model":"ACME SSD","serial":"S1\\x1b[2J","size":1048576}"#,
                r#"hardware:disk vda {"size":2097152}"#,
                r#"hardware:firmware {"type":"bios","vendor":"SeaBIOS","version":"1.16.2"}"#,
                r#"hardware:system {"product":"Standard PC (Q35 + ICH9, 2009)","vendor":"QEMU","virtualisation":"qemu"}"#,
            ]
        );
        assert!(shown(&Root::at(folder.path().join("none"))).is_empty());
    }

    #[test]
    fn memory_is_what_was_bought_and_another_kernel_leaves_it_so() {
        for (total, size) in [
            (25_276_063_744, 24 * GIB),
            (16_400_000_000, 16 * GIB),
            (16_390_000_000, 16 * GIB),
            (270_000_000_000, 256 * GIB),
            (404_800_000_000, 384 * GIB),
            (1_007_000_000, GIB),
            (2_070_000_000, 2 * GIB),
            (GIB, GIB),
        ] {
            assert_eq!(bought(total), size, "{total}");
        }
        assert!(bought(u64::MAX) >= 1 << 62 && bought(1) == 1);
    }

    #[test]
    fn a_whole_machine_of_a_cloud_is_no_guest() {
        let facts = Facts {
            vendor: Some("Amazon EC2".into()),
            product: Some("m5.metal".into()),
            bios_vendor: Some("Amazon EC2".into()),
            is_guest: Some(false),
            hypervisor: None,
        };
        assert_eq!(virtualisation(&facts), Some("none"));
        assert_eq!(virtualisation(&Facts { is_guest: None, ..facts.clone() }), None);
        let sold = Facts { product: Some("m5.large".into()), is_guest: Some(true), ..facts };
        assert_eq!(virtualisation(&sold), Some("amazon"));
        assert_eq!(virtualisation(&Facts { hypervisor: Some("xen".into()), ..Facts::default() }), Some("xen"));
        assert_eq!(virtualisation(&Facts { is_guest: Some(true), ..Facts::default() }), Some("other"));
        assert_eq!(virtualisation(&Facts::default()), None);
    }

    #[test]
    fn this_machine_reads_the_same_twice() {
        let read = shown(&Root::host());
        assert_eq!(read, shown(&Root::host()));
        let has = |key: &str, field: &str| read.iter().any(|item| item.starts_with(key) && item.contains(field));
        assert!(has("hardware:cpu {", "\"count\":") && has("hardware:memory {", "\"size\":"), "{read:?}");
    }

    proptest! {
        #[test]
        fn hostile_texts_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in any::<u64>()) {
            let _ = is_guest(&bytes);
            prop_assert!(size > 1 << 63 || bought(size) >= size);
        }
    }
}
