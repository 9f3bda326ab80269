//! Whose turn it is to speak as a host: the lives of its agent, and two machines with one identity told from one that
//! comes back.
//!
//! A *life* is one run of the agent's process, by the random id that it drew when it started; of an agent too old to say
//! one, a boot of its machine. A host's identity is on its disk, and so is that of a copy made after it was enrolled; a
//! life cannot be copied with a disk.
//!
//! What follows from what a stream says of its life:
//!
//! - *The same life as the one connected*: it lost its connection, which may not be known here yet. It takes its own
//!   stream over.
//! - *A life never heard of*: a restart, a reboot, or a twin. Nothing that can be said now tells these apart, for the
//!   connection of the life before may be half dead in each. So it takes over. An agent that was started anew is never kept
//!   out, not even for the time that a dead connection takes to be found dead.
//! - *A life that another one followed*: a life that ended never speaks again. Where the other one is gone, it is let in:
//!   one machine at a time is no harm. Where the other one is connected, both live, and are two. It is turned away, for
//!   each would take over from the other without end; and the one that stays keeps the stream that it has. At its first
//!   attempt it is not accused yet: that may be a Hello of before its end which arrives late, and a process that has ended
//!   makes no second.
//!
//! So of two machines the one that came last stays, until it ends or the other's agent is started anew; each is told, and
//! the host is in trouble for as long as one of them keeps trying.
//!
//! What is not seen: a machine copied with its memory while it runs has one life on both sides, and the two take over each
//! other's stream. A machine set back, memory and all, to before its agent was last started anew is taken for a twin until the
//! connection of its later life is found dead. What is known here ends with the collector and is not shared by several.
//!
//! Pure: time is an argument.

use std::collections::VecDeque;

use trueline_drift::Time;
use trueline_proto::RunId;

/// Lives remembered of a host beside its latest.
const LIVES: usize = 64;
/// A twin tries again within a minute; for so long it counts as there.
const TWIN_SECONDS: i64 = 300;

/// Who is at the other end of a stream, as far as it told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    run: Option<RunId>,
    boot_id: Option<String>,
}

impl Life {
    /// `None` of an agent that tells neither: it is accused of nothing.
    pub fn told(run: Option<RunId>, boot_id: Option<&str>) -> Option<Self> {
        (run.is_some() || boot_id.is_some()).then(|| Self { run, boot_id: boot_id.map(str::to_owned) })
    }

    fn is(&self, other: &Self) -> bool {
        match (self.run, other.run) {
            (Some(run), Some(other)) => run == other,
            (None, None) => self.boot_id == other.boot_id,
            // An agent of another version: it was exchanged.
            _ => false,
        }
    }

    /// Whether this one and another that is connected cannot be one agent's, should this one have come before. Two runs
    /// cannot; of an agent that tells no run, two on one boot may: it was exchanged for an older one.
    fn excludes(&self, connected: Option<&Self>) -> bool {
        let Some(connected) = connected else { return true };
        !self.is(connected) && (self.run.is_some() || self.boot_id != connected.boot_id)
    }
}

/// Two machines speak as one host: a disk that was copied after its host was enrolled.
#[derive(Debug, PartialEq, Eq)]
pub struct Twin {
    /// Nobody was told of it lately.
    pub is_news: bool,
}

/// A life that another one followed.
#[derive(Debug)]
struct Past {
    life: Life,
    /// Turned away since.
    is_back: bool,
}

/// Those of one host.
#[derive(Debug, Default)]
pub struct Lives {
    latest: Option<Life>,
    /// The one that was last heard of last.
    past: VecDeque<Past>,
    /// When one of two machines was last turned away.
    twin_at: Option<Time>,
}

impl Lives {
    /// Whether this life may speak, while a stream of `connected` is there: a stream of an agent that tells nothing where
    /// that is `Some(None)`. From then on it is the latest.
    pub fn admit(&mut self, life: &Life, connected: Option<Option<&Life>>, now: Time) -> Result<(), Twin> {
        let past = self.past.iter().position(|past| past.life.is(life)).and_then(|at| self.past.remove(at));
        if let Some(Past { life: known, is_back }) = past
            && connected.is_some_and(|connected| life.excludes(connected))
        {
            self.remember(Past { life: known, is_back: true });
            return Err(Twin { is_news: is_back && self.accuse(now) });
        }
        if let Some(before) = self.latest.replace(life.clone())
            && !before.is(life)
        {
            self.remember(Past { life: before, is_back: false });
        }
        Ok(())
    }

    pub fn has_twin(&self, now: Time) -> bool {
        self.twin_at.is_some_and(|at| now < at.plus_seconds(TWIN_SECONDS))
    }

