//! The packet filter: what nf_tables is told to do in the host's network namespace, and the older ip_tables and ip6_tables, read
//! from the kernel itself.
//!
//! Invariants: a reading of nf_tables is of one moment, and so is one of an older table, or there is none; a ruleset too large to be
//! read whole is an error and never a part of it. The agent never makes the kernel load what is not there.

use std::io;
use std::time::Duration;

use trueline_drift::ItemKind;
use trueline_drift::firewall::{LegacyFamily, LegacyHooks, Ruleset};

use super::{CollectError, Collector, Listing, Place, Root, listing};
use crate::kernel::netfilter::Netfilter;
use crate::kernel::xtables;
use crate::sensor::Generation;

/// All messages of a reading together, in bytes: some 500 for a plain rule.
const RULESET_LIMIT: usize = 64 << 20;
const RULE_LIMIT: u64 = 50_000;
const LEGACY_LIMIT: usize = 16 << 20;
const TABLES_LIMIT: u64 = 4096;
const MODULES_LIMIT: u64 = 4 << 20;
/// Readings that a commit came into the middle of, one after the other, before it is left to the next time.
const ATTEMPTS: usize = 5;

const GET_TABLES: u8 = 1;
const GET_CHAINS: u8 = 4;
const GET_RULES: u8 = 7;
const GET_SETS: u8 = 10;
const GET_ELEMENTS: u8 = 13;
const GET_OBJECTS: u8 = 19;
const GET_FLOWTABLES: u8 = 23;

/// No file tells of a change. The kernel does over netlink, if that can be heard; the poll is for where it cannot, or was lost.
pub const COLLECTOR: Collector = Collector { kind: ItemKind::Firewall, sources: &[], poll: Some(Duration::from_secs(30)), read };

fn read(place: &Place<'_>) -> Result<Listing, CollectError> {
    // There is one kernel, whatever folder stands for the host.
    if !place.root.is_host() {
        return Ok(Listing::default());
    }
    let refused = |error: io::Error| CollectError::database("the packet filter's rules", &error);
    let is_there = is_present(place.root).map_err(refused)?;
    let Read { mut ruleset, skipped, generation } = if is_there { ruleset().map_err(refused)? } else { Read::default() };
    legacy(place.root, &mut ruleset).map_err(refused)?;
    let generation = generation.map(Generation);
    Ok(Listing { generation, ..listing(ItemKind::Firewall, ruleset.into_items(), skipped) })
}

/// Takes the tables of iptables-legacy that there are.
fn legacy(root: &Root, ruleset: &mut Ruleset) -> io::Result<()> {
    for (family, list) in [(LegacyFamily::Ip, "ip_tables_names"), (LegacyFamily::Ip6, "ip6_tables_names")] {
        let names = root.read(&format!("/proc/thread-self/net/{list}"), TABLES_LIMIT)?.unwrap_or_default();
        for name in names.split(|byte| *byte == b'\n').filter(|name| !name.is_empty()) {
            let (hooks, entries) = legacy_table(family, name)?;
            let damaged = || io::Error::other(format!("a table of {} makes no sense", family.word()));
            ruleset.take_legacy(family, name, &hooks, &entries).ok_or_else(damaged)?;
        }
    }
    Ok(())
}

