//! Messages between wire and domain: what the domain takes, it gives back, and takes again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use trueline_drift::{Facts, RecordBody};
use trueline_fuzz::{assert_shown, within};
use trueline_proto::frame::{FrameEncoder, decode};
use trueline_proto::v1;

const MEMORY: usize = 16 << 20;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = within(MEMORY, || v1::Record::decode(bytes)) {
        check_record(record);
    }
    if let Ok(message) = within(MEMORY, || v1::FromAgent::decode(bytes))
        && let Some(v1::from_agent::Message::Hello(hello)) = message.message
        && let Some(facts) = hello.facts
        && let Ok(facts) = Facts::try_from(facts)
    {
        assert_shown(&facts.hostname);
        assert_eq!(Facts::try_from(v1::Facts::from(facts.clone())).expect("it was taken before"), facts);
    }
    let _ = within(MEMORY, || v1::FromCollector::decode(bytes));
    let _ = within(MEMORY, || v1::EnrolRequest::decode(bytes));
});

fn check_record(record: v1::Record) {
    let Ok(body) = RecordBody::try_from(record) else { return };
    let wire = v1::Record::from(body.clone());
    assert_eq!(RecordBody::try_from(wire.clone()).expect("it was taken before"), body);
    let mut encoder = FrameEncoder::new().expect("a compressor");
    let payload = encoder.encode(&v1::Records { records: vec![wire] }).expect("compressing in memory");
    let frame = v1::Frame { first_sequence: 1, count: 1, payload: payload.into(), link: vec![0; 32].into() };
    assert_eq!(decode(&frame).expect("a frame of one good record"), [body]);
}
