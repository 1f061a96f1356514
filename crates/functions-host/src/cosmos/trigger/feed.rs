//! Reading one slice of the change feed, page by page, across errors and splits.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use azure_data_cosmos::FeedScope;
use azure_data_cosmos::feed::{ChangeFeedPageIterator, ContinuationToken, FeedRange};
use azure_data_cosmos::models::{ChangeFeedItem, EffectivePartitionKey};
use azure_data_cosmos::options::{
    ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint, ReadFeedRangesOptions,
};
use futures::StreamExt;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::lease::HashRange;
use crate::cosmos::clients::{Container, bounded};
use crate::cosmos::error::Error;

type Document = Map<String, Value>;
type Pages = Pin<Box<ChangeFeedPageIterator<ChangeFeedItem<Document>>>>;

/// One page of the feed.
pub(crate) struct Page {
    /// Changed documents, in order; empty = nothing new.
    pub(crate) documents: Vec<Box<RawValue>>,
    /// The position after this page.
    pub(crate) position: String,
    /// Whether every partition under the slice has said "nothing new" since the last change.
    pub(crate) caught_up: bool,
    /// How long the service asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

/// Reads one slice, from one position on.
///
/// A slice is one physical partition when its lease is created. When that splits, the SDK goes on
/// with the parts from the same position and the continuation covers all of them, so the lease
/// stays one: no child leases are needed.
pub(crate) struct FeedReader {
    container: Arc<Container>,
    range: FeedRange,
    start: ChangeFeedStartFrom,
    max_items: Option<NonZeroU32>,
    position: Option<String>,
    pin: bool,
    pages: Option<Pages>,
    empty_in_a_row: usize,
}

impl FeedReader {
    /// `position` wins over `start`.
    pub(crate) fn new(
        container: Arc<Container>,
        range: &HashRange,
        start: ChangeFeedStartFrom,
        max_items: Option<NonZeroU32>,
        position: Option<String>,
    ) -> Result<Self, Error> {
        Ok(Self {
            container,
            range: feed_range(range)?,
            pin: position.is_none() && start == ChangeFeedStartFrom::Now,
            start,
            max_items,
            position,
            pages: None,
            empty_in_a_row: 0,
        })
    }

    /// Whether the position of an empty page must be recorded: reading began "now", and nothing
    /// has said yet since when. True once.
    pub(crate) fn pins_now(&mut self) -> bool {
        std::mem::take(&mut self.pin)
    }

    /// The next page. After an error the next call begins again where the last page ended.
    pub(crate) async fn next(&mut self) -> Result<Page, Error> {
        let result = self.try_next().await;
        if result.is_err() {
            self.pages = None;
        }
        result
    }

    async fn try_next(&mut self) -> Result<Page, Error> {
        let action = || "reading the change feed".to_owned();
        let mut pages = match self.pages.take() {
            Some(pages) => pages,
            None => self.open().await?,
        };
        let page = bounded(action, async { pages.next().await.transpose() })
            .await?
            .ok_or(Error::Incomplete("a page of the change feed"))?;
        let position = pages
            .to_continuation_token()
            .map_err(Error::service(action()))?
            .as_str()
            .to_owned();
        let retry_after = page.headers().retry_after();
        let documents = page
            .into_items()
            .iter()
            .filter_map(document)
            .collect::<Vec<_>>();
        self.pages = Some(pages);
        self.position = Some(position.clone());

        let caught_up = if documents.is_empty() {
            self.empty_in_a_row += 1;
            // One answer stands for one partition under the slice; there is one unless it split.
            self.empty_in_a_row >= width(&self.container, &self.range).await?
        } else {
            self.empty_in_a_row = 0;
            false
        };
        if caught_up {
            self.empty_in_a_row = 0;
        }
        Ok(Page {
            documents,
            position,
            caught_up,
            retry_after,
        })
    }

