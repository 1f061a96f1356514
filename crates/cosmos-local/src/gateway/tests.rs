//! What holds for every request, however it is made up: it is answered, and never by a bug.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod continuations;

use base64::{
    Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD,
};
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Door, Gateway, Members, Region, request::Request};
use crate::{
    Availability, EMULATOR_KEY, WriteMode,
    auth::{MasterKey, SignIn},
    folder::Opened,
};

const DATE: &str = "thu, 06 aug 2026 10:00:00 gmt";

/// A gateway of two regions, with the container `shop/orders` and three documents.
pub(super) struct Setup {
    pub(super) gateway: Gateway,
    pub(super) runtime: tokio::runtime::Runtime,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: http::HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// How many documents a query looked at, as its metrics say.
    pub(super) fn looked_at(&self) -> &str {
        let metrics = self.header("x-ms-documentdb-query-metrics").unwrap();
        let mut parts = metrics.split(';');
        let count = parts.find_map(|part| part.strip_prefix("retrievedDocumentCount="));
        count.unwrap()
    }
}

impl Setup {
    /// Without documents.
    pub(super) fn empty() -> Self {
        Self::divided(1)
    }

    /// Without documents, in so many physical partitions.
    pub(super) fn divided(partitions: u32) -> Self {
        let Opened {
            metadata,
            membership,
            replicas,
        } = Opened::in_memory(&["West US", "North Europe"]).unwrap();
        let sign_in = SignIn {
            key: MasterKey::new(EMULATOR_KEY).unwrap(),
            entra_tokens: false,
            checks_dates: false,
        };
        let gateway = Gateway::new(sign_in, metadata, WriteMode::Multi, partitions);
        let regions = membership.members().zip(replicas);
        let regions = regions.map(|((_, name), replica)| Region::new(name, 0, replica.into()));
        let regions = regions.map(Into::into).collect();
        gateway.set_members(Members {
            membership,
            regions,
        });
        let setup = Self {
            gateway,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        };
        let container = json!({"id": "orders", "partitionKey": {"paths": ["/tenant"], "kind": "Hash", "version": 2}});
        for (path, body) in [
            ("/dbs", r#"{"id":"shop"}"#),
            ("/dbs/shop/colls", &container.to_string()),
        ] {
            let answer = setup.send("POST", path, &[], body.as_bytes());
            assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
        }
        setup
    }

    pub(super) fn new() -> Self {
        let setup = Self::empty();
        for n in 0..3 {
            let key = [("x-ms-documentdb-partitionkey", "[\"t\"]")];
            let document = json!({"id": format!("o-{n}"), "tenant": "t", "n": n}).to_string();
            let path = "/dbs/shop/colls/orders/docs";
            let answer = setup.send("POST", path, &key, document.as_bytes());
            assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
        }
        setup
    }

    fn door(&self) -> Door {
        Door::Region(self.gateway.members().regions[0].clone())
    }

    /// A signed request.
    fn signed(
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (http::request::Parts, Bytes) {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let request = request.header("x-ms-date", DATE).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        let body = Bytes::copy_from_slice(body);
        // What cannot be read cannot be signed, and is refused before anybody looks at the signature.
        if let Ok(request) = Request::read(parts.clone(), body.clone()) {
            let (kind, links) = request.signed();
            let payload = format!(
                "{}\n{kind}\n{}\n{DATE}\n\n",
                method.to_lowercase(),
                links[0]
            );
            let hmac =
                Hmac::<Sha256>::new_from_slice(&STANDARD.decode(EMULATOR_KEY).unwrap()).unwrap();
            let signature = STANDARD.encode(hmac.chain_update(payload).finalize().into_bytes());
            let token = format!("type=master&ver=1.0&sig={signature}");
            parts
                .headers
                .insert("authorization", token.parse().unwrap());
        }
        (parts, body)
    }

    /// Sends a signed request to the first region.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let (parts, body) = Self::signed(method, path, headers, body);
        self.runtime.block_on(async {
            let answer = self.gateway.answer(self.door(), parts, body).await;
            let (parts, body) = answer.into_parts();
            Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.collect().await.unwrap().to_bytes(),
            }
        })
    }

