//! Physical partitions: how a container's effective partition keys are divided among partition key ranges.

use serde::{Deserialize, Serialize};

use crate::epk::{self, Hashing};

/// Ranges of a container, at the most.
const MAX_RANGES: usize = 1000;

/// One partition key range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    /// Never used again in this container.
    pub(crate) id: u32,
    /// The first effective partition key that is in.
    pub(crate) start: String,
    /// The first that is out.
    pub(crate) end: String,
    /// The ranges that this one was made of, oldest first: what it was divided from, or merged of, and theirs.
    pub(crate) parents: Vec<u32>,
}

/// The ranges of a container, in order and without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ranges {
    all: Vec<Range>,
    next_id: u32,
}

impl Ranges {
    /// As many ranges as asked for, of the same size.
    pub(crate) fn even(count: u32, hashing: Hashing) -> Self {
        let count = count.clamp(1, MAX_RANGES as u32);
        let border = |number: u32| match number {
            0 => epk::FIRST.to_owned(),
            number if number == count => epk::END.to_owned(),
            number => hashing.at(f64::from(number) / f64::from(count)),
        };
        let range = |number| Range {
            id: number,
            start: border(number),
            end: border(number + 1),
            parents: Vec::new(),
        };
        Self {
            all: (0..count).map(range).collect(),
            next_id: count,
        }
    }

    pub(crate) fn all(&self) -> &[Range] {
        &self.all
    }

    /// Grows with every split and merge.
    pub(crate) fn version(&self) -> u32 {
        self.next_id
    }

    /// The range with the text of this id, if it has been neither split nor merged.
    pub(crate) fn get(&self, id: &str) -> Option<&Range> {
        self.all.iter().find(|range| range.id.to_string() == id)
    }

    /// The range that an effective partition key is in.
    pub(crate) fn of(&self, epk: &str) -> &Range {
        let after = self
            .all
            .partition_point(|range| range.start.as_str() <= epk);
        // The first range starts with the smallest key.
        &self.all[after.saturating_sub(1)]
    }

    /// Divides a range in the middle; returns the ids of its halves. The error is for people.
    pub(crate) fn split(&mut self, id: &str, hashing: Hashing) -> Result<[u32; 2], String> {
        let at = self
            .all
            .iter()
            .position(|range| range.id.to_string() == id)
            .ok_or_else(|| format!("there is no partition key range {id:?}"))?;
        if self.all.len() >= MAX_RANGES {
            return Err(format!("a container has at most {MAX_RANGES} ranges"));
        }
        let range = self.all[at].clone();
        let place = |epk: &str| match epk {
            epk::FIRST => 0.0,
            epk::END => 1.0,
            epk => hashing.place(epk),
        };
        let middle = hashing.at((place(&range.start) + place(&range.end)) / 2.0);
        if middle <= range.start || middle >= range.end {
            return Err(format!(
                "the partition key range {id:?} is too small to split"
            ));
        }
        let mut parents = range.parents.clone();
        parents.push(range.id);
        let halves = [self.next_id, self.next_id + 1];
        self.next_id += 2;
        let half = |id, start: &str, end: &str| Range {
            id,
            start: start.to_owned(),
            end: end.to_owned(),
            parents: parents.clone(),
        };
        self.all.splice(
            at..=at,
            [
                half(halves[0], &range.start, &middle),
                half(halves[1], &middle, &range.end),
            ],
        );
        Ok(halves)
    }

    /// Makes one range of two that are next to each other; returns its id. The error is for people.
    pub(crate) fn merge(&mut self, ids: [&str; 2]) -> Result<u32, String> {
        let place = |id: &str| {
            let mut all = self.all.iter();
            all.position(|range| range.id.to_string() == id)
                .ok_or_else(|| format!("there is no partition key range {id:?}"))
        };
        let (one, other) = (place(ids[0])?, place(ids[1])?);
        let first = one.min(other);
        if one.abs_diff(other) != 1 {
            return Err(format!(
                "the partition key ranges {:?} and {:?} are not next to each other",
                ids[0], ids[1]
            ));
        }
        let (left, right) = (self.all[first].clone(), self.all[first + 1].clone());
        let mut parents = [left.parents, right.parents, vec![left.id, right.id]].concat();
        // Halves that come together again have the same ancestors. Ids grow with time.
        parents.sort_unstable();
        parents.dedup();
        let id = self.next_id;
        self.next_id += 1;
        let merged = Range {
            id,
            start: left.start,
            end: right.end,
            parents,
        };
        self.all.splice(first..=first + 1, [merged]);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ranges: &Ranges) {
        let all = ranges.all();
        assert_eq!(
            all.first().map(|range| range.start.as_str()),
            Some(epk::FIRST)
        );
        assert_eq!(all.last().map(|range| range.end.as_str()), Some(epk::END));
        for pair in all.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
        }
        for range in all {
            assert!(range.start < range.end);
            assert_eq!(ranges.of(&range.start), range);
        }
    }

    #[test]
    fn ranges_cover_everything_before_and_after_splits() {
        for hashing in [Hashing::V1, Hashing::V2, Hashing::Multi] {
            for count in [1, 2, 5, 7] {
                let mut ranges = Ranges::even(count, hashing);
                check(&ranges);
                for round in 0..20 {
                    let id = ranges.all()[round % ranges.all().len()].id;
                    let version = ranges.version();
                    let [first, second] = ranges.split(&id.to_string(), hashing).expect("wide");
                    check(&ranges);
                    assert!(ranges.version() > version && ranges.get(&id.to_string()).is_none());
                    for half in [first, second] {
                        let half = ranges.get(&half.to_string()).expect("is there");
                        assert_eq!(half.parents.last(), Some(&id));
                    }
                }
            }
        }
        assert!(
            Ranges::even(1, Hashing::V2)
                .split("7", Hashing::V2)
                .is_err()
        );
    }

    #[test]
    fn neighbours_are_merged_and_know_all_that_they_were_made_of() {
        let mut ranges = Ranges::even(3, Hashing::V2);
        for (refused, why) in [
            (["0", "2"], "next to each other"),
            (["1", "1"], "next to each other"),
            (["0", "7"], "no partition key range"),
        ] {
            let error = ranges.merge(refused).expect_err("refused");
            assert!(error.contains(why), "{error}");
        }
        let version = ranges.version();
        assert_eq!(ranges.split("1", Hashing::V2), Ok([3, 4]));
        assert_eq!(ranges.merge(["4", "3"]), Ok(5), "in any order");
        check(&ranges);
        assert_eq!(ranges.get("5").expect("is there").parents, [1, 3, 4]);
        assert_eq!(ranges.merge(["5", "2"]), Ok(6));
        assert_eq!(ranges.merge(["0", "6"]), Ok(7));
        check(&ranges);
        let all: Vec<u32> = (0..7).collect();
        assert_eq!((ranges.all().len(), &ranges.all()[0].parents), (1, &all));
        assert!(ranges.version() > version);
    }

    #[test]
    fn borders_are_where_the_service_has_them() {
        let borders = |count, hashing| -> Vec<String> {
            let ranges = Ranges::even(count, hashing);
            ranges.all()[1..]
                .iter()
                .map(|range| range.start.clone())
                .collect()
        };
        assert_eq!(
            borders(2, Hashing::V2),
            ["20000000000000000000000000000000"]
        );
        assert_eq!(
            borders(5, Hashing::V1),
            [
                "05C1C9CD673398",
                "05C1D9CD673398",
                "05C1E399CD6732",
                "05C1E9CD673398"
            ]
        );
    }
}
