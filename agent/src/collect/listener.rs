//! Sockets that wait for others: of TCP those that listen, of UDP those bound to a port and to nobody, in the host's network namespace.
//!
//! An item is a protocol, an address and a port; of several sockets on one the process with the lowest number counts. Ports that the
//! kernel gives out for a moment (UDP's of its range for outgoing traffic) are left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use trueline_drift::{FieldName, Fields, ItemKind, Value};

use super::holders::{Holder, Holders, Known};
use super::{CollectError, Collector, Listing, Root, listing};

/// The kernel tells of no socket.
const POLL: Duration = Duration::from_secs(30);

/// By protocol; the first process's namespace is the host's.
const TABLES: [(&str, &str); 4] =
    [("tcp", "/proc/1/net/tcp"), ("tcp", "/proc/1/net/tcp6"), ("udp", "/proc/1/net/udp"), ("udp", "/proc/1/net/udp6")];

/// Bytes of a table that are read: some 100,000 sockets. Those of TCP that listen come first.
const TABLE_LIMIT: u64 = 16 << 20;
const SOCKETS_LIMIT: usize = 10_000;
const LISTENING: &str = "0A";
/// Of UDP: bound, and not to one peer.
const UNCONNECTED: &str = "07";

const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::Listener, sources: &[], poll: Some(POLL), read: |place| read_all(place.root, place.holders) };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    protocol: &'static str,
    address: SocketAddr,
    uid: u32,
    inode: u64,
}

fn read_all(root: &Root, holders: &Holders) -> Result<Listing, CollectError> {
    let outgoing = outgoing_ports(&root.read(OUTGOING, 4096).ok().flatten().unwrap_or_default());
    let (mut sockets, mut skipped) = (Vec::new(), 0);
    for (protocol, path) in TABLES {
        let file = match File::open(root.path(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(CollectError::database(path, &error)),
        };
        skipped += table(BufReader::new(file.take(TABLE_LIMIT)), protocol, &outgoing, &mut sockets);
    }
    let holders = holders.of(sockets.iter().map(|socket| socket.inode).filter(|inode| *inode != 0).collect());
    Ok(listing(ItemKind::Listener, items(&sockets, &holders), skipped))
}

/// The sockets of one table that wait for others; how many lines made no sense.
fn table(mut lines: impl BufRead, protocol: &'static str, outgoing: &std::ops::RangeInclusive<u16>, sockets: &mut Vec<Socket>) -> u64 {
    let (mut skipped, mut line, mut is_first) = (0, String::new(), true);
    while sockets.len() < SOCKETS_LIMIT {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) if std::mem::take(&mut is_first) => continue,
            Ok(_) => {}
        }
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let (Some(local), Some(state), Some(uid), Some(inode)) = (columns.get(1), columns.get(3), columns.get(7), columns.get(9)) else {
            skipped += 1;
            continue;
        };
        match (protocol, *state) {
            ("tcp", LISTENING) | ("udp", UNCONNECTED) => {}
            // Those that listen are before all others.
            ("tcp", _) => break,
            _ => continue,
        }
        let (Some(address), Ok(uid), Ok(inode)) = (address(local), uid.parse(), inode.parse()) else {
            skipped += 1;
            continue;
        };
        if protocol == "udp" && outgoing.contains(&address.port()) {
            continue;
        }
        sockets.push(Socket { protocol, address, uid, inode });
    }
    skipped
}

/// `0100007F:0016`: words of the machine's order, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (part, at) in bytes.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                part.copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// `32768 60999`, with a tab between; where it cannot be read, as the kernel has it by itself.
fn outgoing_ports(text: &[u8]) -> std::ops::RangeInclusive<u16> {
    let text = String::from_utf8_lossy(text);
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse::<u16>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 32768..=60999,
    }
}

