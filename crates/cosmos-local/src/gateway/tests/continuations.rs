//! Continuations that were good once: clients keep them, cut them off, and take them to where they do not belong.

use prop::sample::Index;

use super::*;

const ALL_VERSIONS: (&str, &str) = ("a-im", "Full-Fidelity Feed");

/// A request for a page of one row.
struct Paged {
    method: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    /// The header that says where to go on, and the one of the answer that says where.
    goes_on: (&'static str, &'static str),
}

impl Paged {
    fn list(headers: &[(&'static str, &'static str)]) -> Self {
        Self {
            method: "GET",
            headers: headers.to_vec(),
            body: String::new(),
            goes_on: ("x-ms-continuation", "x-ms-continuation"),
        }
    }

    fn feed(mode: (&'static str, &'static str)) -> Self {
        Self {
            goes_on: ("if-none-match", "etag"),
            ..Self::list(&[mode])
        }
    }

    fn query(text: &str) -> Self {
        let headers = [
            ("x-ms-documentdb-isquery", "True"),
            ("x-ms-documentdb-partitionkey", "[\"t\"]"),
        ];
        Self {
            method: "POST",
            body: json!({"query": text}).to_string(),
            ..Self::list(&headers)
        }
    }

    fn headers<'a>(&'a self, token: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
        let mut headers = self.headers.clone();
        headers.push(("x-ms-max-item-count", "1"));
        headers.extend(token.map(|token| (self.goes_on.0, token)));
        headers
    }

    /// Where a page of it says to go on.
    fn token(&self, setup: &Setup) -> String {
        // Of all versions, none are to be had but those from now on.
        let is_from_now = self.headers.contains(&ALL_VERSIONS);
        let headers = self.headers(is_from_now.then_some("*"));
        let answer = setup.send(self.method, DOCS, &headers, self.body.as_bytes());
        let token = answer.headers.get(self.goes_on.1);
        let token = token.unwrap_or_else(|| panic!("{} {:?}", self.body, answer.body));
        token.to_str().unwrap().to_owned()
    }
}

fn all() -> Vec<Paged> {
    let mut all = vec![
        Paged::list(&[]),
        Paged::list(&[("x-ms-documentdb-partitionkey", "[\"t\"]")]),
        Paged::feed(("a-im", "Incremental Feed")),
        Paged::feed(ALL_VERSIONS),
    ];
    let queries = [
        "SELECT * FROM c",
        "SELECT * FROM c ORDER BY c.n DESC",
        "SELECT c.id FROM c ORDER BY c.tenant, c.n",
        "SELECT DISTINCT VALUE c.n FROM c",
        "SELECT * FROM c OFFSET 1 LIMIT 2",
        "SELECT c.n, COUNT(1) FROM c GROUP BY c.n",
        "SELECT TOP 2 VALUE c.n FROM c",
    ];
    all.extend(queries.map(Paged::query));
    all
}

/// What becomes of a continuation.
#[derive(Debug, Clone)]
enum Change {
    Bytes(Damage),
    /// A value somewhere in its JSON becomes another one.
    Value(Index, Value),
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![
        prop::sample::select(vec![
            json!(null),
            json!({}),
            json!([]),
            json!(-1),
            json!(1e308),
            json!(u64::MAX),
            json!(""),
            json!("[\"t\"]"),
            json!([[[1]]]),
        ]),
        "[ -~]{0,8}".prop_map(Value::from),
    ];
    prop_oneof![
        Damage::any().prop_map(Change::Bytes),
        (any::<Index>(), value).prop_map(|(at, value)| Change::Value(at, value)),
    ]
}

/// All values in a value, itself first.
fn values(value: &mut Value, visit: &mut impl FnMut(&mut Value)) {
    visit(value);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| values(item, visit)),
        Value::Object(members) => members.values_mut().for_each(|item| values(item, visit)),
        _ => {}
    }
}

impl Change {
    /// `None` where that could not be sent.
    fn apply(&self, token: &str) -> Option<String> {
        let mut bytes = token.as_bytes().to_vec();
        match self {
            Self::Bytes(damage) => damage.apply(&mut bytes),
            Self::Value(at, new) => {
                let json = URL_SAFE_NO_PAD.decode(token).ok()?;
                let mut json: Value = serde_json::from_slice(&json).ok()?;
                let mut count = 0;
                values(&mut json, &mut |_| count += 1);
                let mut left = at.index(count) + 1;
                values(&mut json, &mut |value| {
                    left = left.wrapping_sub(1);
                    if left == 0 {
                        *value = new.clone();
                    }
                });
                bytes = URL_SAFE_NO_PAD.encode(json.to_string()).into_bytes();
            }
        }
        HeaderValue::from_bytes(&bytes).ok()?;
        String::from_utf8(bytes).ok()
    }
}

#[test]
fn continuations_are_answered_whatever_has_become_of_them() {
    let setup = Setup::new();
    let all = all();
    let tokens: Vec<String> = all.iter().map(|paged| paged.token(&setup)).collect();
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(4096)
    };
    let changes = prop::collection::vec(change(), 0..3);
    let strategy = (any::<Index>(), any::<Index>(), any::<bool>(), changes);
    let run = |(from, to, is_own, changes): (Index, Index, bool, Vec<Change>)| {
        let from = from.index(all.len());
        let to = if is_own { from } else { to.index(all.len()) };
        let token = changes
            .iter()
            .try_fold(tokens[from].clone(), |token, change| change.apply(&token));
        if let Some(token) = token {
            let (paged, body) = (&all[to], all[to].body.as_bytes());
            setup.check(paged.method, DOCS, &paged.headers(Some(token.trim())), body);
        }
        Ok(())
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner.run(&strategy, run).unwrap();
}
