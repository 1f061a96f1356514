//! The query plan: how a client splits a query over partitions and merges what comes back.
//!
//! The client sends the rewritten text to each partition. Sorted rows then carry their sort
//! values, groups their keys, and aggregates partial results that can be added up. Field names,
//! aggregate names and templates are those of the service
//! (`Azure/azure-cosmos-dotnet-v3: …/BaselineTest/TestBaseline/QueryPlanBaselineTests.*.xml`).

use serde_json::{Map, Value, json};

use super::ast::{
    Aggregate, Collection, Count, Direction, Expr, FunctionName, Item, Logical, Projection, Select,
    Source, Span, Window,
};
use super::error::{ErrorCode, QueryError, Result};

/// What clients put their resume condition, or `true`, in the place of.
const FILTER_PLACEHOLDER: &str = "({documentdb-formattableorderbyquery-filter})";

/// Parts of a plan that depend on more than the text.
pub(super) struct Facts {
    /// FROM reads the rows of a subquery that folds, sorts or cuts the whole collection.
    pub(super) folds_in_from: bool,
    /// Value of TOP.
    pub(super) top: Option<u64>,
    /// Values of OFFSET and LIMIT.
    pub(super) window: Option<(u64, u64)>,
    /// All rows come from one logical partition.
    pub(super) is_one_partition: bool,
    /// Features the client lists.
    pub(super) features: Vec<String>,
}

/// Whether the result of the query is more than its partitions' results one after the other.
pub(super) fn is_needed(select: &Select) -> bool {
    select.is_blocking()
        || select.top.is_some()
        || select.window.is_some()
        || !select.order_by.is_empty()
        || distinct_count(select).is_some()
}

/// The `queryInfo` of a plan.
pub(super) fn query_info(select: &Select, facts: &Facts) -> Result<Value> {
    if let Some((inner, alias)) = distinct_count(select) {
        require(&["DCount", "Distinct"], facts)?;
        let mut info = Info::new(select);
        info.distinct_type = "Unordered";
        info.rewritten = inner.to_string();
        info.distinct_count_alias = Some(alias);
        return Ok(info.into_json());
    }
    if facts.folds_in_from && !facts.is_one_partition {
        return Err(QueryError::new(
            ErrorCode::Unsupported,
            "A query over a subquery with DISTINCT, GROUP BY, aggregates, ORDER BY, TOP or OFFSET LIMIT cannot span partitions. Limit it to one partition key.",
        ));
    }
    require(&features(select), facts)?;
    let mut info = Info::new(select);
    info.top = facts.top;
    info.window = facts.window;
    let is_windowed = facts.top.is_some() || facts.window.is_some();
    if select.distinct {
        info.distinct_type = distinct_type(select);
    }
    if select.is_grouped() {
        info.group(select)?;
        info.rewritten = grouped(select)?.to_string();
    } else if !select.order_by.is_empty() {
        info.sort(select);
        info.rewritten = sorted(select, facts)?.to_string();
    } else if select.distinct && is_windowed {
        info.rewritten = without_window(select).to_string();
    } else if let Some((offset, limit)) = facts.window {
        if facts.is_one_partition {
            // The partition cuts the window itself.
            info.window = None;
        } else {
            info.rewritten = widened(select, offset, limit).to_string();
        }
    }
    Ok(info.into_json())
}

/// The members of `queryInfo`.
struct Info {
    distinct_type: &'static str,
    top: Option<u64>,
    window: Option<(u64, u64)>,
    order_by: Vec<&'static str>,
    order_by_expressions: Vec<String>,
    group_by_expressions: Vec<String>,
    group_by_aliases: Vec<String>,
    aggregates: Vec<&'static str>,
    aggregate_by_alias: Map<String, Value>,
    rewritten: String,
    has_select_value: bool,
    distinct_count_alias: Option<String>,
}

