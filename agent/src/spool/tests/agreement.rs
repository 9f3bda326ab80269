//! Whatever happens to a spool, it agrees with a list.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append { records: usize, bytes: usize },
    Acknowledge { share: u64 },
    Apply { share: u64 },
    Reopen,
    Crash { torn: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1usize..6, 0usize..1500).prop_map(|(records, bytes)| Step::Append { records, bytes }),
        2 => (0u64..=100).prop_map(|share| Step::Acknowledge { share }),
        2 => (0u64..=100).prop_map(|share| Step::Apply { share }),
        1 => Just(Step::Reopen),
        1 => (0u64..200).prop_map(|torn| Step::Crash { torn }),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against a list of what was appended: whatever happens, unacknowledged records come back, in order, unaltered.
    #[test]
    fn the_spool_agrees_with_a_list(steps in steps()) {
        let mut home = tempfile::tempdir().unwrap();
        let mut spool = open(home.path()).0;
        let mut list: Vec<RecordBody> = Vec::new();
        let (mut acknowledged, mut applied, mut released) = (0u64, 0u64, 0u64);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append { records, bytes } => {
                    let batch: Vec<_> = (0..records).map(|at| bulky((number * 10 + at) as u64, bytes)).collect();
                    list.extend(batch.clone());
                    prop_assert_eq!(spool.append(batch).unwrap().0, list.len() as u64);
                }
                Step::Acknowledge { share } => {
                    acknowledged = acknowledged.max(list.len() as u64 * share / 100);
                    spool.acknowledge(Sequence(acknowledged)).unwrap();
                }
                Step::Apply { share } => {
                    applied = applied.max(list.len() as u64 * share / 100);
                    spool.mark_applied(Sequence(applied)).unwrap();
                }
                Step::Reopen | Step::Crash { .. } => {
                    if let Step::Crash { torn } = step {
                        let copy = crashed(home.path());
                        drop(spool);
                        home = copy;
                        let folder = format::epoch_folder(home.path(), Epoch(1));
                        let mut segments: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
                        segments.sort();
                        // An append that was under way: a frame begun, not ended.
                        use std::io::Write;
                        let mut file = std::fs::OpenOptions::new().append(true).open(segments.last().unwrap()).unwrap();
                        file.write_all(&vec![0x41; torn as usize]).unwrap();
                    } else {
                        drop(spool);
                    }
                    let (again, recovery) = open(home.path());
                    prop_assert_eq!(recovery.damaged, None);
                    prop_assert_eq!(recovery.newest.0, list.len() as u64);
                    prop_assert!(recovery.acknowledged.0 <= acknowledged);
                    acknowledged = recovery.acknowledged.0;
                    applied = 0;
                    spool = again;
                }
            }
            released = released.max(acknowledged.min(applied));
            prop_assert!(spool.oldest().0 <= released + 1);
            let held = records(&spool, spool.oldest().0 - 1);
            let expected: Vec<_> = (spool.oldest().0..=list.len() as u64).map(|at| (at, list[at as usize - 1].clone())).collect();
            prop_assert_eq!(held, expected);
        }
        let oldest = spool.oldest();
        let frames = all_frames(&spool);
        if oldest == Sequence(1) {
            verify(Epoch(1), ChainLink::START, &frames);
        }
    }
}
