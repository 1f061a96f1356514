//! The opaque text by which a client says how far it has read.

use azure_data_cosmos::feed::ContinuationToken;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    names::{DATABASE, EVENTS},
    settings::RegionName,
};

/// Longest text that is looked at, in bytes. A position in one partition takes well under 1 KB; 64 KB leave room for the
/// largest containers, and for a URL.
const MAX_LENGTH: usize = 64 * 1024;

/// Bytes of the checksum. It finds damage, not malice: a position is no secret and opens nothing.
const CHECKSUM: usize = 8;

/// A checked position in the change feed of `events` in one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    region: String,
    sdk: String,
}

/// Why a text is not a [`Continuation`] for this app.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ContinuationError {
    /// It was not given out by this app, or has been damaged or cut.
    #[error("is not a continuation of this API, or was damaged on the way")]
    Malformed,
    /// It belongs to another container.
    #[error("belongs to the container {0}")]
    Container(String),
    /// It belongs to another region, whose positions mean nothing here.
    #[error("belongs to {0}, and positions in the feed of one region mean nothing in another")]
    Region(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    container: String,
    region: String,
    token: String,
}

fn container() -> String {
    format!("{DATABASE}/{EVENTS}")
}

impl Continuation {
    /// Wraps a continuation of the SDK.
    pub(super) fn new(region: &RegionName, sdk: &str) -> Self {
        Self {
            region: region.as_str().to_owned(),
            sdk: sdk.to_owned(),
        }
    }

    /// Checks a text that a client sent to the app in `region`.
    ///
    /// # Errors
    /// See [`ContinuationError`].
    pub fn parse(text: &str, region: &RegionName) -> Result<Self, ContinuationError> {
        let malformed = ContinuationError::Malformed;
        if text.len() > MAX_LENGTH {
            return Err(malformed);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| ContinuationError::Malformed)?;
        let (sum, json) = bytes
            .split_at_checked(CHECKSUM)
            .ok_or(ContinuationError::Malformed)?;
        if sum != checksum(json) {
            return Err(malformed);
        }
        let content: Content =
            serde_json::from_slice(json).map_err(|_| ContinuationError::Malformed)?;
        if content.container != container() {
            return Err(ContinuationError::Container(content.container));
        }
        if !region.is(&content.region) {
            return Err(ContinuationError::Region(content.region));
        }
        Ok(Self {
            region: content.region,
            sdk: content.token,
        })
    }

    /// The text for the client: letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// Never in practice: three strings can always be written as JSON.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        let content = Content {
            container: container(),
            region: self.region.clone(),
            token: self.sdk.clone(),
        };
        let json = serde_json::to_vec(&content)?;
        let mut bytes = checksum(&json);
        bytes.extend_from_slice(&json);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn into_sdk(self) -> ContinuationToken {
        ContinuationToken::from_string(self.sdk)
    }
}

fn checksum(json: &[u8]) -> Vec<u8> {
    let mut sum = Sha256::digest(json).to_vec();
    sum.truncate(CHECKSUM);
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn region() -> RegionName {
        RegionName::new("West US")
    }

    #[test]
    fn round_trip() {
        let continuation = Continuation::new(&region(), "c1.abc");
        let text = continuation.to_text().unwrap();
        assert!(
            text.chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'),
            "{text}"
        );
        assert_eq!(Continuation::parse(&text, &region()).unwrap(), continuation);
        assert_eq!(
            Continuation::parse(&text, &RegionName::new("westus")).unwrap(),
            continuation
        );
    }

    #[test]
    fn another_region_is_named() {
        let text = Continuation::new(&region(), "c1.abc").to_text().unwrap();
        let error = Continuation::parse(&text, &RegionName::new("North Europe")).unwrap_err();
        assert_eq!(error, ContinuationError::Region("West US".to_owned()));
    }

    #[test]
    fn another_container_is_named() {
        let json = br#"{"container":"eventsDb/other","region":"West US","token":"c1.abc"}"#;
        let text = URL_SAFE_NO_PAD.encode([&checksum(json)[..], json].concat());
        let error = Continuation::parse(&text, &region()).unwrap_err();
        assert_eq!(
            error,
            ContinuationError::Container("eventsDb/other".to_owned())
        );
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for text in ["", "now", "c1.abc", "e30", &"A".repeat(MAX_LENGTH + 1)] {
            assert_eq!(
                Continuation::parse(text, &region()),
                Err(ContinuationError::Malformed)
            );
        }
    }

    proptest! {
        #[test]
        fn damage_is_found(position in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_-]") {
            let text = Continuation::new(&region(), "c1.abcdefghijklmnop").to_text().unwrap();
            let at = position.index(text.len());
            let mut damaged = text.clone();
            damaged.replace_range(at..=at, &letter);
            prop_assume!(damaged != text);
            prop_assert_eq!(Continuation::parse(&damaged, &region()), Err(ContinuationError::Malformed));
        }
    }
}
