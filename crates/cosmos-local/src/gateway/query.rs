//! Queries and query plans: from requests to [`crate::query`], and from items to rows.

use std::{
    borrow::Cow,
    cell::Cell,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Gateway, Region,
    conditions::Conditions,
    documents::{MAX_PAGE, MAX_PAGE_BYTES, USUAL_PAGE, page, scope},
    reply::{ApiError, Reply},
    request::Request,
    scan::{Scan, SortedScan, Source, Stored},
};
use crate::{
    charge,
    container::Container,
    epk,
    partition_key::{Named, PartitionKey},
    query::{KeySet, Page, PageLimits, Position, Query, QueryError, Row, SortOrder, Supply},
    record::ItemKey,
    replica::{Replica, Table},
    scope::Scope,
};

/// What a client can have that has not said what it has.
const ALL_FEATURES: &str = "Aggregate,CompositeAggregate,CountIf,DCount,Distinct,GroupBy,ListAndSetAggregate,MultipleAggregates,MultipleOrderBy,NonStreamingOrderBy,NonValueAggregate,OffsetAndLimit,OrderBy,Top";

/// Body of a query.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    query: String,
    parameters: Option<Vec<Parameter>>,
    /// Where the Rust SDK goes on in a sorted query.
    resume_filter: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    #[serde(default)]
    value: Value,
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::bad_request(format!("Message: {}", error.to_json()))
    }
}

fn key_paths(container: &Container) -> Vec<&str> {
    container
        .partition_key
        .paths
        .iter()
        .map(String::as_str)
        .collect()
}

/// The parts of a container that a query's own filter leaves of a scope: disjoint, in key order.
fn scopes(query: &Query, container: &Container, scope: Scope) -> Vec<Scope> {
    if scope.partition().is_some() {
        return vec![scope];
    }
    match named(query, container) {
        None => vec![scope],
        Some(named) => named
            .into_iter()
            .map(|named| scope.clone().named(named))
            .collect(),
    }
}

/// What the items of a partition have at the paths of its key, where they have something.
fn known<'a>(container: &'a Container, partition: &PartitionKey) -> Vec<(&'a str, Value)> {
    let components: Vec<Value> = serde_json::from_str(&partition.value).unwrap_or_default();
    let known = key_paths(container).into_iter().zip(components);
    known.filter(|(_, value)| !value.is_object()).collect()
}

/// The partition keys that a query's own filter names, in order; `None` when it leaves all.
fn named(query: &Query, container: &Container) -> Option<Vec<Named>> {
    let KeySet::Keys(keys) = query.key_set(&key_paths(container)) else {
        return None;
    };
    let paths = container.partition_key.paths.len();
    let mut values: Vec<(PartitionKey, bool)> = keys
        .into_iter()
        .filter_map(|key| {
            let is_whole = key.len() == paths;
            let components = key
                .into_iter()
                .map(|value| value.unwrap_or_else(|| json!({})));
            // What cannot be a partition key has no documents.
            let value = container.partition_key.value(components.collect()).ok()?;
            Some((value, is_whole))
        })
        .collect();
    values.sort();
    values.dedup();
    let named = |(value, is_whole): (PartitionKey, bool)| match is_whole {
        true => Named::Value(value),
        false => Named::Prefix(value.epk.to_string()),
    };
    Some(values.into_iter().map(named).collect())
}

/// The ranges of effective partition keys that a query's rows can come from, for those who ask each range's owner.
fn ranges(query: &Query, container: &Container) -> Value {
    let range = |min: &str, max: &str, is_max_inclusive: bool| json!({"min": min, "max": max, "isMinInclusive": true, "isMaxInclusive": is_max_inclusive});
    let Some(named) = named(query, container) else {
        return json!([range(epk::FIRST, epk::END, false)]);
    };
    let mut ranges: Vec<Value> = named
        .iter()
        .map(|named| match named {
            Named::Value(PartitionKey { epk, .. }) => range(epk, epk, true),
            Named::Prefix(prefix) => range(prefix, &format!("{prefix}{}", epk::END), false),
        })
        .collect();
    ranges.dedup();
    if ranges.is_empty() {
        // Clients want somebody to ask; nobody has anything.
        ranges.push(range(epk::FIRST, epk::FIRST, true));
    }
    Value::Array(ranges)
}

fn plan(query: &Query, features: &str, container: &Container) -> Result<Value, QueryError> {
    query.plan(features, &key_paths(container), ranges(query, container))
}

impl Gateway {
    /// The query of a request.
    pub(super) fn parse(&self, request: &Request) -> Result<Query, ApiError> {
        let body: Body = request.json_as().map_err(|error| {
            ApiError::bad_request(format!("the body is not a query such as {{\"query\":\"SELECT * FROM c\",\"parameters\":[]}}: {error}"))
        })?;
        let parameters = body.parameters.into_iter().flatten();
        let parameters: Vec<_> = parameters.map(|it| (it.name, it.value)).collect();
        let query = self.statements.parse(&body.query, &parameters)?;
        Ok(match body.resume_filter {
            Some(filter) => query.with_resume_filter(&filter)?,
            None => query,
        })
    }

