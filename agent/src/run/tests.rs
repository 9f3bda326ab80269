use trueline_drift::{Epoch, Sequence};

use super::*;
use crate::spool::{Lost, SpoolLimit};

#[test]
fn a_gap_says_what_went_back_or_what_was_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Spool::open(folder.path(), SpoolLimit::default(), None, || Epoch(1)).unwrap();
    let (spool, _) = open();
    spool.begin_anew_after(Epoch(7)).unwrap();
    drop(spool);
    let (spool, recovery) = open();
    assert!(spool.epoch() > Epoch(7));
    assert_eq!(began_anew_for(&recovery), (GapReason::SetBack, None));
    let lost = vec![Lost { first: Sequence(3), last: Some(Sequence(5)) }];
    let damaged = Some(Damage { epoch: Epoch(1), lost, saved: 0 });
    for renumbered in [true, false] {
        let recovery = Recovery { damaged: damaged.clone(), renumbered, ..recovery.clone() };
        assert_eq!(began_anew_for(&recovery), (GapReason::SpoolDamaged, Some(3)), "numbers that do not fit are the lesser trouble");
    }
}
