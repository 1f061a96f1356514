//! When a region may forget that an item was deleted.
//!
//! A deleted item stays as a tombstone: without it, an older version that arrives late would bring the item back, and a
//! version that somebody wrote without knowing of the delete would win here and lose elsewhere. So a tombstone may go when
//! neither can arrive any more:
//!
//! 1. Look at what every region has seen. `known` is what all of them have seen, `accepted` is what there was to see.
//! 2. Once every region has seen `accepted`, all deletes up to `known` can go, in every region, at any time.
//!
//! Every region had seen a delete up to `known` when it was looked at, so what it accepts afterwards replaces that delete,
//! here and everywhere. What it had accepted before is part of `accepted`, and so is everything that the delete replaces:
//! who has seen `accepted` gets none of it again. So from then on it makes no difference whether a region still has the
//! tombstone, and regions need not forget it at the same time. Nor does it to a version that is written then: its context
//! is what its region has seen, which includes what the tombstone had replaced.
//!
//! While a link is cut, its target does not see what was accepted, and nothing is forgotten. A region that is added has
//! seen all that was accepted, and one that was removed has left all it had.
//!
//! Readers need no tombstones. The change feed tells of no deletes; its mode of all versions and deletes has a history of
//! its own (see `MAX_HISTORY`), in place of the 7 or 30 days for which the service keeps the continuous backup behind it.
//! An item that expires is deleted like any other.

use crate::vector;

/// What was seen when somebody looked, and what is awaited since.
#[derive(Debug)]
struct Look {
    /// Of the account's membership.
    version: u64,
    known: Vec<u64>,
    accepted: Vec<u64>,
}

/// How far deletes can be forgotten.
#[derive(Debug, Default)]
pub(crate) struct Horizon {
    awaited: Option<Look>,
}