impl Info {
    fn new(select: &Select) -> Self {
        Self {
            distinct_type: "None",
            top: None,
            window: None,
            order_by: Vec::new(),
            order_by_expressions: Vec::new(),
            group_by_expressions: Vec::new(),
            group_by_aliases: Vec::new(),
            aggregates: Vec::new(),
            aggregate_by_alias: Map::new(),
            rewritten: String::new(),
            has_select_value: matches!(select.projection, Projection::Value(_)),
            distinct_count_alias: None,
        }
    }

    fn sort(&mut self, select: &Select) {
        for column in &select.order_by {
            self.order_by.push(match column.direction {
                Some(Direction::Descending) => "Descending",
                _ => "Ascending",
            });
            self.order_by_expressions.push(column.expr.to_string());
        }
    }

    fn group(&mut self, select: &Select) -> Result<()> {
        self.group_by_expressions = select.group_by.iter().map(Expr::to_string).collect();
        match &select.projection {
            Projection::Star(_) => {}
            Projection::Value(expr) => self.aggregates.extend(plan_name(expr)?),
            Projection::List(items) => {
                self.group_by_aliases = Select::names(items);
                for (name, item) in self.group_by_aliases.iter().zip(items) {
                    let aggregate = json!(plan_name(&item.expr)?);
                    self.aggregate_by_alias.insert(name.clone(), aggregate);
                }
            }
        }
        Ok(())
    }

    fn into_json(self) -> Value {
        json!({
            "distinctType": self.distinct_type,
            "top": self.top,
            "offset": self.window.map(|(offset, _)| offset),
            "limit": self.window.map(|(_, limit)| limit),
            "orderBy": self.order_by,
            "orderByExpressions": self.order_by_expressions,
            "groupByExpressions": self.group_by_expressions,
            "groupByAliases": self.group_by_aliases,
            "aggregates": self.aggregates,
            "groupByAliasToAggregateType": self.aggregate_by_alias,
            "rewrittenQuery": self.rewritten,
            "hasSelectValue": self.has_select_value,
            "dCountInfo": self.distinct_count_alias.map(|alias| json!({"dCountAlias": alias})),
            "hasNonStreamingOrderBy": false,
        })
    }
}

/// The plan name of an expression that is an aggregate. One inside of anything else has no
/// partial result that clients could add up.
fn plan_name(expr: &Expr) -> Result<Option<&'static str>> {
    match expr.as_aggregate() {
        Some((aggregate, _, _)) => Ok(Some(aggregate.plan_name())),
        None if expr.has_aggregate() => Err(QueryError::new(
            ErrorCode::Unsupported,
            "Compositions of aggregates and other expressions are not allowed.",
        )),
        None => Ok(None),
    }
}

/// `Ordered` lets clients compare each row with the one before only.
fn distinct_type(select: &Select) -> &'static str {
    match (&select.projection, select.order_by.as_slice()) {
        (Projection::Value(expr), [column]) if column.expr == *expr => "Ordered",
        _ => "Unordered",
    }
}

/// The query that counts the distinct rows of another, and the name of the count:
/// `SELECT COUNT(1) AS n FROM (SELECT DISTINCT …)`; no name with VALUE.
fn distinct_count(select: &Select) -> Option<(&Select, String)> {
    let (expr, alias) = match &select.projection {
        Projection::Value(expr) => (expr, String::new()),
        Projection::List(items) => match items.as_slice() {
            [item] => (&item.expr, Select::names(items).pop()?),
            _ => return None,
        },
        Projection::Star(_) => return None,
    };
    let [
        Source {
            collection: Collection::Subquery(inner),
            each: false,
            ..
        },
    ] = select.from.as_slice()
    else {
        return None;
    };
    let counts_rows = matches!(
        expr.as_aggregate(),
        Some((
            Aggregate::Count,
            [Expr::Number(_) | Expr::Text(_) | Expr::Bool(_) | Expr::Null],
            _
        ))
    );
    let is_plain = |select: &Select| {
        select.group_by.is_empty()
            && select.order_by.is_empty()
            && select.top.is_none()
            && select.window.is_none()
    };
    let is_distinct_count = counts_rows
        && is_plain(select)
        && !select.distinct
        && select.filter.is_none()
        && inner.distinct
        && !inner.is_grouped()
        && is_plain(inner);
    is_distinct_count.then_some((inner, alias))
}

