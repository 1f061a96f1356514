//! The number that a device reports.
//!
//! Cosmos DB stores every JSON number as an IEEE 754 double. A [`Measurement`] is therefore always a finite double, but
//! it remembers whether it was written as an integer, so that `41` does not come back as `41.0`. Two measurements are
//! compared as numbers: `41` equals `41.0`.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use thiserror::Error;

/// Largest magnitude up to which every integer has a double of its own: 2^53.
pub const MAX_EXACT_INTEGER: i64 = 1 << 53;

/// A finite number, kept as it was written.
#[derive(Debug, Clone, Copy)]
pub struct Measurement(Repr);

#[derive(Debug, Clone, Copy)]
enum Repr {
    /// Within ±[`MAX_EXACT_INTEGER`], so that its double is exact.
    Integer(i64),
    /// Finite.
    Real(f64),
}

/// Why a JSON number is no [`Measurement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MeasurementError {
    /// The text is not a JSON number.
    #[error("must be a number")]
    NotANumber,
    /// The number is larger than the largest double.
    #[error("is out of range: the largest magnitude is about 1.8e308")]
    OutOfRange,
    /// An integer beyond 2^53, which the store would silently round.
    #[error(
        "cannot be stored exactly: integers reach from -9007199254740992 to 9007199254740992; \
         if an approximation will do, send it with a decimal point or an exponent"
    )]
    Inexact,
}

impl Measurement {
    /// Reads a number that someone sends: what could not be stored exactly is refused.
    ///
    /// # Errors
    /// See [`MeasurementError`].
    pub fn parse(json: &str) -> Result<Self, MeasurementError> {
        match Self::read(json)? {
            Self(Repr::Real(_)) if is_integer_text(json) => Err(MeasurementError::Inexact),
            measurement => Ok(measurement),
        }
    }

    /// Reads a number that is stored: it is a double already, however many digits it is printed with.
    fn read(json: &str) -> Result<Self, MeasurementError> {
        if !json.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return Err(MeasurementError::NotANumber);
        }
        if is_integer_text(json)
            && let Ok(integer) = json.parse::<i64>()
            && integer.unsigned_abs() <= MAX_EXACT_INTEGER.unsigned_abs()
        {
            return Ok(Self(Repr::Integer(integer)));
        }
        let real: f64 = json.parse().map_err(|_| MeasurementError::NotANumber)?;
        if real.is_finite() {
            Ok(Self(Repr::Real(real)))
        } else {
            Err(MeasurementError::OutOfRange)
        }
    }

    /// The number as a double; exact.
    #[expect(
        clippy::cast_precision_loss,
        reason = "integers are within ±2^53 by construction"
    )]
    pub fn as_f64(self) -> f64 {
        match self.0 {
            Repr::Integer(integer) => integer as f64,
            Repr::Real(real) => real,
        }
    }
}

fn is_integer_text(json: &str) -> bool {
    !json.contains(['.', 'e', 'E'])
}

impl From<i32> for Measurement {
    fn from(integer: i32) -> Self {
        Self(Repr::Integer(integer.into()))
    }
}

impl PartialEq for Measurement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Measurement {}

impl PartialOrd for Measurement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Measurement {
    fn cmp(&self, other: &Self) -> Ordering {
        // Not `total_cmp`, which orders -0.0 before 0.0. Both are finite, so they always compare.
        self.as_f64()
            .partial_cmp(&other.as_f64())
            .unwrap_or(Ordering::Equal)
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Repr::Integer(integer) => integer.fmt(f),
            Repr::Real(real) => real.fmt(f),
        }
    }
}

impl Serialize for Measurement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Repr::Integer(integer) => serializer.serialize_i64(integer),
            Repr::Real(real) => serializer.serialize_f64(real),
        }
    }
}

/// Reads a stored number. It goes through the number's text, because `serde_json` by default reads doubles up to one
/// unit in the last place off, and a maximum must be the very number that was stored.
impl<'de> Deserialize<'de> for Measurement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Self::read(raw.get()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn printed(json: &str) -> Result<String, MeasurementError> {
        Measurement::parse(json).map(|m| serde_json::to_string(&m).unwrap())
    }

    #[test]
    fn keeps_how_a_number_was_written() {
        for text in [
            "0",
            "41",
            "-41",
            "41.0",
            "0.1",
            "-1.5",
            "9007199254740992",
            "-9007199254740992",
        ] {
            assert_eq!(printed(text).unwrap(), text);
        }
        assert_eq!(printed("1e2").unwrap(), "100.0");
    }

    #[test]
    fn refuses_what_cannot_be_stored_exactly() {
        for text in [
            "9007199254740993",
            "-9007199254740993",
            "18446744073709551616",
            "100000000000000000000",
        ] {
            assert_eq!(printed(text), Err(MeasurementError::Inexact), "{text}");
        }
        assert_eq!(printed("1e20").unwrap(), "1e+20");
        assert_eq!(printed("1e999"), Err(MeasurementError::OutOfRange));
        for text in [
            "\"41\"", "null", "true", "[1]", "{}", "NaN", "inf", "+1", "",
        ] {
            assert_eq!(printed(text), Err(MeasurementError::NotANumber), "{text}");
        }
    }

    #[test]
    fn reads_every_number_that_a_store_prints() {
        let stored: Measurement = serde_json::from_str("100000000000000000000").unwrap();
        assert_eq!(stored, Measurement::parse("1e20").unwrap());
        assert!(serde_json::from_str::<Measurement>("\"1\"").is_err());
        assert!(serde_json::from_str::<Measurement>("1e999").is_err());
    }

    #[test]
    fn compares_as_numbers() {
        let m = |text| Measurement::parse(text).unwrap();
        assert_eq!(m("41"), m("41.0"));
        assert_eq!(m("0"), m("-0.0"));
        assert!(m("9") < m("10.5"));
        assert!(m("-1") < m("-0.5"));
    }

    proptest! {
        #[test]
        fn a_double_survives_the_round_trip(real in any::<f64>().prop_filter("finite", |r| r.is_finite())) {
            let text = serde_json::to_string(&real).unwrap();
            let back: Measurement = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.as_f64(), real);
            prop_assert_eq!(serde_json::to_string(&back).unwrap(), text);
        }
    }
}