    /// Sends a query, with some headers more.
    pub(super) fn query(&self, text: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![
            ("x-ms-documentdb-isquery", "True"),
            ("x-ms-documentdb-query-enablecrosspartition", "True"),
        ];
        all.extend(headers);
        let body = json!({"query": text}).to_string();
        self.send("POST", "/dbs/shop/colls/orders/docs", &all, body.as_bytes())
    }

    fn check(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let answer = self.send(method, path, headers, body);
        let what = || {
            format!(
                "{method} {path} {headers:?}: {} {:?}",
                answer.status, answer.body
            )
        };
        assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{}", what());
        assert_ne!(
            answer.status,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{}",
            what()
        );
        assert!(
            answer.headers.contains_key("x-ms-activity-id"),
            "{}",
            what()
        );
        if method != "HEAD" && answer.status.as_u16() >= 400 {
            let error = answer.json();
            assert!(
                error["code"].is_string() && error["message"].is_string(),
                "{}",
                what()
            );
        }
    }
}

/// Header values that mean something, nearly.
fn value() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "",
        "true",
        "True",
        "0",
        "1",
        "-1",
        "18446744073709551615",
        "18446744073709551616",
        "[\"t\"]",
        "[{}]",
        "[]",
        "[null]",
        "[1e999]",
        "[[1]]",
        "[\"t\",1]",
        "[",
        "*",
        "\"",
        "0:1#3#1=3#2=0",
        "0:1#",
        "0:",
        ":",
        "0:-1#57",
        "#",
        "1=",
        ",",
        ";",
        ".",
        "\"0.1;3,0\"",
        "\"0.18446744073709551615;3,0\"",
        "\"1.0;18446744073709551615,0\"",
        "\"9.9;1\"",
        "Incremental Feed",
        "Full-Fidelity Feed",
        "FF",
        "05C1",
        "zz",
        "3FFF",
        "return=minimal",
        "Thu, 06 Aug 2026 10:00:00 GMT",
        "application/query+json",
        "EffectivePartitionKeyRange",
        "2021-09-15",
        "OrderBy,Top",
        "{\"p\":{}}",
    ])
    .prop_map(str::to_owned);
    prop_oneof![
        6 => piece.clone(),
        2 => (piece.clone(), piece).prop_map(|(a, b)| a + &b),
        1 => "[ -~]{0,24}",
        1 => "[ü東 -~]{0,8}",
        1 => token(),
    ]
}

