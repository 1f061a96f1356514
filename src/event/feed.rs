//! What comes out of the change feed of `events`: events, probes, and strangers.
//!
//! Cosmos DB cannot keep other documents out of the container, so a reader of the feed must expect them. A [`Stranger`]
//! is whatever is neither an event that the write function would have accepted nor a probe; the reason it gets depends
//! on nothing but its content, so that every region, and every redelivery, says the same.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};

use super::{Event, MAX_DEVICE_ID, MAX_ID, Probe, check_name, draft::kind};
use crate::measurement::Measurement;

/// The properties that Cosmos DB itself writes. They differ from region to region, so they are no part of a document's
/// content. (Microsoft Learn, "Work with databases, containers, and items in Azure Cosmos DB"; `_lsn` in change feeds.)
const SYSTEM_PROPERTIES: [&str; 6] = ["_rid", "_self", "_etag", "_attachments", "_ts", "_lsn"];

/// The documents of one feed batch, each kind in the order of the feed. Probes are dropped.
#[derive(Debug, Default, PartialEq)]
pub struct Batch<'a> {
    /// The events.
    pub events: Vec<Event<'a>>,
    /// Everything else but probes.
    pub strangers: Vec<Stranger>,
}

/// A document in the feed that is no event.
#[derive(Debug, Clone, PartialEq)]
pub struct Stranger {
    /// Its id if it has one that a Cosmos DB document can have, else one made from its content.
    pub id: String,
    /// Why it is no event: one clear sentence.
    pub reason: String,
    /// The document without system properties.
    pub document: Value,
}

impl<'a> Batch<'a> {
    /// Sorts the documents of a JSON array.
    ///
    /// # Errors
    /// When the text is no JSON array.
    pub fn read(json: &'a str) -> Result<Self, serde_json::Error> {
        // Almost every batch holds nothing but events: those are read in one pass.
        if let Ok(events) = serde_json::from_str::<Vec<Event<'a>>>(json)
            && events.iter().all(has_valid_names)
        {
            return Ok(Self {
                events,
                strangers: Vec::new(),
            });
        }
        let documents: Vec<&'a RawValue> = serde_json::from_str(json)?;
        let mut batch = Self::default();
        for document in documents {
            match classify(document.get())? {
                Document::Event(event) => batch.events.push(event),
                Document::Stranger(stranger) => batch.strangers.push(stranger),
                Document::Probe => {}
            }
        }
        Ok(batch)
    }
}

/// One document of the feed.
#[derive(Debug, PartialEq)]
pub enum Document<'a> {
    /// An event.
    Event(Event<'a>),
    /// A [`Probe`].
    Probe,
    /// Anything else.
    Stranger(Stranger),
}

/// Says what one document of the feed is.
///
/// # Errors
/// When the text is not JSON.
pub fn classify(json: &str) -> Result<Document<'_>, serde_json::Error> {
    if let Ok(event) = serde_json::from_str::<Event<'_>>(json)
        && has_valid_names(&event)
    {
        return Ok(Document::Event(event));
    }
    if serde_json::from_str::<Probe>(json)
        .is_ok_and(|probe| probe.probe && probe.id.starts_with(Probe::PREFIX))
    {
        return Ok(Document::Probe);
    }
    let reason = reason(json)?;
    let mut document: Value = serde_json::from_str(json)?;
    if let Value::Object(fields) = &mut document {
        fields.retain(|name, _| !SYSTEM_PROPERTIES.contains(&name.as_str()));
    }
    Ok(Document::Stranger(Stranger {
        id: id_of(&document),
        reason,
        document,
    }))
}

fn has_valid_names(event: &Event<'_>) -> bool {
    check_name(&event.id, MAX_ID).is_ok() && check_name(&event.device_id, MAX_DEVICE_ID).is_ok()
}

