//! The change feed, latest version mode: what has changed in this region after a position, in the order in which it was
//! applied here.

use std::{ops::Bound, sync::Arc};

use http::StatusCode;
use jiff::{Timestamp, fmt::rfc2822};

use super::{
    Gateway, Region,
    documents::{MAX_PAGE, MAX_PAGE_BYTES, USUAL_PAGE, page, scope},
    reply::{ApiError, Reply},
    request::Request,
};
use crate::{
    container::Container,
    replica::{Item, State, Table},
    scope::Scope,
    ttl::Lifetimes,
    vector,
};

/// The wire format in which items come in envelopes.
const ENVELOPES: &str = "2021-09-15";

/// A place in a region's feed, and what the region had seen by then.
///
/// Positions of different regions have nothing to do with each other. A client that fails over takes its continuation
/// along; by the vector, its new region finds the first change that the client may not have had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Continuation {
    region: usize,
    position: u64,
    seen: Vec<u64>,
    ahead: Option<Ahead>,
}

/// What a client knows from another region that this one has not seen yet.
///
/// It may have been given a version that never shows here: one that was replaced before it arrived. So once this region
/// has seen as much, the client is given again whatever those mutations are about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ahead {
    /// Per region, the last mutation about which client and region agree.
    from: Vec<u64>,
    /// Per region, the last mutation that the client may know of.
    to: Vec<u64>,
}

impl Continuation {
    /// A place that is of use in this region only: elsewhere, everything may be new.
    pub(super) fn here(region: usize, position: u64) -> Self {
        Self {
            region,
            position,
            seen: vec![0],
            ahead: None,
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}.{};{}", self.region, self.position, list(&self.seen));
        if let Some(Ahead { from, to }) = &self.ahead {
            text += &format!(";{};{}", list(from), list(to));
        }
        format!("\"{text}\"")
    }

    fn parse(text: &str, regions: usize) -> Option<Self> {
        let mut parts = text.trim().trim_matches('"').split(';');
        let (region, position) = parts.next()?.split_once('.')?;
        let (region, position) = (region.parse().ok()?, position.parse().ok()?);
        let vectors = parts
            .map(|part| {
                let numbers = part.split(',').map(|number| number.parse().ok());
                let numbers = numbers.collect::<Option<Vec<u64>>>()?;
                // The account may have got regions since.
                (numbers.len() <= regions).then_some(numbers)
            })
            .collect::<Option<Vec<_>>>()?;
        let (seen, ahead) = match <[Vec<u64>; 3]>::try_from(vectors) {
            Ok([seen, from, to]) => (seen, Some(Ahead { from, to })),
            Err(vectors) => {
                let [seen] = <[Vec<u64>; 1]>::try_from(vectors).ok()?;
                (seen, None)
            }
        };
        (region < regions).then_some(Self {
            region,
            position,
            seen,
            ahead,
        })
    }

    /// Whether its holder knows more of a region than that has ever had.
    fn is_beyond(&self, region: usize, state: &State) -> bool {
        let to = self.ahead.as_ref().map_or(&[][..], |ahead| &ahead.to);
        let known = vector::at(&self.seen, region).max(vector::at(to, region));
        known > state.seen_of(region) || (self.region == region && self.position > state.applied)
    }

    /// The position, if it is one of this region.
    pub(super) fn position_if_in(&self, region: usize) -> Option<u64> {
        (self.region == region).then_some(self.position)
    }

    /// The position in the feed of `region` after which everything new to the holder comes, and what the holder knows
    /// beyond what the region has seen.
    fn resume_in(&self, region: usize, state: &State, container: u32) -> (u64, Option<Ahead>) {
        let reached = |to: &[u64]| vector::reaches(&state.seen, to);
        if self.region == region {
            return match &self.ahead {
                Some(ahead) if reached(&ahead.to) => {
                    let start = first_change(state, container, &ahead.from);
                    (start.min(self.position), None)
                }
                ahead => (self.position, ahead.clone()),
            };
        }
        let (known, most) = match &self.ahead {
            None => (self.seen.clone(), self.seen.clone()),
            Some(Ahead { from, to }) => {
                let mut most = self.seen.clone();
                vector::raise(&mut most, to);
                (vector::least(&self.seen, from), most)
            }
        };
        let start = first_change(state, container, &known);
        let ahead = (!reached(&most)).then(|| Ahead {
            from: vector::least(&known, &state.seen),
            to: most,
        });
        (start, ahead)
    }
}

/// The position before the first item that has heard of more, from any region, than is known of that region.
fn first_change(state: &State, container: u32, known: &[u64]) -> u64 {
    let items = state
        .tables
        .get(&container)
        .into_iter()
        .flat_map(|table| table.items.values());
    let new = |item: &&Item| !vector::reaches(known, &item.heard);
    items
        .filter(new)
        .map(|item| item.position.saturating_sub(1))
        .min()
        .unwrap_or(state.applied)
}

fn list(numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    numbers.join(",")
}

impl Gateway {
    /// Reads what a client has sent back.
    pub(super) fn continuation(&self, text: &str) -> Result<Continuation, ApiError> {
        let members = self.members();
        let regions = members.membership.count();
        let continuation = Continuation::parse(text, regions).ok_or_else(|| {
            ApiError::bad_request(format!(
                "the continuation {text:?} is not one of this account's"
            ))
        })?;
        let mut regions = members.regions.iter();
        // Whoever goes on from there would be given nothing of what is there until then.
        if regions.any(|region| continuation.is_beyond(region.index, &region.replica.read())) {
            return Err(ApiError::bad_request(format!(
                "the continuation {text:?} is ahead of all changes of this account, which has been started anew without \
                 its data; read the feed from the beginning, or from now on"
            )));
        }
        Ok(continuation)
    }