impl Horizon {
    /// Takes what every region of the account has seen; tells, per region, up to which of its mutations deletes can be
    /// forgotten, if there is more to forget than before.
    pub(crate) fn advance(&mut self, version: u64, seen: &[Vec<u64>]) -> Option<Vec<u64>> {
        let mut all = seen.iter();
        let first = all.next()?.clone();
        let known = all.fold(first, |known, seen| vector::least(&known, seen));
        // After a change of membership it starts again, so that both looks are at the same regions.
        let awaited = self.awaited.take().filter(|look| look.version == version);
        let (awaited, is_reached) = match awaited {
            Some(look) if !vector::reaches(&known, &look.accepted) => {
                self.awaited = Some(look);
                return None;
            }
            Some(look) => (look.known, true),
            None => (Vec::new(), false),
        };
        let mut accepted = Vec::new();
        for seen in seen {
            vector::raise(&mut accepted, seen);
        }
        self.awaited = Some(Look {
            version,
            known,
            accepted,
        });
        is_reached.then_some(awaited)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::record::{Record, context, is_forgettable, merge, tests::record, winner};

    #[test]
    fn a_delete_goes_when_nothing_from_before_it_was_known_can_arrive() {
        let mut horizon = Horizon::default();
        // The second region has not seen the first one's mutation 5; the first, not the second one's 3.
        assert_eq!(horizon.advance(1, &[vec![5, 2], vec![4, 3]]), None);
        assert_eq!(horizon.advance(1, &[vec![9, 2], vec![9, 3]]), None);
        let both = [vec![9, 3], vec![9, 3]];
        assert_eq!(horizon.advance(1, &both), Some(vec![4, 2]));
        assert_eq!(horizon.advance(1, &both), Some(vec![9, 3]));
        // With another region it starts again.
        let three = [vec![9, 3], vec![9, 3], vec![9, 3]];
        assert_eq!(horizon.advance(2, &three), None);
        assert_eq!(horizon.advance(2, &three), Some(vec![9, 3]));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A region accepts a write, or a delete.
        Accept { region: usize, rank: u8, put: bool },
        /// A link carries the next record of its source.
        Carry { from: usize, to: usize },
        /// Somebody looks at all regions.
        Look,
        /// A region forgets what it may.
        Forget { region: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let accept = (0usize..3, 0u8..3, any::<bool>())
            .prop_map(|(region, rank, put)| Step::Accept { region, rank, put });
        let carry = (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Carry { from, to });
        let forget = (0usize..3).prop_map(|region| Step::Forget { region });
        let step = prop_oneof![3 => accept, 9 => carry, 3 => Just(Step::Look), 2 => forget];
        prop::collection::vec(step, 1..80)
    }

    #[derive(Default)]
    struct Region {
        seen: Vec<u64>,
        /// With tombstones for ever, and without those that may go.
        remembering: Vec<Arc<Record>>,
        forgetting: Vec<Arc<Record>>,
        log: Vec<Arc<Record>>,
    }

    impl Region {
        fn apply(&mut self, record: &Arc<Record>) {
            vector::set(&mut self.seen, record.origin, record.number);
            merge(&mut self.remembering, Arc::clone(record));
            merge(&mut self.forgetting, Arc::clone(record));
        }

        /// What everybody sees.
        fn shown(siblings: &[Arc<Record>]) -> Option<&str> {
            let winner = winner(siblings).filter(|record| record.body.is_some());
            winner.map(|record| record.etag.as_str())
        }
    }

    fn carry(regions: &mut [Region; 3], from: usize, to: usize) -> bool {
        let next = usize::try_from(vector::at(&regions[to].seen, from)).expect("few");
        let Some(record) = regions[from].log.get(next).cloned().filter(|_| from != to) else {
            return false;
        };
        regions[to].apply(&record);
        true
    }

    fn look(regions: &[Region; 3], horizon: &mut Horizon, known: &mut Vec<u64>) {
        let seen = regions.each_ref().map(|region| region.seen.clone());
        if let Some(new) = horizon.advance(1, &seen) {
            *known = new;
        }
    }

    fn forget(region: &mut Region, known: &[u64]) {
        if is_forgettable(&region.forgetting, known, false) {
            region.forgetting.clear();
        }
    }

    proptest! {
        /// Who forgets shows at any time what he would show if he remembered; and in the end nobody remembers a delete.
        #[test]
        fn it_makes_no_difference_whether_a_delete_is_forgotten(steps in steps()) {
            let mut regions: [Region; 3] = Default::default();
            let (mut horizon, mut known) = (Horizon::default(), Vec::new());
            for step in steps {
                match step {
                    Step::Accept { region: index, rank, put } => {
                        let region = &mut regions[index];
                        let context = context(&region.seen, &region.forgetting);
                        let number = vector::at(&region.seen, index) + 1;
                        let mut record = record(index, number, [0; 3], f64::from(rank), put);
                        Arc::make_mut(&mut record).context = context;
                        region.log.push(Arc::clone(&record));
                        region.apply(&record);
                    }
                    Step::Carry { from, to } => {
                        carry(&mut regions, from, to);
                    }
                    Step::Look => look(&regions, &mut horizon, &mut known),
                    Step::Forget { region } => forget(&mut regions[region], &known),
                }
                for region in &regions {
                    let shown = Region::shown(&region.forgetting);
                    prop_assert_eq!(shown, Region::shown(&region.remembering));
                }
            }
            for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
                while carry(&mut regions, from, to) {}
            }
            for _ in 0..3 {
                look(&regions, &mut horizon, &mut known);
            }
            let expected = Region::shown(&regions[0].remembering).map(str::to_owned);
            for region in &mut regions {
                forget(region, &known);
                let shown = Region::shown(&region.forgetting).map(str::to_owned);
                prop_assert_eq!(&shown, &expected);
                prop_assert_eq!(region.forgetting.is_empty(), expected.is_none());
            }
        }
    }
}