fn legacy_table(family: LegacyFamily, name: &[u8]) -> io::Result<(LegacyHooks, Vec<u8>)> {
    for _ in 0..ATTEMPTS {
        match xtables::table(family, name, LEGACY_LIMIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
    Err(io::Error::other("they changed each time they were read"))
}

/// Whether the kernel has nf_tables already. To ask it for rules where it could have, but has not, would load the module.
pub fn is_present(root: &Root) -> io::Result<bool> {
    const NAME: &[u8] = b"nf_tables";
    // Without modules, all that there is is built in.
    let Some(loaded) = root.read("/proc/modules", MODULES_LIMIT)? else { return Ok(true) };
    if loaded.split(|byte| *byte == b'\n').any(|line| line.split(|byte| *byte == b' ').next() == Some(NAME)) {
        return Ok(true);
    }
    let release = root.read("/proc/sys/kernel/osrelease", 256)?.unwrap_or_default();
    let Ok(release) = std::str::from_utf8(release.trim_ascii()) else { return Ok(false) };
    let built_in = root.read(&format!("/lib/modules/{release}/modules.builtin"), MODULES_LIMIT)?.unwrap_or_default();
    Ok(built_in.split(|byte| *byte == b'\n').any(|path| path.ends_with(b"/nf_tables.ko")))
}

#[derive(Default)]
struct Read {
    ruleset: Ruleset,
    /// Messages that make no sense.
    skipped: u64,
    /// The number of the ruleset; absent without nf_tables.
    generation: Option<u32>,
}

fn ruleset() -> io::Result<Read> {
    for _ in 0..ATTEMPTS {
        match attempt() {
            Ok(Some(read)) => return Ok(read),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Elements of a set, or its table, that went between one question and the next.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("they changed each time they were read"))
}

/// `None` where a commit came in between.
fn attempt() -> io::Result<Option<Read>> {
    let (mut ruleset, mut skipped) = (Ruleset::default(), 0);
    let opened = Netfilter::open(RULESET_LIMIT).and_then(|mut netfilter| Ok((netfilter.generation()?, netfilter)));
    let (before, mut netfilter) = match opened {
        // A kernel that knows nothing of it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP)) => {
            return Ok(Some(Read::default()));
        }
        opened => opened?,
    };
    let mut take = |ruleset: &mut Ruleset, brings, family, attributes: &[u8]| {
        skipped += u64::from(ruleset.take(brings, family, attributes).is_none());
    };
    for asks in [GET_TABLES, GET_CHAINS, GET_SETS, GET_OBJECTS, GET_FLOWTABLES] {
        match netfilter.dump(asks, 0, &[], |brings, family, attributes| take(&mut ruleset, brings, family, attributes)) {
            // Older than objects, or flow tables.
            Err(error) if asks >= GET_OBJECTS && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
            other => other?,
        }
    }
    for set in ruleset.sets_to_ask() {
        let names = [attribute(1, &set.table), attribute(2, &set.name)].concat();
        netfilter.dump(GET_ELEMENTS, set.family, &names, |brings, family, attributes| take(&mut ruleset, brings, family, attributes))?;
    }
    if ruleset.is_cut() {
        return Err(io::Error::other("a set within one of them has more elements than the agent reads"));
    }
    let mut rules = 0_u64;
    netfilter.dump(GET_RULES, 0, &[], |brings, family, attributes| {
        rules += 1;
        if rules <= RULE_LIMIT {
            take(&mut ruleset, brings, family, attributes);
        }
    })?;
    if rules > RULE_LIMIT {
        return Err(io::Error::other(format!("there are more than {RULE_LIMIT} of them")));
    }
    Ok((netfilter.generation()? == before).then_some(Read { ruleset, skipped, generation: Some(before) }))
}

/// A name as netlink takes it: 16 bits of length and of number, and a zero at the end.
fn attribute(number: u16, name: &[u8]) -> Vec<u8> {
    let length = 4 + name.len() + 1;
    let mut bytes = u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes().to_vec();
    bytes.extend(number.to_ne_bytes());
    bytes.extend(name);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    const RULES: &str = include_str!("firewall_test/rules.nft");

    /// In a network namespace of its own, so that nothing of the machine's is touched.
    fn apart<T: Send>(test: &str, run: impl FnOnce() -> T + Send) -> Option<T> {
        let run = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
            nft("add table ip tried").then(run).ok_or_else(|| "there is no nft, or no nf_tables".to_owned())
        };
        let outcome = std::thread::scope(|scope| scope.spawn(run).join().expect("what it runs does not panic"));
        outcome.map_err(|reason| super::super::skipped(test, &reason)).ok()
    }

    fn nft(commands: &str) -> bool {
        let child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = child else { return false };
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        child.wait().unwrap().success()
    }

    fn shown() -> String {
        let Read { mut ruleset, skipped, .. } = ruleset().unwrap();
        legacy(&Root::host(), &mut ruleset).unwrap();
        let listing = listing(ItemKind::Firewall, ruleset.into_items(), skipped);
        assert_eq!(listing.skipped, 0);
        let mut shown = String::new();
        for (item, reading) in listing.items {
            shown += &format!("{item}\n");
            for (name, value) in reading.fields {
                shown += &format!("    {name}: {value}\n");
            }
        }
        shown
    }

    #[test]
    fn rules_that_nft_loaded_are_told_in_its_words() {
        let shown = apart("rules_that_nft_loaded_are_told_in_its_words", || nft(&format!("flush ruleset\n{RULES}")).then(shown));
        match shown {
            Some(Some(shown)) => insta::assert_snapshot!(shown),
            Some(None) => super::super::skipped("rules_that_nft_loaded_are_told_in_its_words", "the kernel lacks some of the expressions"),
            None => {}
        }
    }

    #[test]
    fn rules_of_iptables_legacy_are_told_as_it_lists_them() {
        let test = "rules_of_iptables_legacy_are_told_as_it_lists_them";
        const RULES: &[&str] = &[
            "iptables-legacy -N own",
            "iptables-legacy -P FORWARD DROP",
            "iptables-legacy -A INPUT -i lo -j ACCEPT",
            "iptables-legacy -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "iptables-legacy -A INPUT -s 10.0.0.0/8 ! -d 10.1.2.3 -i eth+ -p tcp --dport 22 -m comment --comment ssh -j ACCEPT",
            "iptables-legacy -A INPUT -p udp --sport 1:2 ! --dport 53 -g own",
            "iptables-legacy -A INPUT -p icmp -m limit --limit 5/s",
            "iptables-legacy -A own -f -j RETURN",
            "iptables-legacy -A own -j LOG --log-prefix x",
            "iptables-legacy -A FORWARD -j own",
            "ip6tables-legacy -A OUTPUT -d fe80::/10 -o eth0 -p tcp -j DROP",
        ];
        let run = |command: &&str| {
            let mut words = command.split(' ');
            Command::new(words.next().unwrap()).args(words).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        match apart(test, || (nft("flush ruleset") && RULES.iter().all(run)).then(shown)) {
            Some(Some(shown)) => insta::assert_snapshot!(shown),
            Some(None) => super::super::skipped(test, "there is no iptables-legacy, or the kernel lacks it"),
            None => {}
        }
    }

    #[test]
    fn a_ruleset_loaded_again_is_the_same_and_a_rule_inserted_is_one_that_comes() {
        let test = "a_ruleset_loaded_again_is_the_same_and_a_rule_inserted_is_one_that_comes";
        const LOAD: &str = "flush ruleset
            table ip f {
              set s { type inet_service; elements = { 1, 2 }
              }
              chain c {
                tcp dport { 1, 2 } accept
                counter
                tcp dport 22 accept
                jump {
                  drop
                }
              }
            }
            ";
        let Some((first, again, inserted)) = apart(test, || {
            assert!(nft(LOAD));
            let first = shown();
            assert!(nft(LOAD));
            let again = shown();
            assert!(nft("insert rule ip f c ip saddr 10.0.0.0/8 drop"));
            (first, again, shown())
        }) else {
            return;
        };
        assert_eq!(first, again);
        let added: Vec<&str> = inserted.lines().filter(|line| !first.lines().any(|other| other == *line)).collect();
        let drop = "ip saddr 10.0.0.0/8 drop";
        assert_eq!(added, [format!("firewall:rule ip f c {drop}"), format!("    rule: {drop}"), format!("    after: {drop}")]);
    }

    #[test]
    fn a_kernel_that_has_not_loaded_it_is_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        assert!(is_present(&root).unwrap(), "no modules at all");
        std::fs::create_dir_all(root.path("/proc/sys/kernel")).unwrap();
        std::fs::create_dir_all(root.path("/lib/modules/6.1.0")).unwrap();
        std::fs::write(root.path("/proc/sys/kernel/osrelease"), "6.1.0\n").unwrap();
        std::fs::write(root.path("/proc/modules"), "nf_tables_x 1 0 - Live 0x0\next4 1 0 - Live 0x0\n").unwrap();
        assert!(!is_present(&root).unwrap());
        std::fs::write(root.path("/lib/modules/6.1.0/modules.builtin"), "kernel/net/netfilter/nf_tables.ko\n").unwrap();
        assert!(is_present(&root).unwrap());
        std::fs::remove_file(root.path("/lib/modules/6.1.0/modules.builtin")).unwrap();
        std::fs::write(root.path("/proc/modules"), "ext4 1 0 - Live 0x0\nnf_tables 376832 3 nft_ct, Live 0x0\n").unwrap();
        assert!(is_present(&root).unwrap());
    }
}
