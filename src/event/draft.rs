//! What a device sends: `{"id"?, "deviceId", "value"}`, one or an array of up to [`MAX_BATCH`].
//!
//! Everything that is wrong with a batch is found in one pass and reported with the path of the field, up to
//! [`MAX_FIELD_ERRORS`]; a batch is taken as a whole or not at all.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{MAX_DEVICE_ID, MAX_ID, check_name};
use crate::{
    measurement::Measurement,
    problem::{FieldError, MAX_FIELD_ERRORS},
};

/// Most events in one request.
pub const MAX_BATCH: usize = 100;

/// The fields a device may send. `region` and `time` are taken and overwritten, so that an event that was read from
/// one place can be written to another as it is.
const KNOWN_FIELDS: &str =
    "known fields are `id`, `deviceId`, `value`, and `region` and `time`, which are overwritten";

/// Longest unknown field name that is quoted in full.
const MAX_QUOTED: usize = 64;

/// A valid event before its acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft<'a> {
    /// The id, if the device gave one.
    pub id: Option<Cow<'a, str>>,
    /// The device that measured.
    pub device_id: Cow<'a, str>,
    /// What it measured.
    pub value: Measurement,
}

/// The drafts of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drafts<'a> {
    /// The body was one object.
    One(Draft<'a>),
    /// The body was an array.
    Many(Vec<Draft<'a>>),
}

/// All that is wrong with a request, bounded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// The first [`MAX_FIELD_ERRORS`].
    pub errors: Vec<FieldError>,
    /// How many there are in all.
    pub total: usize,
}

impl Faults {
    fn add(&mut self, path: impl FnOnce() -> String, message: impl Into<Cow<'static, str>>) {
        self.total += 1;
        if self.errors.len() < MAX_FIELD_ERRORS {
            self.errors.push(FieldError {
                path: path(),
                message: message.into(),
            });
        }
    }
}

/// Reads the body of a write request.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_drafts(json: &str) -> Result<Drafts<'_>, Faults> {
    let mut faults = Faults::default();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = BodySeed {
        faults: &mut faults,
    }
    .deserialize(&mut deserializer)
    .and_then(|drafts| deserializer.end().map(|()| drafts));
    match read {
        Err(error) => faults.add(|| "$".to_owned(), format!("is not valid JSON: {error}")),
        Ok(Body::One(Some(draft))) if faults.total == 0 => return Ok(Drafts::One(draft)),
        Ok(Body::Many(drafts)) => {
            find_duplicates(&drafts, &mut faults);
            if faults.total == 0 {
                return Ok(Drafts::Many(drafts.into_iter().flatten().collect()));
            }
        }
        Ok(Body::One(_)) => {}
    }
    Err(faults)
}

fn find_duplicates(drafts: &[Option<Draft<'_>>], faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(id) = draft.as_ref().and_then(|draft| draft.id.as_deref())
            && !seen.insert(id)
        {
            faults.add(
                || format!("$[{index}].id"),
                "is used twice in this batch; give each event its own id, or leave `id` out",
            );
        }
    }
}

/// Where a field stands: in the body itself, or in an element of the body's array.
#[derive(Clone, Copy)]
struct Place(Option<usize>);

impl Place {
    fn path(self) -> String {
        match self.0 {
            None => "$".to_owned(),
            Some(index) => format!("$[{index}]"),
        }
    }

    fn field(self, name: &str) -> String {
        format!("{}.{name}", self.path())
    }
}

/// `None` stands for a draft with faults.
enum Body<'a> {
    One(Option<Draft<'a>>),
    Many(Vec<Option<Draft<'a>>>),
}

struct BodySeed<'f> {
    faults: &'f mut Faults,
}

impl<'de> DeserializeSeed<'de> for BodySeed<'_> {
    type Value = Body<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BodySeed<'_> {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one event or an array of events")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        read_draft(map, Place(None), self.faults).map(Body::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut drafts = Vec::new();
        while drafts.len() < MAX_BATCH {
            let seed = ElementSeed {
                place: Place(Some(drafts.len())),
                faults: self.faults,
            };
            match seq.next_element_seed(seed)? {
                Some(draft) => drafts.push(draft),
                None => break,
            }
        }
        let mut surplus = 0_usize;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            surplus += 1;
        }
        if surplus > 0 {
            self.faults.add(
                || "$".to_owned(),
                format!(
                    "has {} events; the most in one request is {MAX_BATCH}, so send several requests",
                    MAX_BATCH + surplus
                ),
            );
        } else if drafts.is_empty() {
            self.faults.add(
                || "$".to_owned(),
                "is an empty array; send at least one event",
            );
        }
        Ok(Body::Many(drafts))
    }
}