    pub(super) fn query_plan(
        &self,
        request: &Request,
        container: &Container,
    ) -> Result<Reply, ApiError> {
        let features = request
            .header("x-ms-cosmos-supported-query-features")
            .unwrap_or_default();
        Ok(Reply::json(
            StatusCode::OK,
            &plan(&self.parse(request)?, features, container)?,
        ))
    }

    pub(super) async fn query(
        &self,
        region: &Region,
        request: &Request,
        container: &Arc<Container>,
    ) -> Result<Reply, ApiError> {
        let query = self.parse(request)?;
        let scope = scope(request, container)?;
        let is_limited = scope != Scope::everything()
            || request
                .header("x-ms-documentdb-partitionkeyrangeid")
                .is_some();
        let scopes = scopes(&query, container, scope);
        let partition = match scopes.as_slice() {
            [only] => only.partition(),
            _ => None,
        };
        let is_one_partition = partition.is_some();
        if !is_limited && !is_one_partition {
            if !request.flag("x-ms-documentdb-query-enablecrosspartition") {
                return Err(ApiError::bad_request(
                    "the query is not limited to one partition key; give one, or allow queries across partitions",
                ));
            }
            if query.needs_plan() {
                let plan = plan(&query, ALL_FEATURES, container)?;
                return Err(ApiError::bad_request(
                    "this query spans partitions and needs a plan, by which the client merges",
                )
                .substatus(1004)
                .additional(plan.to_string()));
            }
        }
        let after = request.header("x-ms-continuation");
        let after = after.map(|text| Continuation::decode(&query, container, text));
        let after = after.transpose()?;
        let execution = Execution {
            order: query.sort_order(after.as_ref().map(|after| &after.position)),
            after,
            limits: PageLimits {
                rows: match query.starts_over() {
                    // Each page costs as much as all of them, so there are no more than are asked for.
                    true => request.page_size(usize::MAX, usize::MAX),
                    false => request.page_size(USUAL_PAGE, MAX_PAGE),
                },
                bytes: MAX_PAGE_BYTES,
            },
            has_metrics: request.flag("x-ms-documentdb-populatequerymetrics"),
            replica: Arc::clone(&region.replica),
            container: Arc::clone(container),
            conditions: Conditions::of(&query),
            query: match partition {
                Some(partition) => query.knowing(&known(container, partition)),
                None => query,
            },
            scopes,
        };
        if is_one_partition && execution.is_short() {
            return execution.page();
        }
        // It may have much to look at, while others want to be answered.
        let page = tokio::task::spawn_blocking(move || execution.page());
        page.await.unwrap_or_else(|error| {
            Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the query did not come to its end: {error}"),
            ))
        })
    }
}

/// Everything that makes a page of a query.
struct Execution {
    replica: Arc<Replica>,
    container: Arc<Container>,
    query: Query,
    conditions: Conditions,
    scopes: Vec<Scope>,
    /// The order in which rows come, where items can come in one.
    order: Option<SortOrder>,
    after: Option<Continuation>,
    limits: PageLimits,
    has_metrics: bool,
}

/// Items of a partition that are looked at in less time than it takes to let another thread do that.
const FEW: usize = 256;

impl Execution {
    /// Whether it takes no longer than other requests: little is done for an item, and few are looked at.
    fn is_short(&self) -> bool {
        let [scope] = self.scopes.as_slice() else {
            return false;
        };
        let state = self.replica.read();
        let few = |table: &Table| {
            self.reads_few_in_order(scope, table)
                || scope.items(table, Bound::Unbounded).nth(FEW).is_none()
        };
        self.query.is_light() && state.tables.get(&self.container.number).is_none_or(few)
    }

    /// Whether the items are in order already, and the first few make a page.
    fn reads_few_in_order(&self, scope: &Scope, table: &Table) -> bool {
        let order = self.order.as_ref();
        self.query.takes_all()
            && self.query.most_rows(self.limits) <= FEW
            && order.is_some_and(|order| table.has_order(scope, &order.paths))
    }

    /// What to read in an order, if that is what the query wants; it is only told once.
    fn take_order(&mut self) -> Option<(Scope, SortOrder)> {
        let [only] = self.scopes.as_slice() else {
            return None;
        };
        let order = self.order.take();
        let order = order.filter(|_| !self.conditions.name_an_item())?;
        Some((only.clone(), order))
    }

