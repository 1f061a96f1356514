//! The domain: events, what makes a JSON document one, and what is in a feed besides.
//!
//! [`Event`] is what the container `events` holds. [`read_drafts`](draft::read_drafts) turns what a device sends into
//! [`Draft`]s, or says what is wrong with it; [`feed`] sorts what comes out of the change feed.
//!
//! An event never changes its meaning: the same `id` again is the same event, sent again. A device that sends another
//! `value` under an old `id` replaces the event, and readers who saw the old value have seen it.

pub mod draft;
pub mod feed;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

pub use self::{
    draft::{Draft, MAX_BATCH, read_drafts},
    feed::{Batch, Stranger},
};
use crate::measurement::Measurement;

/// Longest `id`, in characters. Cosmos DB takes 1023 bytes, and a character has at most four.
pub const MAX_ID: usize = 255;

/// Longest `deviceId`, in characters.
pub const MAX_DEVICE_ID: usize = 128;

/// One event, as it is stored in the container `events`, pushed to browsers and listed by `changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'a> {
    /// Names the event in the whole world; see [`check_name`] with [`MAX_ID`].
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The device that measured; see [`check_name`] with [`MAX_DEVICE_ID`].
    #[serde(borrow)]
    pub device_id: Cow<'a, str>,
    /// The region that accepted the event, as its `REGION` setting names it.
    #[serde(borrow)]
    pub region: Cow<'a, str>,
    /// What the device measured.
    pub value: Measurement,
    /// When the event was accepted: RFC 3339, UTC, milliseconds, such as `2026-03-01T10:00:00.123Z`.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// The trace that the event belongs to, as W3C Trace Context writes it; absent when nothing was traced. It says where
    /// the event came from, and is no part of what it means.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Cow<'a, str>>,
}

/// How the id of a device begins that exists for a test of a running system only.
pub const SMOKE_DEVICES: &str = "smoke-";

/// How long what is stored of such a device lives, in seconds: long enough to look at after a test that failed.
const SMOKE_TIME_TO_LIVE: u32 = 3600;

/// The `ttl` of what is stored of a device, in seconds; `None` is for ever.
///
/// The container's own default has to be on for it to have an effect: see [`provision`](crate::provision).
pub fn time_to_live(device_id: &str) -> Option<u32> {
    device_id
        .starts_with(SMOKE_DEVICES)
        .then_some(SMOKE_TIME_TO_LIVE)
}

impl Event<'_> {
    /// The same event with text of its own.
    pub fn into_owned(self) -> Event<'static> {
        Event {
            id: Cow::Owned(self.id.into_owned()),
            device_id: Cow::Owned(self.device_id.into_owned()),
            region: Cow::Owned(self.region.into_owned()),
            value: self.value,
            time: Cow::Owned(self.time.into_owned()),
            traceparent: self.traceparent.map(|text| Cow::Owned(text.into_owned())),
        }
    }
}

/// Why a text cannot name an event or a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is too long.
    #[error("must have at most {max} characters")]
    TooLong {
        /// The limit, in characters.
        max: usize,
    },
    /// A character that Cosmos DB does not take in an id, or that a path of a URL cannot carry.
    #[error("must not contain `/`, `\\`, `?`, `#` or a control character")]
    Character,
    /// `.` and `..` vanish from the path of a URL, so nobody could ask for them.
    #[error("must not be `.` or `..`")]
    Dots,
}

/// Checks a text that names an event or a device, and that must therefore fit into the path of a URL.
///
/// # Errors
/// See [`NameError`]; the first reason found is given.
pub fn check_name(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    // Bytes bound characters from above, so the common case needs no counting.
    if name.len() > max && name.chars().count() > max {
        return Err(NameError::TooLong { max });
    }
    let is_forbidden = |c: char| matches!(c, '/' | '\\' | '?' | '#') || c.is_control();
    // Names are ASCII nearly always, and bytes need no decoding.
    let has_forbidden = if name.is_ascii() {
        name.bytes().any(|byte| is_forbidden(char::from(byte)))
    } else {
        name.chars().any(is_forbidden)
    };
    if has_forbidden {
        return Err(NameError::Character);
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots);
    }
    Ok(())
}

/// A document that `up` writes into `events` to see that the feeds flow, and removes again.
///
/// It is no event: it reaches no screen, no list and no other container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// [`Probe::PREFIX`] and something unique.
    pub id: String,
    /// Always true.
    pub probe: bool,
}

impl Probe {
    /// How the id of every probe begins.
    pub const PREFIX: &str = "probe-";

    /// A probe of its own.
    pub fn new(unique: Uuid) -> Self {
        Self {
            id: format!("{}{unique}", Self::PREFIX),
            probe: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_a_url_and_into_cosmos() {
        for good in [
            "a",
            "dev-7",
            "...",
            "Gerät 7",
            "température",
            &"x".repeat(255),
            &"é".repeat(255),
        ] {
            assert_eq!(check_name(good, MAX_ID), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", NameError::Empty),
            (".", NameError::Dots),
            ("..", NameError::Dots),
            ("a/b", NameError::Character),
            ("a\\b", NameError::Character),
            ("a?b", NameError::Character),
            ("a#b", NameError::Character),
            ("a\nb", NameError::Character),
            (&"é".repeat(256), NameError::TooLong { max: 255 }),
        ] {
            assert_eq!(check_name(bad, MAX_ID), Err(error), "{bad}");
        }
    }

    #[test]
    fn an_event_borrows_from_its_document() {
        let document =
            r#"{"id":"e-1","deviceId":"dev-7","region":"West US","value":41,"time":"t","_ts":1}"#;
        let event: Event<'_> = serde_json::from_str(document).expect("a valid event");
        assert!(matches!(event.id, Cow::Borrowed("e-1")));
        assert_eq!(
            serde_json::to_string(&event).expect("serialisable"),
            r#"{"id":"e-1","deviceId":"dev-7","region":"West US","value":41,"time":"t"}"#
        );
    }
}