/// What a client must be able to do, by the names of `x-ms-cosmos-supported-query-features`.
fn features(select: &Select) -> Vec<&'static str> {
    let mut features = Vec::new();
    if select.distinct {
        features.push("Distinct");
    }
    if select.top.is_some() {
        features.push("Top");
    }
    if select.window.is_some() {
        features.push("OffsetAndLimit");
    }
    match select.order_by.len() {
        0 => {}
        1 => features.push("OrderBy"),
        _ => features.push("MultipleOrderBy"),
    }
    if !select.group_by.is_empty() {
        features.push("GroupBy");
    }
    let aggregates: Vec<Aggregate> = select
        .projected()
        .into_iter()
        .filter_map(|expr| expr.as_aggregate())
        .map(|(aggregate, _, _)| aggregate)
        .collect();
    if !aggregates.is_empty() {
        features.push("Aggregate");
        let is_value = matches!(select.projection, Projection::Value(_));
        if !is_value && select.group_by.is_empty() {
            features.push("NonValueAggregate");
        }
        if aggregates.len() > 1 {
            features.push("MultipleAggregates");
        }
        if aggregates.contains(&Aggregate::CountIf) {
            features.push("CountIf");
        }
        if aggregates.contains(&Aggregate::MakeList) || aggregates.contains(&Aggregate::MakeSet) {
            features.push("ListAndSetAggregate");
        }
    }
    features
}

/// Rust tells this refusal from others by the words "unsupported features" and "Upgrade your SDK"
/// (`azure_data_cosmos_driver` 1.0.0).
fn require(needed: &[&str], facts: &Facts) -> Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .copied()
        .filter(|needed| !facts.features.iter().any(|known| known == needed))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(QueryError::new(
        ErrorCode::Unsupported,
        format!(
            "Query contains 1 or more unsupported features. Upgrade your SDK to a version that does support the requested features:\r\nQuery contained {}, which the calling client does not support.",
            missing.join(", ")
        ),
    ))
}

fn call(name: &str, arg: &Expr) -> Expr {
    Expr::Call {
        name: FunctionName(name.to_owned()),
        args: vec![arg.clone()],
        span: Span::default(),
    }
}

fn object<const N: usize>(members: [(&str, Expr); N]) -> Expr {
    Expr::Object(members.map(|(name, value)| (name.to_owned(), value)).into())
}

/// The partial result of an aggregate; other expressions stay as they are. Python reads `item`
/// of MIN and MAX, the others `item2`, whose count tells an empty partition from an undefined one.
fn partial(expr: &Expr) -> Expr {
    let Some((aggregate, [arg], _)) = expr.as_aggregate() else {
        return expr.clone();
    };
    let with_count = |name: &'static str| {
        object([
            ("item", expr.clone()),
            (
                "item2",
                object([(name, expr.clone()), ("count", call("COUNT", arg))]),
            ),
        ])
    };
    match aggregate {
        Aggregate::Average => object([(
            "item",
            object([("sum", call("SUM", arg)), ("count", call("COUNT", arg))]),
        )]),
        Aggregate::Min => with_count("min"),
        Aggregate::Max => with_count("max"),
        Aggregate::Count
        | Aggregate::CountIf
        | Aggregate::Sum
        | Aggregate::MakeList
        | Aggregate::MakeSet => object([("item", expr.clone())]),
    }
}

/// `[{"item": a}, {"item": b}]`
fn items<'e>(exprs: impl Iterator<Item = &'e Expr>) -> Expr {
    Expr::Array(exprs.map(|expr| object([("item", expr.clone())])).collect())
}

/// The select list as one object.
fn members(list: &[Item], content: impl Fn(&Expr) -> Expr) -> Expr {
    let names = Select::names(list);
    Expr::Object(
        names
            .into_iter()
            .zip(list)
            .map(|(name, item)| (name, content(&item.expr)))
            .collect(),
    )
}