    fn page(mut self) -> Result<Reply, ApiError> {
        let started = Instant::now();
        let (key, after) = match self.after.take() {
            Some(after) => (after.key, Some(after.position)),
            None => (None, None),
        };
        let looked_at = Cell::new(0);
        let count = |_: &Stored| looked_at.set(looked_at.get() + 1);
        let order = self.take_order();
        let source = Source::new(self.replica, &self.container, self.conditions);
        let (query, limits, after) = (&self.query, self.limits, after.as_ref());
        let from = key.map_or(Bound::Unbounded, Bound::Included);
        let mut scan = Scan::new(&source, self.scopes, from);
        let sorted = match order {
            Some((_, order)) if source.is_scattered(&order) && scan.is_narrow() => None,
            Some((scope, order)) => {
                let most = query.most_rows(limits);
                let mut items = SortedScan::new(&source, scope, order, most);
                let counted = items.by_ref().inspect(count);
                let page = query.execute_page(counted, Supply::Sorted, limits, after)?;
                // There may be no such order; then the page is made again, of items in any order.
                (!items.has_failed()).then_some(page)
            }
            None => None,
        };
        let Page { rows, next, last } = match sorted {
            Some(page) => page,
            None => {
                looked_at.set(0);
                query.execute_page(scan.inspect(count), Supply::AnyOrder, limits, after)?
            }
        };
        let texts: Vec<Cow<'_, str>> = rows
            .iter()
            .map(|row| match row {
                Row::Document(document) => Cow::Borrowed(document.text()),
                Row::Value(value) => Cow::Owned(value.to_string()),
            })
            .collect();
        let looked_at = looked_at.get();
        let bytes = texts.iter().map(|text| text.len()).sum();
        let mut reply = page(&self.container, texts.iter().map(|text| &**text))
            .charge(charge::query(looked_at, bytes));
        if self.has_metrics {
            let metrics = metrics(started.elapsed(), looked_at, rows.len(), bytes);
            reply = reply.header("x-ms-documentdb-query-metrics", metrics);
        }
        Ok(match next {
            Some(position) => {
                let key = last.map(|last| last.0.key.clone());
                reply.header(
                    "x-ms-continuation",
                    Continuation { position, key }.encode(&self.query),
                )
            }
            None => reply,
        })
    }
}

/// What SDKs show of an execution; times that are not taken apart are zero.
fn metrics(time: Duration, looked_at: usize, rows: usize, bytes: usize) -> String {
    let time = time.as_secs_f64() * 1000.0;
    let ratio = if looked_at == 0 {
        1.0
    } else {
        (rows as f64 / looked_at as f64).min(1.0)
    };
    format!(
        "totalExecutionTimeInMs={time:.2};queryCompileTimeInMs=0.00;queryLogicalPlanBuildTimeInMs=0.00;\
         queryPhysicalPlanBuildTimeInMs=0.00;queryOptimizationTimeInMs=0.00;VMExecutionTimeInMs={time:.2};\
         indexLookupTimeInMs=0.00;instructionCount=0;documentLoadTimeInMs=0.00;systemFunctionExecuteTimeInMs=0.00;\
         userFunctionExecuteTimeInMs=0.00;retrievedDocumentCount={looked_at};retrievedDocumentSize={bytes};\
         outputDocumentCount={rows};outputDocumentSize={bytes};writeOutputTimeInMs=0.00;indexUtilizationRatio={ratio:.2}"
    )
}

/// Where a query goes on.
struct Continuation {
    position: Position,
    /// The item that the last row came from, where that is what the scan goes on with. A sorted query goes on from its
    /// sort values, wherever it finds them.
    key: Option<ItemKey>,
}

/// Its text.
#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(rename = "p")]
    position: Value,
    /// Partition key value and id.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    key: Option<(Arc<str>, Arc<str>)>,
}

impl Continuation {
    fn encode(self, query: &Query) -> String {
        let is_unsorted = self.position.values().is_empty();
        let token = Token {
            position: query.position_to_json(&self.position),
            key: self
                .key
                .filter(|_| is_unsorted)
                .map(|key| (key.partition.value, key.id)),
        };
        URL_SAFE_NO_PAD.encode(json!(token).to_string())
    }

    fn decode(query: &Query, container: &Container, text: &str) -> Result<Self, ApiError> {
        let foreign =
            || ApiError::bad_request("the continuation is not one of this account's queries");
        let token: Token = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(foreign)?;
        let position = query.position_from_json(&token.position)?;
        let key = match token.key {
            None if position.values().is_empty() && !query.starts_over() => return Err(foreign()),
            None => None,
            Some((value, id)) => {
                let components = serde_json::from_str(&value).map_err(|_| foreign())?;
                let partition = container.partition_key.value(components);
                Some(ItemKey {
                    partition: partition.map_err(ApiError::bad_request)?,
                    id,
                })
            }
        };
        Ok(Self { position, key })
    }
}
