//! A spool over files that anything may have happened to: it opens, what it holds is whole and in order,
//! it takes new records after it, and opening it again finds nothing more to mend.
#![no_main]

use std::path::Path;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trueline_agent::spool::{Spool, SpoolError, SpoolLimit};
use trueline_drift::{Epoch, RecordBody, Sequence, Time};
use trueline_proto::ChainLink;
use trueline_proto::frame::FrameEncoder;
use trueline_proto::v1;

const LIMIT: SpoolLimit = SpoolLimit { bytes: 16 << 20, segment_bytes: 4096 };

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    segments: Vec<Segment<'a>>,
    position: Option<(u64, u64)>,
    known: Option<(u8, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Segment<'a> {
    /// Of the file's name, and of its header.
    first: (u64, u64),
    epoch: u8,
    parts: Vec<Part<'a>>,
}

/// What a segment holds behind its header.
#[derive(Arbitrary, Debug)]
enum Part<'a> {
    /// A frame that continues the chain.
    Good(u8),
    /// A frame with a right checksum and fields that nobody wrote.
    Odd {
        first: u64,
        append: u64,
        count: u32,
        payload: &'a [u8],
    },
    Noise(&'a [u8]),
    /// Takes bytes from the end of what there is so far.
    Torn(u16),
}

fuzz_target!(|input: Input<'_>| {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a temporary folder");
    lay_out(folder.path(), &input);
    let known = input.known.map(|(epoch, sequence)| (Epoch(epoch.into()), Sequence(sequence.into())));

    let (spool, _) = open(folder.path(), known);
    let newest = check(&spool);
    if newest.0 == u64::MAX / 2 {
        return;
    }
    let body = RecordBody::InventoryComplete { items: 7, observed_at: Time::from_micros(7) };
    assert_eq!(spool.append(vec![body.clone()]).expect("there is room"), newest.next());
    let epoch = spool.epoch();
    drop(spool);

    let (spool, clean) = open(folder.path(), Some((epoch, newest.next())));
    assert!(clean, "what opening mended needs no mending again");
    assert_eq!((spool.epoch(), spool.newest()), (epoch, newest.next()));
    assert_eq!(check(&spool), newest.next());
    let last = spool.records_after(newest).next().expect("it was appended").expect("and synced");
    assert_eq!(last, (newest.next(), body));
});

fn open(folder: &Path, known: Option<(Epoch, Sequence)>) -> (Spool, bool) {
    let (spool, recovery) = Spool::open(folder, LIMIT, known, || Epoch(1)).expect("damage is mended, not refused");
    assert_eq!((recovery.epoch, recovery.newest), (spool.epoch(), spool.newest()));
    (spool, recovery.truncated_bytes == 0 && recovery.damaged.is_none() && !recovery.renumbered)
}

/// Verifies numbers and chain as a collector does; the newest record.
fn check(spool: &Spool) -> Sequence {
    let (mut next, mut link) = (spool.oldest(), None::<ChainLink>);
    loop {
        let frames = spool.frames_after(Sequence(next.0 - 1), 2000).expect("what opening found readable is");
        if frames.is_empty() {
            break;
        }
        for frame in frames {
            assert_eq!(frame.first_sequence, next.0, "no hole and no repeat");
            let first = Sequence(frame.first_sequence);
            let told = ChainLink::from_bytes(&frame.link).expect("a link has 32 bytes");
            if let Some(link) = link {
                assert_eq!(link.next(spool.epoch(), first, frame.count, &frame.payload), told);
            }
            link = Some(told);
            next = first.plus(u64::from(frame.count));
        }
    }
    assert_eq!(next, spool.newest().next());
    // A frame with a right checksum may still hold no records: told, not passed over.
    for record in spool.records_after(Sequence(spool.oldest().0 - 1)) {
        if let Err(error) = record {
            assert!(matches!(error, SpoolError::Frame(_)), "{error}");
        }
    }
    spool.newest()
}

fn lay_out(folder: &Path, input: &Input<'_>) {
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).expect("writing a file");
    if let Some((epoch, acknowledged)) = input.position {
        let fields = [(epoch % 3).to_le_bytes(), acknowledged.to_le_bytes()].concat();
        write(&folder.join("position"), &sealed(b"TLSPPOS\0", &fields));
    }
    for segment in input.segments.iter().take(8) {
        let place = folder.join(format!("epoch-{:020}", segment.epoch % 3));
        std::fs::create_dir_all(&place).expect("making a folder");
        write(&place.join(format!("{:020}.seg", segment.first.0)), &segment.bytes());
    }
}

impl Segment<'_> {
    fn bytes(&self) -> Vec<u8> {
        let (epoch, first) = (u64::from(self.epoch % 3), self.first.1);
        let mut fields = [epoch.to_le_bytes(), first.to_le_bytes()].concat();
        fields.extend([0; 32]);
        let mut bytes = sealed(b"TLSPOOL\0", &fields);
        let (mut next, mut link) = (Sequence(first), ChainLink::START);
        for part in self.parts.iter().take(16) {
            match part {
                Part::Good(count) => {
                    let count = u32::from(*count % 8) + 1;
                    let payload = payload(count);
                    link = link.next(Epoch(epoch), next, count, &payload);
                    bytes.extend(frame(next.0, next.0, count, &link, &payload));
                    next = Sequence(next.0.saturating_add(count.into()));
                }
                Part::Odd { first, append, count, payload } => {
                    let odd = link.next(Epoch(epoch), Sequence(*first), *count, payload);
                    bytes.extend(frame(*first, *append, *count, &odd, payload));
                    if *first == next.0 {
                        (next, link) = (Sequence(first.saturating_add((*count).into())), odd);
                    }
                }
                Part::Noise(noise) => bytes.extend(*noise),
                Part::Torn(torn) => bytes.truncate(bytes.len().saturating_sub((*torn).into())),
            }
        }
        bytes
    }
}

fn payload(count: u32) -> Vec<u8> {
    let body = RecordBody::InventoryComplete { items: 1, observed_at: Time::from_micros(1) };
    let records = vec![v1::Record::from(body); count as usize];
    FrameEncoder::new().and_then(|mut encoder| encoder.encode(&v1::Records { records })).expect("compressing in memory")
}

/// Magic, version, fields, checksum: the form of the header and of the position.
fn sealed(magic: &[u8; 8], fields: &[u8]) -> Vec<u8> {
    let mut bytes = [&magic[..], &1_u32.to_le_bytes(), fields].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn frame(first: u64, append: u64, count: u32, link: &ChainLink, payload: &[u8]) -> Vec<u8> {
    let mut rest = first.to_le_bytes().to_vec();
    rest.extend(count.to_le_bytes());
    rest.extend(append.to_le_bytes());
    rest.extend(link.0);
    rest.extend(payload);
    let length = (payload.len() as u32).to_le_bytes();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(&rest);
    [&length[..], &hasher.finalize().to_le_bytes(), &rest].concat()
}