fn named(expr: Expr, alias: &str) -> Item {
    Item {
        expr,
        alias: Some(alias.to_owned()),
    }
}

fn without_window(select: &Select) -> Select {
    Select {
        top: None,
        window: None,
        ..select.clone()
    }
}

/// All rows that can be among the first `offset + limit` of the whole.
fn widened(select: &Select, offset: u64, limit: u64) -> Select {
    let reach = offset.saturating_add(limit).min(u64::from(u32::MAX));
    Select {
        top: None,
        window: Some(Window {
            offset: Count::Literal(0),
            limit: Count::Literal(reach),
        }),
        ..select.clone()
    }
}

fn grouped(select: &Select) -> Result<Select> {
    let mut rewritten = without_window(select);
    // Equal partial results of different groups or partitions must all arrive.
    rewritten.distinct = false;
    let (payload, is_value) = match &select.projection {
        Projection::Value(expr) if expr.as_aggregate().is_some() => {
            (Expr::Array(vec![partial(expr)]), true)
        }
        Projection::Value(expr) => (expr.clone(), true),
        Projection::List(list) => (members(list, partial), false),
        Projection::Star(span) => {
            return Err(QueryError::at(
                *span,
                ErrorCode::StarWithGroupBy,
                "'SELECT *' is not allowed with GROUP BY.",
            ));
        }
    };
    rewritten.projection = if !select.group_by.is_empty() {
        Projection::List(vec![
            named(items(select.group_by.iter()), "groupByItems"),
            named(payload, "payload"),
        ])
    } else if is_value {
        Projection::Value(payload)
    } else {
        Projection::List(vec![named(payload, "payload")])
    };
    Ok(rewritten)
}

fn sorted(select: &Select, facts: &Facts) -> Result<Select> {
    let root = root(select)?;
    let mut rewritten = match (select.distinct, facts.top, facts.window) {
        // Rows that clients drop as duplicates must not use up the window.
        (true, _, _) | (false, None, None) => without_window(select),
        (false, Some(top), _) => Select {
            top: Some(Count::Literal(top)),
            ..select.clone()
        },
        (false, None, Some((offset, limit))) => widened(select, offset, limit),
    };
    rewritten.distinct = false;
    let payload = match &select.projection {
        Projection::Star(_) => root.clone(),
        Projection::Value(expr) => expr.clone(),
        Projection::List(list) => members(list, Expr::clone),
    };
    let placeholder = Expr::Name {
        name: FILTER_PLACEHOLDER.to_owned(),
        span: Span::default(),
    };
    let mut filter = match &select.filter {
        Some(filter) => and(filter.clone(), placeholder),
        None => placeholder,
    };
    if let Projection::Value(expr) = &select.projection {
        filter = and(filter, call("IS_DEFINED", expr));
    }
    rewritten.filter = Some(filter);
    let rid = Expr::Member {
        base: Box::new(root),
        name: "_rid".to_owned(),
        span: Span::default(),
    };
    let columns = items(select.order_by.iter().map(|column| &column.expr));
    rewritten.projection = Projection::List(vec![
        Item {
            expr: rid,
            alias: None,
        },
        named(columns, "orderByItems"),
        named(payload, "payload"),
    ]);
    Ok(rewritten)
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::Logical {
        operator: Logical::And,
        terms: vec![left, right],
    }
}

/// The name of the documents, which clients need for their `_rid`.
fn root(select: &Select) -> Result<Expr> {
    match select.from.first() {
        Some(
            source @ Source {
                collection: Collection::Path { steps, span, .. },
                each: false,
                ..
            },
        ) if steps.is_empty() => Ok(Expr::Name {
            name: source.name().unwrap_or_default().to_owned(),
            span: *span,
        }),
        _ => Err(QueryError::new(
            ErrorCode::OrderBy,
            "Unsupported ORDER BY clause. ORDER BY item expression could not be mapped to a document path.",
        )),
    }
}