/// Why a document is no event: the first reason in the order of the fields of [`Event`].
fn reason(json: &str) -> Result<String, serde_json::Error> {
    let Ok(fields) = serde_json::from_str::<Fields<'_>>(json) else {
        let document: &RawValue = serde_json::from_str(json)?;
        return Ok(match kind(document.get()) {
            "an object" => "has a field twice".to_owned(),
            other => format!("is not an object but {other}"),
        });
    };
    let name =
        |field: &'static str, raw: Option<&RawValue>, max: Option<usize>| -> Option<String> {
            let Some(raw) = raw else {
                return Some(format!("`{field}` is missing"));
            };
            let Ok(Text(text)) = serde_json::from_str(raw.get()) else {
                return Some(format!(
                    "`{field}` must be a string, found {}",
                    kind(raw.get())
                ));
            };
            let error = check_name(&text, max?).err()?;
            Some(format!("`{field}` {error}"))
        };
    let value = || match fields.value {
        None => Some("`value` is missing".to_owned()),
        Some(raw) => {
            let error = serde_json::from_str::<Measurement>(raw.get()).err()?;
            let found = kind(raw.get());
            Some(if found == "a number" {
                format!("`value` {error}")
            } else {
                format!("`value` must be a number, found {found}")
            })
        }
    };
    Ok(name("id", fields.id, Some(MAX_ID))
        .or_else(|| name("deviceId", fields.device_id, Some(MAX_DEVICE_ID)))
        .or_else(|| name("region", fields.region, None))
        .or_else(value)
        .or_else(|| name("time", fields.time, None))
        .or_else(|| name("traceparent", fields.traceparent, None))
        .unwrap_or_else(|| "is not an event".to_owned()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    device_id: Option<&'a RawValue>,
    #[serde(borrow)]
    region: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Longest id of a Cosmos DB document, in bytes.
const MAX_COSMOS_ID: usize = 1023;

/// An id under which the document can be stored, the same for the same content.
///
/// Documents from a container have an id; only an invocation by hand can bring one without.
fn id_of(document: &Value) -> String {
    if let Some(id) = document.get("id").and_then(Value::as_str)
        && id.len() <= MAX_COSMOS_ID
        && check_name(id, MAX_COSMOS_ID).is_ok()
    {
        return id.to_owned();
    }
    let digest = Sha256::digest(canonical(document).to_string());
    let hex: String = digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("no-id-{hex}")
}

/// The document with its fields in order, whatever order they came in.
fn canonical(document: &Value) -> Value {
    match document {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            Value::Object(
                fields
                    .into_iter()
                    .map(|(name, field)| (name.clone(), canonical(field)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(elements) => elements.iter().map(canonical).collect(),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EVENT: &str = r#"{"id":"e-1","deviceId":"dev-7","region":"West US","value":41,"time":"2026-03-01T10:00:00.000Z","_ts":1}"#;

    fn stranger(json: &str) -> Stranger {
        match classify(json).unwrap() {
            Document::Stranger(stranger) => stranger,
            other => panic!("{json} is no stranger but {other:?}"),
        }
    }

    #[test]
    fn one_stranger_does_not_hide_the_events_around_it() {
        let probe = serde_json::to_string(&Probe::new(uuid::Uuid::nil())).unwrap();
        let json = format!(r#"[{EVENT},{{"id":"x"}},{probe},{EVENT}]"#);
        let batch = Batch::read(&json).unwrap();
        assert_eq!(batch.events.len(), 2);
        assert_eq!(batch.strangers.len(), 1);
        assert_eq!(batch.strangers[0].id, "x");
    }

    #[test]
    fn reasons_name_the_field() {
        let with = |field: &str, json: &str| {
            let mut event: Value = serde_json::from_str(EVENT).unwrap();
            match json {
                "" => drop(event.as_object_mut().unwrap().remove(field)),
                json => event[field] = serde_json::from_str(json).unwrap(),
            }
            stranger(&event.to_string()).reason
        };
        assert_eq!(with("deviceId", ""), "`deviceId` is missing");
        assert_eq!(
            with("deviceId", "7"),
            "`deviceId` must be a string, found a number"
        );
        assert_eq!(
            with("deviceId", r#""a/b""#),
            format!("`deviceId` {}", super::super::NameError::Character)
        );
        assert_eq!(with("region", ""), "`region` is missing");
        assert_eq!(
            with("value", r#""41""#),
            "`value` must be a number, found a string"
        );
        assert_eq!(with("value", ""), "`value` is missing");
        assert_eq!(
            with("time", "[]"),
            "`time` must be a string, found an array"
        );
        assert_eq!(
            with("traceparent", "7"),
            "`traceparent` must be a string, found a number"
        );
        assert_eq!(stranger("7").reason, "is not an object but a number");
        assert_eq!(
            stranger(r#"{"id":"a","id":"a"}"#).reason,
            "has a field twice"
        );
    }

    #[test]
    fn the_same_content_gives_the_same_stranger_in_every_region() {
        let here = r#"{"id":"x","n":{"a":1,"b":[2]},"_ts":1,"_etag":"\"1\"","_rid":"r","_self":"s","_attachments":"a","_lsn":7}"#;
        let there = r#"{"_lsn":9,"_ts":2,"n":{"a":1,"b":[2]},"id":"x"}"#;
        assert_eq!(stranger(here), stranger(there));
    }

    #[test]
    fn a_document_without_a_usable_id_gets_one_from_its_content() {
        let (a, b) = (
            stranger(r#"{"x":1,"y":2}"#),
            stranger(r#"{"y":2,"x":1,"_ts":5}"#),
        );
        assert_eq!(a.id, b.id);
        assert_ne!(a.id, stranger(r#"{"x":1,"y":3}"#).id);
        assert!(stranger(r#"{"id":"a/b"}"#).id.starts_with("no-id-"));
        assert!(stranger("[1]").id.starts_with("no-id-"));
    }

    #[test]
    fn only_what_is_marked_as_a_probe_is_one() {
        assert_eq!(
            classify(r#"{"id":"probe-1","probe":true,"_ts":1}"#).unwrap(),
            Document::Probe
        );
        assert!(matches!(
            classify(r#"{"id":"probe-1"}"#).unwrap(),
            Document::Stranger(_)
        ));
        assert!(matches!(
            classify(r#"{"id":"x","probe":true}"#).unwrap(),
            Document::Stranger(_)
        ));
    }

    #[test]
    fn what_is_no_array_is_an_error() {
        for json in ["", "{}", "7", "[{]", "[1,]"] {
            assert!(Batch::read(json).is_err(), "{json}");
        }
    }
}
