use proptest::prelude::*;

use super::*;

fn information(kind: u8, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let mut out = vec![kind, 0];
    out.extend(((HEADER + padded) as u16).to_ne_bytes());
    out.extend(body);
    out.resize(HEADER + padded, 0);
    out
}

fn named(handle: &[u8], name: &[u8]) -> Vec<u8> {
    let mut body = vec![7; 8];
    body.extend((handle.len() as u32).to_ne_bytes());
    body.extend(1i32.to_ne_bytes());
    body.extend(handle);
    body.extend(name);
    body.push(0);
    information(libc::FAN_EVENT_INFO_TYPE_DFID_NAME, &body)
}

fn event(mask: u64, pid: i32, records: &[Vec<u8>]) -> Vec<u8> {
    let records = records.concat();
    let mut out = ((METADATA + records.len()) as u32).to_ne_bytes().to_vec();
    out.extend([LAYOUT_VERSION, 0]);
    out.extend((METADATA as u16).to_ne_bytes());
    out.extend(mask.to_ne_bytes());
    out.extend((-1i32).to_ne_bytes());
    out.extend(pid.to_ne_bytes());
    out.extend(records);
    out
}

fn pidfd(fd: i32) -> Vec<u8> {
    information(libc::FAN_EVENT_INFO_TYPE_PIDFD, &fd.to_ne_bytes())
}

#[test]
fn names_handles_and_pidfds_are_found_whatever_stands_between() {
    let unknown = information(99, b"something new");
    let bytes = [
        event(libc::FAN_CREATE, 12, &[unknown, named(b"handle!!", b"a\nb\xff"), pidfd(9)]),
        event(libc::FAN_ATTRIB | libc::FAN_ONDIR, 13, &[named(b"handle2!", b"."), pidfd(libc::FAN_NOPIDFD)]),
        event(libc::FAN_Q_OVERFLOW, 0, &[]),
    ]
    .concat();
    let records: Vec<_> = parse(&bytes).map(Result::unwrap).collect();
    let entry = records[0].entry.unwrap();
    assert_eq!((entry.filesystem, entry.name), ([7; 8], Some(&b"a\nb\xff"[..])));
    assert_eq!(entry.folder, [&8u32.to_ne_bytes()[..], &1i32.to_ne_bytes(), b"handle!!"].concat());
    assert_eq!((records[0].pid, records[0].pidfd), (12, 9));
    assert_eq!((records[1].entry.unwrap().name, records[1].pidfd), (None, libc::FAN_NOPIDFD));
    assert!(records[2].overflowed());
    assert_eq!(records.len(), 3);
}

#[test]
fn bytes_cut_at_any_length_never_yield_a_wrong_name() {
    let first = event(libc::FAN_CREATE, 12, &[named(b"handle!!", b"first"), pidfd(9)]);
    let bytes = [first.clone(), event(libc::FAN_DELETE, 13, &[named(b"handle!!", b"second"), pidfd(10)])].concat();
    for length in 0..bytes.len() {
        let whole = parse(&bytes[..length]).filter_map(Result::ok).count();
        assert_eq!(whole, usize::from(length >= first.len()), "cut at {length}");
    }
}

#[test]
fn a_length_that_lies_ends_the_reading() {
    let mut bytes = event(libc::FAN_CREATE, 12, &[named(b"handle!!", b"x")]);
    bytes[0] = 0;
    assert!(matches!(parse(&bytes).collect::<Vec<_>>()[..], [Err(ParseError::Length { .. })]));
    let mut bytes = event(libc::FAN_CREATE, 12, &[named(b"handle!!", b"x")]);
    bytes[METADATA + HEADER + 8] = 0xff;
    assert_eq!(parse(&bytes).next().unwrap().unwrap().entry, None);
    let mut bytes = event(libc::FAN_CREATE, 12, &[]);
    bytes[4] = 2;
    assert_eq!(parse(&bytes).next(), Some(Err(ParseError::Version { at: 0, version: 2 })));
}

proptest! {
    #[test]
    fn random_bytes_neither_panic_nor_loop(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(parse(&bytes).count() <= bytes.len() / METADATA + 1);
    }

    #[test]
    fn a_damaged_byte_neither_panics_nor_loops(at in 0usize..100, value: u8) {
        let mut bytes = [event(libc::FAN_CREATE, 12, &[named(b"handle!!", b"name"), pidfd(9)]), event(libc::FAN_DELETE, 1, &[])].concat();
        let length = bytes.len();
        bytes[at % length] = value;
        prop_assert!(parse(&bytes).count() <= length / METADATA + 1);
    }
}