struct ElementSeed<'f> {
    place: Place,
    faults: &'f mut Faults,
}

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = Option<Draft<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Elements that are no objects are faults of their own, so that the rest of the batch is still looked at.
impl<'de> Visitor<'de> for ElementSeed<'_> {
    type Value = Option<Draft<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        read_draft(map, self.place, self.faults)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.no_object("an array"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(self.no_object("a string"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(self.no_object("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(self.no_object("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(self.no_object("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(self.no_object("a number"))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.no_object("null"))
    }
}

impl ElementSeed<'_> {
    fn no_object<'de>(self, found: &str) -> Option<Draft<'de>> {
        self.faults.add(
            || self.place.path(),
            format!("must be an event object, found {found}"),
        );
        None
    }
}

/// Fields of the object read so far: `None` absent, `Some(None)` given but wrong.
#[derive(Default)]
struct Fields<'a> {
    id: Option<Option<Cow<'a, str>>>,
    device_id: Option<Option<Cow<'a, str>>>,
    value: Option<Option<Measurement>>,
    region: Option<()>,
    time: Option<()>,
}

/// Reads one event object; `None` when it has faults.
fn read_draft<'de, A: MapAccess<'de>>(
    mut map: A,
    place: Place,
    faults: &mut Faults,
) -> Result<Option<Draft<'de>>, A::Error> {
    let before = faults.total;
    let mut fields = Fields::default();
    while let Some(FieldName(name)) = map.next_key()? {
        let raw: &'de RawValue = map.next_value()?;
        let json = raw.get();
        let mut fault = |message: String| faults.add(|| place.field(&name), message);
        let twice = match &*name {
            "id" => fields
                .id
                .replace(read_name(json, MAX_ID, &mut fault)?)
                .is_some(),
            "deviceId" => fields
                .device_id
                .replace(read_name(json, MAX_DEVICE_ID, &mut fault)?)
                .is_some(),
            "value" => fields.value.replace(read_value(json, &mut fault)).is_some(),
            "region" => fields.region.replace(()).is_some(),
            "time" => fields.time.replace(()).is_some(),
            unknown => {
                let quoted: String = unknown.chars().take(MAX_QUOTED).collect();
                faults.add(
                    || place.field(&quoted),
                    format!("is not known; {KNOWN_FIELDS}"),
                );
                false
            }
        };
        if twice {
            faults.add(
                || place.field(&name),
                "is given twice in one event; keep one",
            );
        }
    }
    if fields.device_id.is_none() {
        faults.add(
            || place.field("deviceId"),
            "is missing; name the device that measured",
        );
    }
    if fields.value.is_none() {
        faults.add(
            || place.field("value"),
            "is missing; send the measured number",
        );
    }
    if faults.total > before {
        return Ok(None);
    }
    Ok(fields
        .device_id
        .flatten()
        .zip(fields.value.flatten())
        .map(|(device_id, value)| Draft {
            id: fields.id.flatten(),
            device_id,
            value,
        }))
}

fn read_name<'a, E: serde::de::Error>(
    json: &'a str,
    max: usize,
    fault: &mut impl FnMut(String),
) -> Result<Option<Cow<'a, str>>, E> {
    if !json.starts_with('"') {
        fault(format!("must be a string, found {}", kind(json)));
        return Ok(None);
    }
    // The text was skipped over, not read, until here: an escape in it may still be wrong.
    let FieldName(name) = serde_json::from_str(json).map_err(E::custom)?;
    if let Err(error) = check_name(&name, max) {
        fault(error.to_string());
        return Ok(None);
    }
    Ok(Some(name))
}

fn read_value(json: &str, fault: &mut impl FnMut(String)) -> Option<Measurement> {
    use crate::measurement::MeasurementError::NotANumber;
    match Measurement::parse(json) {
        Ok(value) => Some(value),
        Err(NotANumber) => {
            fault(format!("must be a number, found {}", kind(json)));
            None
        }
        Err(error) => {
            fault(error.to_string());
            None
        }
    }
}