/// A continuation's envelope around anything.
fn token() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<i64>().prop_map(Value::from),
        "[\u{0}-~]{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "[\"t\"]",
            "o-1",
            "e3b0c44298fc1c14",
            "abcDAIiJkwUBAAAAAAAAAA=="
        ])
        .prop_map(Value::from),
    ];
    let inner = leaf.prop_recursive(4, 16, 4, |inner| {
        let name = prop::sample::select(vec!["p", "k", "q", "rid", "row", "n", "v"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..7).prop_map(|map| map
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    });
    inner.prop_map(|token| URL_SAFE_NO_PAD.encode(token.to_string()))
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let name = prop::sample::select(vec![
        "a-im",
        "if-none-match",
        "if-match",
        "if-modified-since",
        "prefer",
        "content-type",
        "x-ms-max-item-count",
        "x-ms-continuation",
        "x-ms-session-token",
        "x-ms-documentdb-partitionkey",
        "x-ms-documentdb-partitionkeyrangeid",
        "x-ms-start-epk",
        "x-ms-end-epk",
        "x-ms-read-key-type",
        "x-ms-documentdb-isquery",
        "x-ms-documentdb-query-enablecrosspartition",
        "x-ms-documentdb-is-upsert",
        "x-ms-cosmos-is-query-plan-request",
        "x-ms-cosmos-is-batch-request",
        "x-ms-cosmos-supported-query-features",
        "x-ms-cosmos-intended-collection-rid",
        "x-ms-cosmos-changefeed-wire-format-version",
        "x-ms-documentdb-populatequerymetrics",
        "x-ms-documentdb-pre-trigger-include",
        "x-ms-activity-id",
    ]);
    prop::collection::vec((name, value()), 0..12)
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec![
        "dbs",
        "shop",
        "colls",
        "orders",
        "docs",
        "o-1",
        "pkranges",
        "offers",
        "sprocs",
        "conflicts",
        "%2F",
        "%25",
        "%ff",
        "%e2%82%ac",
        "+",
        "..",
        "a%20b",
        "addresses",
        "users",
        "operations",
        "",
        "docs?a=%zz&b",
        "?",
    ]);
    let long = prop::sample::select(vec!["a", "%41", "/"]);
    let long = (long, 1..3_000_usize).prop_map(|(part, times)| part.repeat(times));
    prop_oneof![
        1 => long.prop_map(|name| format!("/dbs/shop/colls/orders/docs/{name}")),
        3 => Just("/dbs/shop/colls/orders/docs".to_owned()),
        1 => Just("/dbs/shop/colls/orders/docs/o-1".to_owned()),
        1 => Just("/dbs/shop/colls/orders/pkranges/".to_owned()),
        2 => prop::collection::vec(segment, 0..8).prop_map(|segments| format!("/{}", segments.join("/"))),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec![
        r#"{"query":"SELECT * FROM c"}"#,
        r#"{"query":"SELECT * FROM c ORDER BY c.n"}"#,
        r#"{"query":"SELECT * FROM c ORDER BY c.n","resumeFilter":{"value":[1]}}"#,
        r#"{"query":"SELECT VALUE COUNT(1) FROM c"}"#,
        r#"{"query":1}"#,
        r#"{"query":"SELECT @p","parameters":[{"name":"@p"}]}"#,
        r#"{"query":"","parameters":{}}"#,
        r#"{"id":"x","tenant":"t"}"#,
        r#"{"id":"x","tenant":{"a":1}}"#,
        r#"{"id":1}"#,
        r#"[{"operationType":"Create","resourceBody":{"id":"b","tenant":"t"}}]"#,
        r#"{"operations":[{"op":"set","path":"/a/b/-","value":1}]}"#,
        "[]",
        "",
        "\u{0}",
    ]);
    prop_oneof![
        6 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => Just(format!("{{\"id\":\"x\",\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000)).into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|mut bytes| { bytes.insert(0, 0x80); bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn every_request_is_answered(
        requests in prop::collection::vec(
            (prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]), path(), headers(), body()),
            1..40,
        ),
    ) {
        let setup = Setup::new();
        for (method, path, headers, body) in requests {
            // The part of a session that has not arrived yet is waited for, which is no matter here.
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.trim())).collect();
            setup.check(method, &path, &headers, &body);
        }
    }
}

/// A row of an operation as the .NET SDK writes it, among the documents that are there.
fn row() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(vec![0_i32, 1, 2, 4, 5, 20]);
    let text = |texts: &[&str]| {
        let texts = texts.iter().map(|text| text.as_bytes().to_vec());
        prop::option::weighted(0.8, prop::sample::select(texts.collect::<Vec<_>>()))
    };
    let partition = text(&["[\"t\"]"]);
    let id = text(&["o-0", "o-1", "o-2", "new"]);
    let body = text(&[
        r#"{"id":"o-1","tenant":"t","n":7}"#,
        r#"{"id":"new","tenant":"t"}"#,
        r#"{"operations":[{"op":"incr","path":"/n","value":1}]}"#,
        r#"{"id":"x","tenant":"other"}"#,
    ]);
    // If-Match, If-None-Match, minimal, and two that mean nothing here.
    let sparse = prop::sample::subsequence(
        vec![
            b"\x14\x09\x01*".to_vec(),
            b"\x14\x0a\x01*".to_vec(),
            b"\x03\x0c".to_vec(),
            b"\x07\x0b\x01\0\0\0".to_vec(),
            b"\x14\x08\x07Exclude".to_vec(),
        ],
        0..5,
    );
    (kind, partition, id, body, sparse).prop_map(|(kind, partition, id, body, sparse)| {
        let mut row = vec![0x81, 0x70, 0x54, 0xe1, 0x7f];
        let fields = [(2, partition), (4, id), (6, body)];
        let present = fields.iter().filter(|(_, field)| field.is_some());
        row.push(present.fold(3, |bits, (bit, _)| bits | 1 << bit));
        row.extend(kind.to_le_bytes());
        row.extend(2_i32.to_le_bytes());
        for field in fields.into_iter().filter_map(|(_, field)| field) {
            row.push(u8::try_from(field.len()).unwrap());
            row.extend(field);
        }
        row.extend(sparse.concat());
        row
    })
}

