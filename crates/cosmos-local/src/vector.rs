//! Numbers of mutations, one per region of the account.
//!
//! A region that joined after a list was made is not in it, and counts as 0 there: nothing of it was known. So nothing
//! that is stored has to change when the account gets another region.

/// The number of a region.
pub(crate) fn at(numbers: &[u64], region: usize) -> u64 {
    numbers.get(region).copied().unwrap_or_default()
}

/// Sets the number of a region.
pub(crate) fn set(numbers: &mut Vec<u64>, region: usize, number: u64) {
    if numbers.len() <= region {
        numbers.resize(region + 1, 0);
    }
    numbers[region] = number;
}

/// Whether every number is at least the other's.
pub(crate) fn reaches(numbers: &[u64], other: &[u64]) -> bool {
    let mut other = other.iter().enumerate();
    other.all(|(region, number)| at(numbers, region) >= *number)
}

/// The smaller number of each region.
pub(crate) fn least(a: &[u64], b: &[u64]) -> Vec<u64> {
    let count = a.len().max(b.len());
    let least = |region| at(a, region).min(at(b, region));
    (0..count).map(least).collect()
}

/// Raises every number to the other's, where that is greater.
pub(crate) fn raise(numbers: &mut Vec<u64>, other: &[u64]) {
    if numbers.len() < other.len() {
        numbers.resize(other.len(), 0);
    }
    for (number, other) in numbers.iter_mut().zip(other) {
        *number = (*number).max(*other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_in_a_list_counts_as_nothing_known() {
        let (short, long) = ([4, 2], [3, 2, 1]);
        assert_eq!((at(&short, 1), at(&short, 2)), (2, 0));
        assert!(!reaches(&short, &long) && !reaches(&long, &short));
        assert!(reaches(&short, &[4]) && reaches(&short, &[4, 0, 0]));
        assert_eq!(least(&short, &long), [3, 2, 0]);
        let mut numbers = short.to_vec();
        raise(&mut numbers, &long);
        assert_eq!(numbers, [4, 2, 1]);
        set(&mut numbers, 4, 9);
        assert_eq!(numbers, [4, 2, 1, 0, 9]);
    }
}