    pub(super) fn changes(
        &self,
        region: &Region,
        request: &Request,
        container: &Container,
    ) -> Result<Reply, ApiError> {
        let mode = request
            .header("a-im")
            .unwrap_or_default()
            .to_ascii_lowercase();
        if mode.contains("full-fidelity") {
            return self.versions(region, request, container);
        }
        let scope = scope(request, container)?;
        let since = request
            .header("if-modified-since")
            .map(http_date)
            .transpose()?;
        let most = request.page_size(USUAL_PAGE, MAX_PAGE);
        let envelopes =
            request.header("x-ms-cosmos-changefeed-wire-format-version") == Some(ENVELOPES);

        let after = request.header("if-none-match");
        let continuation = after
            .filter(|after| *after != "*")
            .map(|text| self.continuation(text))
            .transpose()?;

        let lifetimes = Lifetimes::now(container);
        let state = region.replica.read();
        let (start, ahead) = match &continuation {
            Some(continuation) => continuation.resume_in(region.index, &state, container.number),
            None if after.is_some() => (state.applied, None),
            None => (0, None),
        };
        let mut rows: Vec<String> = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        if let Some(table) = state.tables.get(&container.number) {
            for (position, item) in changed(table, &scope, start) {
                if since.is_some_and(|since| item.applied_at < since) {
                    continue;
                }
                let Some(body) = item
                    .visible(lifetimes)
                    .and_then(|record| record.body.as_deref())
                else {
                    continue;
                };
                bytes += body.len();
                if !rows.is_empty() && (rows.len() >= most || bytes > MAX_PAGE_BYTES) {
                    break;
                }
                rows.push(row(body, position, item.applied_at, envelopes));
                last = Some((position, Arc::clone(&item.seen)));
            }
        }
        // A full page ends at its last change; one that reached the end, at the end, so that it need not be looked at again.
        let reached_end = rows.len() < most && bytes <= MAX_PAGE_BYTES;
        let (position, seen) = match last {
            Some((position, seen)) if !reached_end => (position, seen.to_vec()),
            _ => (state.applied, state.seen.clone()),
        };
        let continuation = Continuation {
            region: region.index,
            position,
            seen,
            ahead,
        };
        drop(state);
        let reply = if rows.is_empty() {
            Reply::empty(StatusCode::NOT_MODIFIED).header("x-ms-item-count", "0")
        } else {
            page(container, rows.iter().map(String::as_str))
        };
        Ok(reply.header("etag", continuation.text()))
    }
}

/// Changes of a container that are looked through for those of one partition key; beyond that, its items are.
const LOOKED_THROUGH: usize = 1000;

/// Items in the scope that have changed after a position, in the order of change.
fn changed<'a>(
    table: &'a Table,
    scope: &'a Scope,
    after: u64,
) -> Box<dyn Iterator<Item = (u64, &'a Item)> + 'a> {
    let since = (Bound::Excluded(after), Bound::Unbounded);
    let changes = table.feed.range(since);
    if scope.partition().is_some() && changes.clone().nth(LOOKED_THROUGH).is_some() {
        // One partition's items are sorted, rather than all changes of the container looked through.
        let mut items: Vec<(u64, &Item)> = scope
            .items(table, Bound::Unbounded)
            .map(|(_, item)| (item.position, item))
            .filter(|(position, _)| *position > after)
            .collect();
        items.sort_unstable_by_key(|(position, _)| *position);
        return Box::new(items.into_iter());
    }
    let changes = changes.filter(|(_, key)| scope.contains(&key.partition));
    Box::new(changes.filter_map(|(position, key)| Some((*position, table.items.get(key)?))))
}

/// An item as it stands in the feed.
fn row(body: &str, position: u64, applied_at: i64, envelopes: bool) -> String {
    if envelopes {
        return format!(
            "{{\"current\":{body},\"metadata\":{{\"lsn\":{position},\"crts\":{applied_at}}}}}"
        );
    }
    // An item has at least its system properties, so a member can always follow.
    let open = body.strip_suffix('}').unwrap_or(body);
    format!("{open},\"_lsn\":{position}}}")
}

fn http_date(text: &str) -> Result<i64, ApiError> {
    rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .map(Timestamp::as_second)
        .map_err(|_| {
            ApiError::bad_request(format!(
                "if-modified-since {text:?} is not a date such as Thu, 06 Aug 2026 10:00:00 GMT"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuations_round_trip_and_nonsense_is_refused() {
        let mut continuation = Continuation {
            region: 1,
            position: 58,
            seen: vec![40, 18],
            ahead: None,
        };
        assert_eq!(continuation.text(), "\"1.58;40,18\"");
        for ahead in [
            None,
            Some(Ahead {
                from: vec![40, 1],
                to: vec![44, 18],
            }),
        ] {
            continuation.ahead = ahead;
            let read = Continuation::parse(&continuation.text(), 2);
            assert_eq!(read.as_ref(), Some(&continuation));
        }
        let before = Continuation::parse("\"0.58;40\"", 2).expect("from when there was one region");
        assert_eq!((before.region, before.seen), (0, vec![40]));
        for bad in [
            "",
            "\"58\"",
            "\"1.58;\"",
            "\"1.58;40,18,1\"",
            "\"2.58;40,18\"",
            "\"1.58;40,18;40,18\"",
            "\"1.x;40,18\"",
            "\"-1.5;1,2\"",
        ] {
            assert_eq!(Continuation::parse(bad, 2), None, "{bad}");
        }
        assert!(http_date("Thu, 06 Aug 2026 10:00:00 GMT").is_ok());
    }
}