/// The stream of such rows.
fn stream(rows: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = b"\x81\xf0\xd8\xff\x7f\x01\x0a\0\0\0".to_vec();
    for row in rows {
        stream.extend(b"\x81\xf1\xd8\xff\x7f");
        stream.extend(u32::try_from(row.len()).unwrap().to_le_bytes());
        stream.extend(crc32fast::hash(row).to_le_bytes());
        stream.extend(row);
    }
    stream
}

/// What becomes of bytes on a bad way.
#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let at = any::<prop::sample::Index>;
        let telling = prop::sample::select(vec![0_u8, 1, 0x7f, 0x80, 0x81, 0xff]);
        prop_oneof![
            (at(), prop_oneof![telling, any::<u8>()]).prop_map(|(at, byte)| Self::Set(at, byte)),
            (at(), prop::collection::vec(any::<u8>(), 1..12))
                .prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            at().prop_map(Self::Cut),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        match self {
            _ if length == 0 => {}
            Self::Set(at, byte) => bytes[at.index(length)] = *byte,
            Self::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
}

/// The number of records of a stream.
fn records(mut stream: &[u8]) -> usize {
    assert!(stream.starts_with(b"\x81\xf0\xd8\xff\x7f"), "{stream:?}");
    stream = &stream[10..];
    let mut count = 0;
    while !stream.is_empty() {
        let length = u32::from_le_bytes(stream[5..9].try_into().unwrap());
        stream = &stream[13 + length as usize..];
        count += 1;
    }
    count
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn every_batch_of_rows_is_answered(
        rows in prop::collection::vec(row(), 1..6),
        in_row in prop::option::of((any::<prop::sample::Index>(), Damage::any())),
        in_stream in prop::option::of(Damage::any()),
        noise in prop::collection::vec(any::<u8>(), 0..60),
        is_atomic in any::<bool>(),
    ) {
        let setup = Setup::new();
        let atomic = if is_atomic { "True" } else { "False" };
        let headers = [
            ("x-ms-cosmos-is-batch-request", "True"),
            ("x-ms-cosmos-batch-atomic", atomic),
            ("x-ms-documentdb-partitionkey", "[\"t\"]"),
        ];
        let path = "/dbs/shop/colls/orders/docs";
        let whole = setup.send("POST", path, &headers, &stream(&rows));
        prop_assert!(matches!(whole.status.as_u16(), 200 | 207), "{} {:?}", whole.status, whole.body);
        prop_assert_eq!(records(&whole.body), rows.len());

        // Below the checksum, so that it is found by what reads rows; and above.
        let mut damaged = rows;
        if let Some((at, damage)) = in_row {
            damage.apply(at.get_mut(&mut damaged));
        }
        let mut damaged = stream(&damaged);
        if let Some(damage) = in_stream {
            damage.apply(&mut damaged);
        }
        setup.check("POST", path, &headers, &damaged);
        setup.check("POST", path, &headers, &[&[0x81], noise.as_slice()].concat());
        prop_assert_eq!(setup.query("SELECT * FROM c", &[]).status, StatusCode::OK);
    }
}

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const OWN: &str = "/dbs/shop/colls/orders/docs/o-1";

/// Depths about which there may be doubt, and some about which there is none.
fn depths() -> impl Iterator<Item = usize> {
    [100, 110, 150, 200, 250, 300].into_iter().chain(120..=132)
}

/// Sends a deep body; whatever the answer is, everything can be read afterwards.
fn send_deep(setup: &Setup, levels: usize, method: &str, path: &str, body: &[u8]) {
    let key = ("x-ms-documentdb-partitionkey", "[\"t\"]");
    let batch = ("x-ms-cosmos-is-batch-request", "True");
    let atomic = ("x-ms-cosmos-batch-atomic", "True");
    let is_batch = body.first() == Some(&b'[');
    let headers = if is_batch {
        vec![key, batch, atomic]
    } else {
        vec![key]
    };
    let answer = setup.send(method, path, &headers, body);
    let what = format!(
        "{levels} levels by {method} {path}, answered with {}",
        answer.status
    );
    let is_answer = matches!(answer.status.as_u16(), 200 | 201 | 207 | 400 | 409);
    assert!(is_answer, "{what}: {:?}", answer.body);
    let check = |then: &str, answer: Answer| {
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, StatusCode::OK, "{what}, then {then}: {body}");
    };
    check("a read", setup.send("GET", OWN, &[key], &[]));
    check("a list", setup.send("GET", DOCS, &[], &[]));
    let feed = [("a-im", "Incremental Feed")];
    check("the feed", setup.send("GET", DOCS, &feed, &[]));
    let range = [("x-ms-documentdb-partitionkeyrangeid", "0")];
    for text in [
        "SELECT * FROM c",
        "SELECT VALUE c.deep FROM c",
        "SELECT VALUE {\"d\": [c]} FROM c",
        "SELECT VALUE c.id FROM c WHERE IS_DEFINED(c.deep.a)",
        "SELECT * FROM c ORDER BY c.deep",
    ] {
        check(text, setup.query(text, &range));
    }
}

