//! Frames as they come off the wire: no payload makes the reader hold more than a bound, and what it
//! takes is within the frame's limits.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trueline_fuzz::within;
use trueline_proto::frame::{RECORDS_LIMIT, decode};
use trueline_proto::v1::Frame;

/// A decompressed frame, the buffer that grows to it, and the records made of it.
const MEMORY: usize = 64 << 20;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    count: u16,
    /// The payload is this many times the bytes, compressed by us; 0 takes the bytes for a payload as they are.
    repeats: u32,
    bytes: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let payload = match input.repeats % (1 << 21) {
        0 => input.bytes.to_vec(),
        repeats => {
            let most = (5 << 20) / input.bytes.len().max(1);
            let plain = input.bytes.repeat(most.min(repeats as usize));
            zstd::bulk::compress(&plain, 1).expect("compressing in memory")
        }
    };
    let frame = Frame { first_sequence: 1, count: input.count.into(), payload: payload.into(), link: vec![0; 32].into() };
    if let Ok(records) = within(MEMORY, || decode(&frame)) {
        assert_eq!(records.len(), usize::from(input.count));
        assert!((1..=RECORDS_LIMIT).contains(&records.len()));
    }
});