/// What a valid JSON text is, in words.
pub(super) fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// A string that borrows where it has no escapes.
#[derive(Deserialize)]
struct FieldName<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn faults(body: &str) -> Vec<(String, String)> {
        let faults = read_drafts(body).unwrap_err();
        faults
            .errors
            .into_iter()
            .map(|e| (e.path, e.message.into_owned()))
            .collect()
    }

    #[track_caller]
    fn check(body: &str, path: &str, part: &str) {
        let found = faults(body);
        assert!(
            found.iter().any(|(p, m)| p == path && m.contains(part)),
            "no fault at {path} with {part:?} in {found:?}"
        );
    }

    #[test]
    fn one_event() {
        let Drafts::One(draft) = read_drafts(r#"{"deviceId":"dev-7","value":41}"#).unwrap() else {
            panic!("an object is one event");
        };
        assert_eq!(draft.id, None);
        assert!(matches!(draft.device_id, Cow::Borrowed("dev-7")));
        assert_eq!(draft.value, 41.into());
    }

    #[test]
    fn region_and_time_are_taken_whatever_they_are() {
        let body = r#"[{"id":"e\u002d1","deviceId":"d","value":1.5,"region":7,"time":null}]"#;
        let Drafts::Many(drafts) = read_drafts(body).unwrap() else {
            panic!("an array is many events");
        };
        assert_eq!(drafts[0].id.as_deref(), Some("e-1"));
    }

    #[test]
    fn each_field_says_what_is_wrong() {
        check(r#"{"value":1}"#, "$.deviceId", "is missing");
        check(r#"{"deviceId":"d"}"#, "$.value", "is missing");
        check(
            r#"{"deviceId":7,"value":1}"#,
            "$.deviceId",
            "must be a string, found a number",
        );
        check(r#"{"deviceId":null,"value":1}"#, "$.deviceId", "found null");
        check(r#"{"deviceId":"","value":1}"#, "$.deviceId", "empty");
        check(
            r#"{"deviceId":"a/b","value":1}"#,
            "$.deviceId",
            "must not contain",
        );
        check(
            r#"{"id":"..","deviceId":"d","value":1}"#,
            "$.id",
            "must not be",
        );
        check(
            r#"{"id":{},"deviceId":"d","value":1}"#,
            "$.id",
            "found an object",
        );
        check(
            r#"{"deviceId":"d","value":"1"}"#,
            "$.value",
            "must be a number, found a string",
        );
        check(
            r#"{"deviceId":"d","value":true}"#,
            "$.value",
            "found a boolean",
        );
        check(
            r#"{"deviceId":"d","value":1e400}"#,
            "$.value",
            "out of range",
        );
        check(
            r#"{"deviceId":"d","value":9007199254740993}"#,
            "$.value",
            "exactly",
        );
        check(
            r#"{"deviceId":"d","value":1,"colour":"red"}"#,
            "$.colour",
            "known fields are `id`",
        );
        check(
            r#"{"deviceId":"d","value":1,"value":2}"#,
            "$.value",
            "given twice",
        );
    }

    #[test]
    fn batches() {
        check(
            r#"[{"deviceId":"d","value":1},{"deviceId":"d"}]"#,
            "$[1].value",
            "is missing",
        );
        check(
            r#"[{"deviceId":"d","value":1},7]"#,
            "$[1]",
            "found a number",
        );
        check(r#"[["a"],"b",null,true]"#, "$[2]", "found null");
        check("[]", "$", "at least one");
        check(
            r#"[{"id":"a","deviceId":"d","value":1},{"id":"a","deviceId":"d","value":1}]"#,
            "$[1].id",
            "used twice",
        );
        let surplus = format!("[{}]", vec![r#"{"deviceId":"d","value":1}"#; 101].join(","));
        check(
            &surplus,
            "$",
            "has 101 events; the most in one request is 100",
        );
    }

    #[test]
    fn all_faults_of_a_batch_are_counted_and_the_first_are_listed() {
        let batch = format!("[{}]", vec!["{}"; 100].join(","));
        let faults = read_drafts(&batch).unwrap_err();
        assert_eq!(faults.total, 200);
        assert_eq!(faults.errors.len(), MAX_FIELD_ERRORS);
    }

    #[test]
    fn what_is_no_json_is_said_once_with_its_position() {
        check("", "$", "is not valid JSON: EOF");
        check("{", "$", "line 1 column");
        check("{} {}", "$", "trailing");
        check("7", "$", "one event or an array of events");
        check("null", "$", "one event or an array of events");
        check(
            r#"{"deviceId":"\ud800","value":1}"#,
            "$",
            "is not valid JSON",
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,300}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-z]{1,5}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The rules once more, written the slow and obvious way.
    fn is_valid(event: &Value) -> bool {
        let Some(event) = event.as_object() else {
            return false;
        };
        let name = |value: &Value, max: usize| {
            value.as_str().is_some_and(|s| {
                let legal = |c: char| !"/\\?#".contains(c) && !c.is_control();
                (1..=max).contains(&s.chars().count())
                    && s.chars().all(legal)
                    && s != "."
                    && s != ".."
            })
        };
        let exact = |value: &Value| match value.as_i64() {
            Some(integer) => integer.unsigned_abs() <= 1 << 53,
            None => value.is_f64(),
        };
        event
            .keys()
            .all(|k| ["id", "deviceId", "value", "region", "time"].contains(&k.as_str()))
            && event.get("id").is_none_or(|id| name(id, 255))
            && event.get("deviceId").is_some_and(|id| name(id, 128))
            && event.get("value").is_some_and(exact)
    }

    proptest! {
        #[test]
        fn agrees_with_the_obvious_rules(
            id in prop::option::of(any_json()),
            device in prop::option::of(prop_oneof!["[a-z]{1,9}".prop_map(Value::from), any_json()]),
            value in prop::option::of(prop_oneof![any::<i32>().prop_map(Value::from), any_json()]),
            extra in prop::option::of(("[a-z]{1,6}", any_json())),
        ) {
            let mut event = json!({});
            for (name, field) in [("id", id), ("deviceId", device), ("value", value)] {
                if let Some(field) = field { event[name] = field; }
            }
            if let Some((name, field)) = extra { event[name] = field; }
            prop_assert_eq!(read_drafts(&event.to_string()).is_ok(), is_valid(&event));
            let batch = json!([event]);
            prop_assert_eq!(read_drafts(&batch.to_string()).is_ok(), is_valid(&event));
        }

        #[test]
        fn never_panics(body in ".*") {
            let _ = read_drafts(&body);
        }
    }
}