    /// Whether that is news.
    fn accuse(&mut self, now: Time) -> bool {
        let is_news = !self.has_twin(now);
        self.twin_at = Some(now);
        is_news
    }

    fn remember(&mut self, past: Past) {
        self.past.push_back(past);
        if self.past.len() > LIVES {
            self.past.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_seconds(1_000);

    fn run(number: u8) -> Life {
        Life::told(Some(RunId::new([number; 16])), Some("one kernel")).unwrap()
    }

    fn boot(id: &str) -> Life {
        Life::told(None, Some(id)).unwrap()
    }

    /// A host at the collector: its lives and which of them is connected.
    #[derive(Default)]
    struct Host {
        lives: Lives,
        connected: Option<Life>,
    }

    impl Host {
        fn says(&mut self, life: &Life) -> Result<(), Twin> {
            self.says_at(life, NOW)
        }

        fn says_at(&mut self, life: &Life, now: Time) -> Result<(), Twin> {
            let connected = self.connected.as_ref().map(Some);
            self.lives.admit(life, connected, now).inspect(|()| self.connected = Some(life.clone()))
        }
    }

    #[test]
    fn restarts_reboots_and_lost_connections_take_over_at_once() {
        let mut host = Host::default();
        for life in [run(1), run(1), run(2), run(2), run(3), boot("a"), boot("a"), boot("b"), run(4)] {
            assert_eq!(host.says(&life), Ok(()), "{life:?}");
        }
        assert!(!host.lives.has_twin(NOW));
    }

    #[test]
    fn a_life_that_was_taken_over_and_comes_back_twice_is_another_machine() {
        for (original, copy) in [(run(1), run(2)), (boot("a"), boot("b"))] {
            let mut host = Host::default();
            host.says(&original).unwrap();
            host.says(&copy).expect("nobody can tell it from a restart");
            assert_eq!(host.says(&original), Err(Twin { is_news: false }), "it may have been sent before it ended");
            assert!(!host.lives.has_twin(NOW));
            assert_eq!(host.says(&original), Err(Twin { is_news: true }));
            for _ in 0..100 {
                assert_eq!(host.says(&original), Err(Twin { is_news: false }), "it was told");
                assert_eq!(host.says(&copy), Ok(()), "its own stream is its own");
            }
            let later = NOW.plus_seconds(TWIN_SECONDS);
            assert!(host.lives.has_twin(NOW) && !host.lives.has_twin(later));
            assert_eq!(host.says_at(&original, later), Err(Twin { is_news: true }), "it was away, and is there again");
        }
    }

    #[test]
    fn where_the_other_is_gone_a_twin_speaks_and_the_other_is_then_the_one_too_many() {
        let mut host = Host::default();
        host.says(&run(1)).unwrap();
        host.says(&run(2)).unwrap();
        host.says(&run(1)).unwrap_err();
        host.connected = None;
        assert_eq!(host.says(&run(1)), Ok(()));
        assert_eq!(host.says(&run(2)), Err(Twin { is_news: false }));
        assert_eq!(host.says(&run(2)), Err(Twin { is_news: true }));
    }

    #[test]
    fn a_twin_that_is_started_anew_takes_over_once_and_the_other_is_told() {
        let mut host = Host::default();
        host.says(&run(1)).unwrap();
        for copy in 2..=60 {
            assert_eq!(host.says(&run(copy)), Ok(()), "an agent started anew is never kept out");
            assert!(host.says(&run(1)).is_err() && host.says(&run(1)).is_err());
            assert!(host.says(&run(copy - 1)).is_err());
        }
        assert!(host.lives.has_twin(NOW));
    }

    #[test]
    fn agents_of_two_versions_on_one_boot_are_one_that_was_exchanged() {
        let mut host = Host::default();
        for life in [boot("one kernel"), run(1), boot("one kernel"), run(2), boot("one kernel")] {
            assert_eq!(host.says(&life), Ok(()), "{life:?}");
        }
        assert_eq!(host.says(&run(1)), Err(Twin { is_news: false }), "a run that ended does not come back");
        host.says(&boot("another")).unwrap();
        assert_eq!(host.says(&boot("one kernel")), Err(Twin { is_news: false }), "nor does a boot");
    }

    #[test]
    fn one_that_tells_nothing_is_accused_of_nothing_and_what_is_remembered_is_bounded() {
        assert_eq!(Life::told(None, None), None);
        let mut lives = Lives::default();
        lives.admit(&run(1), None, NOW).unwrap();
        lives.admit(&run(1), Some(None), NOW).expect("nobody else has told a life since");
        for number in 0..=u8::MAX {
            lives.admit(&run(number), None, NOW).unwrap();
        }
        assert_eq!(lives.past.len(), LIVES);
    }
}