fn items(sockets: &[Socket], holders: &Known) -> BTreeMap<Vec<u8>, Fields> {
    let mut ordered: Vec<(&Socket, Option<&Holder>)> = sockets.iter().map(|socket| (socket, holders.get(&socket.inode))).collect();
    ordered.sort_by_key(|(socket, holder)| (holder.map_or(u32::MAX, |holder| holder.pid), socket.inode));
    let mut items = BTreeMap::new();
    for (socket, holder) in ordered {
        items.entry(format!("{} {}", socket.protocol, socket.address).into_bytes()).or_insert_with(|| {
            let mut fields = Fields::new();
            let mut set = |name, value| fields.set(FieldName::known(name), value);
            set("protocol", Value::text(socket.protocol));
            set("address", Value::text(&socket.address.ip().to_string()));
            set("port", Value::Integer(i64::from(socket.address.port())));
            set("uid", Value::Integer(i64::from(socket.uid)));
            if let Some(program) = holder.and_then(|holder| holder.program.as_deref()) {
                set("process", Value::bytes(program.as_bytes()));
            }
            if let Some(unit) = holder.and_then(|holder| holder.unit.as_deref()) {
                set("unit", Value::text(unit));
            }
            fields
        });
    }
    items
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;
    use crate::collect::skipped;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, state: &str, uid: u32, inode: u64) -> String {
        format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:5}        0 {inode} 1 0000 100 0 0 10 0\n")
    }

    /// A host whose sshd, a service, listens on both protocols of the internet, and resolved on UDP.
    fn host() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let established = line("0100007F:0016", "01", 0, 99);
        write("proc/1/net/tcp", &[HEAD, &line("00000000:0016", "0A", 0, 11), &line("0100007F:1538", "0A", 114, 12), &established].concat());
        write("proc/1/net/tcp6", &[HEAD, &line("00000000000000000000000000000000:0016", "0A", 0, 13)].concat());
        write("proc/1/net/udp", &[HEAD, &line("3500007F:0035", "07", 101, 14), &line("00000000:9C40", "07", 0, 15)].concat());
        write("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        for (pid, descriptor, inode) in [(700, "3", 11), (700, "4", 13), (900, "3", 11), (800, "7", 14)] {
            write(&format!("proc/{pid}/cgroup"), &format!("0::/system.slice/{}.service\n", if pid == 800 { "dns" } else { "ssh" }));
            let fd = folder.path().join(format!("proc/{pid}/fd"));
            std::fs::create_dir_all(&fd).unwrap();
            symlink(format!("socket:[{inode}]"), fd.join(descriptor)).unwrap();
            let _ = symlink("/usr/sbin/sshd", folder.path().join(format!("proc/{pid}/exe")));
        }
        let root = Root::at(folder.path());
        (folder, root)
    }

    #[test]
    fn who_listens_where_is_told_and_what_is_of_a_moment_is_not() {
        let (_folder, root) = host();
        let listing = read_all(&root, &Holders::here(root.clone())).unwrap();
        let shown: Vec<String> =
            listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect();
        assert_eq!(
            shown,
            [
                r#"listener:tcp 0.0.0.0:22 {"address":"0.0.0.0","port":22,"process":"/usr/sbin/sshd","protocol":"tcp","uid":0,"unit":"ssh.service"}"#,
                r#"listener:tcp 127.0.0.1:5432 {"address":"127.0.0.1","port":5432,"protocol":"tcp","uid":114}"#,
                r#"listener:tcp [::]:22 {"address":"::","port":22,"process":"/usr/sbin/sshd","protocol":"tcp","uid":0,"unit":"ssh.service"}"#,
                r#"listener:udp 127.0.0.53:53 {"address":"127.0.0.53","port":53,"process":"/usr/sbin/sshd","protocol":"udp","uid":101,"unit":"dns.service"}"#,
            ]
        );
        assert_eq!(listing.skipped, 0);
    }

    #[test]
    fn this_machines_listeners_can_be_read() {
        const TEST: &str = "this_machines_listeners_can_be_read";
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let item = format!("listener:tcp {}", socket.local_addr().unwrap());
        let listing = match read_all(&Root::host(), &Holders::here(Root::host())) {
            Ok(listing) => listing,
            Err(error) => return skipped(TEST, &format!("the first process's sockets cannot be read: {error}")),
        };
        let found = listing.items.iter().find(|(found, _)| found.to_string() == item);
        let Some((_, reading)) = found else { return skipped(TEST, "the first process has another network") };
        let own = std::env::current_exe().unwrap();
        assert_eq!(reading.fields.value("process"), Some(&Value::text(own.to_str().unwrap())));
    }

    proptest! {
        #[test]
        fn hostile_tables_never_panic(text in "([0-9A-F: \n]{0,300})", local in "[0-9A-F:]{0,40}") {
            let mut sockets = Vec::new();
            table(text.as_bytes(), "tcp", &(1..=2), &mut sockets);
            table(format!("{HEAD}{}", line(&local, "07", 0, 1)).as_bytes(), "udp", &(1..=2), &mut sockets);
            let _ = address(&local);
        }
    }
}