    async fn open(&mut self) -> Result<Pages, Error> {
        let mut options = ChangeFeedOptions::default();
        if let Some(max_items) = self.max_items {
            options = options.with_max_item_count(MaxItemCountHint::Limit(max_items));
        }
        if let Some(position) = &self.position {
            options =
                options.with_continuation_token(ContinuationToken::from_string(position.clone()));
        }
        let pages = bounded(
            || "opening the change feed".to_owned(),
            self.container.client.query_change_feed(
                FeedScope::range(self.range.clone()),
                self.start.clone(),
                Some(options),
            ),
        )
        .await?;
        Ok(Box::pin(pages))
    }
}

/// How many partitions lie under `range`, as the SDK knows them (it keeps that up to date).
async fn width(container: &Container, range: &FeedRange) -> Result<usize, Error> {
    let ranges = bounded(
        || "reading the partitions".to_owned(),
        container.client.read_feed_ranges(None),
    )
    .await?;
    Ok(ranges.iter().filter(|known| known.overlaps(range)).count())
}

/// The physical partitions of a container, as the service names them now.
pub(crate) async fn partitions(container: &Container) -> Result<Vec<HashRange>, Error> {
    let options = ReadFeedRangesOptions::default().with_force_refresh(true);
    let ranges = bounded(
        || "reading the partitions".to_owned(),
        container.client.read_feed_ranges(Some(options)),
    )
    .await?;
    Ok(ranges
        .iter()
        .map(|range| {
            HashRange::new(
                range.min_inclusive().to_hex(),
                range.max_exclusive().to_hex(),
            )
        })
        .collect())
}

/// The position that stands for "everything up to this moment" in `range`.
pub(crate) async fn position_of_now(
    container: Arc<Container>,
    range: &HashRange,
) -> Result<String, Error> {
    let mut reader = FeedReader::new(container, range, ChangeFeedStartFrom::Now, None, None)?;
    loop {
        let page = reader.next().await?;
        if !page.documents.is_empty() {
            // Taking the position after these would lose them.
            return Err(Error::Incomplete("an empty first page for \"from now\""));
        }
        if page.caught_up {
            return Ok(page.position);
        }
    }
}

/// A change as the trigger hands it on: the document, with `_lsn` as the plain feed has it.
///
/// The Rust SDK asks for the enveloped form, in which that number stands beside the document.
fn document(item: &ChangeFeedItem<Document>) -> Option<Box<RawValue>> {
    let current = item.current()?;
    let lsn = item.metadata().and_then(|metadata| metadata.lsn());
    match lsn {
        Some(lsn) if !current.contains_key("_lsn") => {
            let mut current = current.clone();
            current.insert("_lsn".to_owned(), lsn.value().into());
            to_raw_value(&current)
        }
        _ => to_raw_value(current),
    }
    // A JSON object always has a JSON text.
    .ok()
}

fn feed_range(range: &HashRange) -> Result<FeedRange, Error> {
    let action = || format!("reading the range {} of a lease", range.token());
    let bound = |hex: &str| {
        EffectivePartitionKey::try_from(hex.to_owned()).map_err(Error::service(action()))
    };
    FeedRange::new(bound(&range.min)?, bound(&range.max)?).map_err(Error::service(action()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn text(item: Value) -> Option<String> {
        let item: ChangeFeedItem<Document> = serde_json::from_value(item).unwrap();
        document(&item).map(|raw| raw.get().to_owned())
    }

    fn parsed(item: Value) -> Value {
        serde_json::from_str(&text(item).unwrap()).unwrap()
    }

    #[test]
    fn documents_come_out_of_their_envelope_with_their_number() {
        assert_eq!(
            parsed(
                json!({"current": {"id": "a", "value": 0.1}, "metadata": {"lsn": 58, "crts": 1}})
            ),
            json!({"id": "a", "value": 0.1, "_lsn": 58})
        );
        assert_eq!(
            parsed(json!({"id": "a", "_lsn": 7})),
            json!({"id": "a", "_lsn": 7})
        );
        assert_eq!(parsed(json!({"current": {"id": "a"}})), json!({"id": "a"}));
        assert_eq!(text(json!({"metadata": {"lsn": 1}})), None);
    }

    #[test]
    fn ranges_go_to_the_sdk_and_back() {
        for range in [HashRange::new("", "FF"), HashRange::new("1FFF", "3FFF")] {
            let sdk = feed_range(&range).unwrap();
            assert_eq!(sdk.min_inclusive().to_hex(), range.min);
            assert_eq!(sdk.max_exclusive().to_hex(), range.max);
        }
        assert!(feed_range(&HashRange::new("zz", "FF")).is_err());
        assert!(feed_range(&HashRange::new("FF", "")).is_err());
    }
}