#[test]
fn nesting_is_answered_however_deep_and_does_no_harm() {
    let setup = Setup::new();
    for (levels, (open, close)) in depths()
        .flat_map(|levels| [("[", "]"), ("{\"a\":", "}")].map(|brackets| (levels, brackets)))
    {
        let nested = |levels| format!("{}1{}", open.repeat(levels), close.repeat(levels));
        let document =
            |id: &str, deep: &str| format!(r#"{{"id":"{id}","tenant":"t","deep":{deep}}}"#);
        let set = |path: &str| {
            let value = nested(levels);
            format!(r#"{{"operations":[{{"op":"set","path":"{path}","value":{value}}}]}}"#)
        };
        let new = document(
            &format!("{levels}{}", close.len() + open.len()),
            &nested(levels),
        );
        let batch = format!(
            r#"[{{"operationType":"Upsert","resourceBody":{new}}},{{"operationType":"Read","id":"o-1"}}]"#
        );
        // A value on top of the levels that the item has.
        let chain = format!("{}1{}", "{\"a\":".repeat(61), "}".repeat(61));
        let far = format!("/deep{}", "/a".repeat(60));
        for (method, path, body) in [
            ("POST", DOCS, new),
            ("PUT", OWN, document("o-1", &nested(levels))),
            ("PATCH", OWN, set("/deep")),
            ("PUT", OWN, document("o-1", &chain)),
            ("PATCH", OWN, set(&far)),
            ("POST", DOCS, batch),
        ] {
            send_deep(&setup, levels, method, path, body.as_bytes());
        }
    }
}

#[test]
fn nesting_in_binary_is_answered_however_deep_and_does_no_harm() {
    let setup = Setup::new();
    for levels in depths() {
        // Arrays and objects of one member, whose lengths nobody looks at.
        let array = b"\xe5\0\x01".to_vec();
        let object = b"\xed\0\x01\x81a".to_vec();
        for open in [array, object] {
            let mut body = b"\x80\xed\0\x03\x2c\x83o-1\x86tenant\x81t\x84deep".to_vec();
            body.extend(open.repeat(levels));
            body.push(1);
            send_deep(&setup, levels, "PUT", OWN, &body);
        }
    }
}

#[test]
fn an_authorization_that_is_none_is_refused() {
    let setup = Setup::new();
    for text in [
        "",
        "type",
        "type=master",
        "type=master&ver=1.0&sig=",
        "type%3Dmaster%26sig%3D%ff",
        "type=aad&sig=a.b.c",
        "type=resource&sig=x",
    ] {
        let request = http::Request::builder()
            .uri("/dbs")
            .header("authorization", text)
            .header("x-ms-date", DATE);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let answer =
            setup
                .runtime
                .block_on(setup.gateway.answer(setup.door(), parts, Bytes::new()));
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{text}");
    }
}

#[test]
fn a_date_that_is_not_of_azure_is_signed_on_the_line_after() {
    let setup = Setup::new();
    let hmac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(EMULATOR_KEY).unwrap()).unwrap();
    let hmac = hmac.chain_update(format!("get\ndbs\n\n\n{DATE}\n"));
    let signature = STANDARD.encode(hmac.finalize().into_bytes());
    let request = http::Request::builder()
        .uri("/dbs")
        .header("authorization", format!("type=master&sig={signature}"))
        .header("date", DATE);
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let answer = setup.gateway.answer(setup.door(), parts, Bytes::new());
    assert_eq!(setup.runtime.block_on(answer).status(), StatusCode::OK);
}

#[test]
fn a_region_that_accepts_nothing_refuses_a_batch_as_a_whole() {
    let setup = Setup::new();
    let region = setup.gateway.members().regions[0].clone();
    setup.runtime.block_on(region.replica.seal(true));
    let headers = [
        ("x-ms-cosmos-is-batch-request", "True"),
        ("x-ms-cosmos-batch-atomic", "True"),
        ("x-ms-documentdb-partitionkey", "[\"t\"]"),
    ];
    let body = br#"[{"operationType":"Read","id":"o-0"},{"operationType":"Delete","id":"o-1"}]"#;
    for (availability, substatus) in [
        (Availability::Online, "3"),
        (Availability::Withdrawn, "1008"),
    ] {
        region.set_availability(availability);
        let path = "/dbs/shop/colls/orders/docs";
        let (parts, body) = Setup::signed("POST", path, &headers, body);
        // Past the door, where it came in before the region was sealed.
        let request = Request::read(parts, body).ok().unwrap();
        let reply = setup.gateway.route(&region, &request);
        let reply = setup.runtime.block_on(reply).ok().unwrap();
        assert_eq!(
            (reply.status(), reply.substatus()),
            (StatusCode::FORBIDDEN, Some(substatus)),
            "{availability:?}"
        );
    }
}

#[test]
fn continuations_of_queries_are_short_and_each_page_goes_on() {
    let setup = Setup::new();
    let long = "x".repeat(255);
    let key = [("x-ms-documentdb-partitionkey", "[\"t\"]")];
    for n in 0..3 {
        let document =
            json!({"id": format!("{long}{n}"), "tenant": "t", "n": n, "text": "y".repeat(200)});
        let made = setup.send(
            "POST",
            "/dbs/shop/colls/orders/docs",
            &key,
            document.to_string().as_bytes(),
        );
        assert_eq!(made.status, StatusCode::CREATED);
    }
    for text in [
        "SELECT VALUE c.id FROM c",
        "SELECT VALUE c.id FROM c WHERE c.tenant = 't' ORDER BY c.text, c.n DESC",
        "SELECT TOP 5 VALUE c.id FROM c WHERE c.tenant = 't' ORDER BY c.n",
    ] {
        let whole = setup.query(text, &[]).json()["Documents"].clone();
        let mut paged = Vec::new();
        let mut continuation: Option<String> = None;
        loop {
            let mut headers = vec![("x-ms-max-item-count", "1")];
            headers.extend(
                continuation
                    .as_deref()
                    .map(|text| ("x-ms-continuation", text)),
            );
            let page = setup.query(text, &headers);
            assert_eq!(page.status, StatusCode::OK, "{text}: {:?}", page.body);
            paged.extend(page.json()["Documents"].as_array().unwrap().clone());
            continuation = page
                .headers
                .get("x-ms-continuation")
                .map(|text| text.to_str().unwrap().to_owned());
            match &continuation {
                Some(text) => assert!(text.len() < 1024, "{} bytes", text.len()),
                None => break,
            }
        }
        assert_eq!(Value::from(paged), whole, "{text}");
    }
}

#[test]
fn a_query_looks_at_no_more_than_it_needs() {
    let setup = Setup::new();
    for n in 0..600 {
        let tenant = format!("t{}", n % 3);
        let key = format!("[\"{tenant}\"]");
        let document = json!({"id": format!("{n}"), "tenant": tenant, "n": n}).to_string();
        let headers = [("x-ms-documentdb-partitionkey", key.as_str())];
        let made = setup.send(
            "POST",
            "/dbs/shop/colls/orders/docs",
            &headers,
            document.as_bytes(),
        );
        assert_eq!(made.status, StatusCode::CREATED);
    }
    let looked_at = |text: &str, headers: &[(&str, &str)]| -> String {
        let mut all = vec![
            ("x-ms-documentdb-populatequerymetrics", "True"),
            ("x-ms-documentdb-partitionkeyrangeid", "0"),
        ];
        all.extend(headers);
        let answer = setup.query(text, &all);
        assert_eq!(answer.status, StatusCode::OK, "{text}: {:?}", answer.body);
        answer.looked_at().to_owned()
    };
    for (text, expected) in [
        ("SELECT * FROM c", "101"),
        ("SELECT TOP 7 * FROM c", "7"),
        ("SELECT VALUE c.n FROM c WHERE c.tenant = 't1'", "101"),
        ("SELECT VALUE COUNT(1) FROM c WHERE c.tenant = 't1'", "200"),
        (
            "SELECT VALUE COUNT(1) FROM c WHERE c.tenant IN ('t1', 't2', 'none')",
            "400",
        ),
        ("SELECT * FROM c WHERE c.tenant = 't1' AND c.id = '1'", "1"),
        ("SELECT * FROM c WHERE c.tenant = 't1' AND c.id = '2'", "0"),
        ("SELECT * FROM c WHERE c.id = '599'", "1"),
        ("SELECT * FROM c WHERE c._ts < 5 AND c.n > 1", "0"),
        ("SELECT VALUE COUNT(1) FROM c WHERE c._ts >= 5", "603"),
        (
            "SELECT * FROM c WHERE c.tenant = 't1' AND c.tenant = 't2'",
            "0",
        ),
        ("SELECT 1 AS one", "0"),
    ] {
        assert_eq!(looked_at(text, &[]), expected, "{text}");
    }
    let key = [("x-ms-documentdb-partitionkey", "[\"t2\"]")];
    assert_eq!(looked_at("SELECT VALUE SUM(c.n) FROM c", &key), "200");
}

#[test]
fn headers_are_utf_8_or_refused() {
    let read = |name: &'static str, value: &[u8]| {
        let mut request = http::Request::get("/dbs/shop").body(()).expect("valid");
        let value = http::HeaderValue::from_bytes(value).expect("no control characters");
        request.headers_mut().insert(name, value);
        let (parts, ()) = request.into_parts();
        Request::read(parts, Bytes::new())
    };
    let name = "x-ms-documentdb-partitionkey";
    let request = read(name, r#"["é"]"#.as_bytes()).expect("a request");
    assert_eq!(request.header(name), Some(r#"["é"]"#));
    let refused = |name, value| {
        read(name, value)
            .err()
            .map(|error| error.into_reply().status())
    };
    assert_eq!(refused(name, b"[\"\xe9\"]"), Some(StatusCode::BAD_REQUEST));
    let kind = "content-encoding";
    assert_eq!(
        refused(kind, b"gzip"),
        Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    );
    assert_eq!(refused(kind, b"identity"), None);
}
