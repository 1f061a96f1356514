//! What operations cost, in request units: the service's published prices by size, and a line between them.

/// Size in KB, price of reading an item of that size, price of writing one
/// (Microsoft Learn, "Understand request unit consumption").
const PRICES: [(f64, f64, f64); 12] = [
    (1.0, 1.0, 4.95),
    (2.0, 1.04, 6.29),
    (4.0, 1.14, 6.67),
    (8.0, 1.33, 7.04),
    (16.0, 1.67, 9.52),
    (32.0, 2.19, 11.23),
    (64.0, 4.76, 22.67),
    (128.0, 9.95, 48.19),
    (256.0, 20.28, 98.29),
    (512.0, 40.95, 184.57),
    (1024.0, 145.90, 625.00),
    (2048.0, 291.80, 1250.00),
];

/// An operation that found, or did, nothing.
pub(crate) const LEAST: f64 = 1.0;

/// What a query costs before it has read an item, and for each item it looks at.
const QUERY: f64 = 2.5;
const QUERY_ITEM: f64 = 0.05;

fn price(bytes: usize, column: impl Fn(&(f64, f64, f64)) -> f64) -> f64 {
    let size = bytes as f64 / 1024.0;
    let after = PRICES.partition_point(|row| row.0 < size);
    let exact = match (after.checked_sub(1).map(|at| PRICES[at]), PRICES.get(after)) {
        (None, first) => first.map_or(LEAST, column),
        (Some(below), Some(above)) => {
            let part = (size - below.0) / (above.0 - below.0);
            column(&below) + part * (column(above) - column(&below))
        }
        (Some(last), None) => column(&last) * size / last.0,
    };
    (exact * 100.0).round() / 100.0
}

/// Reading this much.
pub(crate) fn read(bytes: usize) -> f64 {
    price(bytes, |row| row.1)
}

/// Creating an item of this size, or deleting one.
pub(crate) fn write(bytes: usize) -> f64 {
    price(bytes, |row| row.2)
}

/// Replacing an item by one of this size.
pub(crate) fn replace(bytes: usize) -> f64 {
    2.0 * write(bytes)
}

/// A page of a query that has looked at so many items and returns so many bytes.
pub(crate) fn query(items: usize, bytes: usize) -> f64 {
    QUERY + QUERY_ITEM * items as f64 + read(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::float_cmp,
        reason = "prices are rounded, so they are equal or not"
    )]

    use super::*;

    #[test]
    fn published_prices_and_what_lies_between() {
        assert_eq!((read(10), write(10)), (1.0, 4.95));
        assert_eq!((read(1024), write(1024)), (1.0, 4.95));
        assert_eq!((read(64 * 1024), write(64 * 1024)), (4.76, 22.67));
        assert_eq!((read(2048 * 1024), write(2048 * 1024)), (291.8, 1250.0));
        assert_eq!(read(3 * 1024), 1.09);
        assert_eq!(replace(100), 9.9);
        assert_eq!(query(100, 10), 8.5);
        assert!((1..4096).all(|kb| read(kb * 1024) <= read((kb + 1) * 1024)));
    }
}
