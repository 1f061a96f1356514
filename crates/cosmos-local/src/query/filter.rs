//! What a WHERE clause says about single paths: the part of it that an index can answer.
//!
//! Everything here is a necessary condition: a document that breaks it cannot give a row. It may
//! be wider than the clause, never narrower.

use std::collections::BTreeMap;

use serde_json::Value;

use super::MAX_KEYS;
use super::ast::{Binary, Direction, Unary};
use super::order::{Place, SortOrder, SortPaths};
use super::program::{Expr, Pattern, Program, Values};
use super::value;

/// The partition keys that rows of a query can come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum KeySet {
    /// Any.
    Everything,
    /// These keys only; none at all when empty. A component is `None` for undefined, which is
    /// also where documents with an array or object at the path are. A key with fewer components
    /// than the container has paths stands for all keys that start with it.
    Keys(Vec<Vec<Option<Value>>>),
}

/// The values between two bounds, all of one type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RangeFilter {
    /// Path in the document, like `/_ts`.
    pub(crate) path: String,
    /// Smallest value, and whether it belongs to the range.
    pub(crate) lower: Option<(Value, bool)>,
    /// Largest value, and whether it belongs to the range.
    pub(crate) upper: Option<(Value, bool)>,
}

/// A set of values of one path, by their encodings; arrays and objects count as undefined.
type ValueSet = BTreeMap<Vec<u8>, Option<Value>>;

/// The values a path can have. `None`: any.
type Allowed = Option<ValueSet>;

/// A program together with the way its names lead to the document.
struct Paths<'p> {
    /// Frames between the filter and the document.
    up: usize,
    /// Members from the document to the first source's value.
    prefix: Vec<&'p str>,
}

impl<'p> Paths<'p> {
    /// Nothing when the rows of the first source are not fixed places of the document.
    fn of(program: &'p Program) -> Option<Self> {
        let first = program.sources.first()?;
        match &first.values {
            Values::Path(path) if !first.each => Some(Self {
                up: program.sources.len() - 1,
                prefix: members(path, 0)?,
            }),
            _ => None,
        }
    }

    /// The place an expression names, as members from the document on.
    fn place(&self, expr: &'p Expr) -> Option<Vec<&'p str>> {
        let mut place = self.prefix.clone();
        place.extend(members(expr, self.up)?);
        Some(place)
    }
}

/// The members from a frame's first cell on.
fn members(expr: &Expr, frame: usize) -> Option<Vec<&str>> {
    match expr {
        Expr::Slot { up, cell: 0 } if *up == frame => Some(Vec::new()),
        Expr::Member { base, name } => {
            let mut members = members(base, frame)?;
            members.push(name);
            Some(members)
        }
        _ => None,
    }
}

/// Writes a place as a path, `/a/b`; a name that holds a slash or quote is quoted.
fn path(place: &[&str]) -> String {
    let mut path = String::new();
    for name in place {
        path.push('/');
        match name.contains(['/', '"']) {
            true => path.push_str(&Value::from(*name).to_string()),
            false => path.push_str(name),
        }
    }
    path
}

/// Splits a partition key path as a container defines it.
fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .skip(1)
        .map(|segment| segment.trim_matches('"').to_owned())
        .collect()
}

/// The document-level terms that must all hold.
fn conjuncts(filter: &Expr) -> Vec<&Expr> {
    match filter {
        Expr::All(terms) => terms.iter().flat_map(conjuncts).collect(),
        other => vec![other],
    }
}

/// Which of the two sides is a constant, and the other one.
fn against_constant(operands: &(Expr, Expr)) -> Option<(&Expr, &Value, bool)> {
    match operands {
        (expr, Expr::Constant(value)) => Some((expr, value, false)),
        (Expr::Constant(value), expr) => Some((expr, value, true)),
        _ => None,
    }
}

/// See [`super::Query::equality_filters`].
pub(super) fn equalities(program: &Program) -> Vec<(String, Value)> {
    if let Some(feed) = &program.feed {
        return equalities(feed);
    }
    let (Some(paths), Some(filter)) = (Paths::of(program), &program.filter) else {
        return Vec::new();
    };
    conjuncts(filter)
        .into_iter()
        .filter_map(|term| {
            let (expr, value) = match term {
                Expr::Binary {
                    operator: Binary::Equal,
                    operands,
                } => against_constant(operands).map(|(expr, value, _)| (expr, value.clone()))?,
                Expr::In {
                    value,
                    list,
                    negated: false,
                } => match list.as_slice() {
                    [Expr::Constant(only)] => (&**value, only.clone()),
                    _ => return None,
                },
                Expr::Member { .. } => (term, Value::Bool(true)),
                _ => return None,
            };
            Some((path(&paths.place(expr)?), value))
        })
        .collect()
}

/// See [`super::Query::range_filters`].
pub(super) fn ranges(program: &Program) -> Vec<RangeFilter> {
    if let Some(feed) = &program.feed {
        return ranges(feed);
    }
    let (Some(paths), Some(filter)) = (Paths::of(program), &program.filter) else {
        return Vec::new();
    };
    let mut filters = Vec::new();
    for term in conjuncts(filter) {
        let (expr, lower, upper) = match term {
            Expr::Between {
                parts,
                negated: false,
            } => {
                let (Some(low), Some(high)) = (parts.1.constant(), parts.2.constant()) else {
                    continue;
                };
                (
                    &parts.0,
                    Some((low.clone(), true)),
                    Some((high.clone(), true)),
                )
            }
            Expr::Binary { operator, operands } => {
                let Some((expr, value, is_flipped)) = against_constant(operands) else {
                    continue;
                };
                let bound = |inclusive| Some((value.clone(), inclusive));
                match (operator, is_flipped) {
                    (Binary::Less, false) | (Binary::Greater, true) => (expr, None, bound(false)),
                    (Binary::LessOrEqual, false) | (Binary::GreaterOrEqual, true) => {
                        (expr, None, bound(true))
                    }
                    (Binary::Greater, false) | (Binary::Less, true) => (expr, bound(false), None),
                    (Binary::GreaterOrEqual, false) | (Binary::LessOrEqual, true) => {
                        (expr, bound(true), None)
                    }
                    _ => continue,
                }
            }
            _ => continue,
        };
        if let Some(place) = paths.place(expr) {
            filters.push(RangeFilter {
                path: path(&place),
                lower,
                upper,
            });
        }
    }
    filters
}

/// See [`super::Query::knowing`].
pub(super) fn assume(program: &mut Program, known: &[(&str, Value)]) {
    let Some(filter) = program.filter.take() else {
        return;
    };
    let known: Vec<(Vec<String>, &Value)> = known
        .iter()
        .map(|(path, value)| (segments(path), value))
        .collect();
    let remaining = match Paths::of(program) {
        Some(paths) => without(&paths, filter, &known),
        None => Some(filter),
    };
    program.filter = remaining;
}

/// What is left of a filter without equalities that are known to hold.
fn without(paths: &Paths<'_>, filter: Expr, known: &[(Vec<String>, &Value)]) -> Option<Expr> {
    let is_known = match &filter {
        Expr::Binary {
            operator: Binary::Equal,
            operands,
        } => against_constant(operands).is_some_and(|(expr, value, _)| {
            let place = paths.place(expr);
            known.iter().any(|(path, known)| {
                place.as_ref().is_some_and(|place| *place == **path) && value::equal(value, known)
            })
        }),
        _ => false,
    };
    match filter {
        _ if is_known => None,
        Expr::All(terms) => {
            let terms = terms.into_iter();
            let left: Vec<Expr> = terms.filter_map(|it| without(paths, it, known)).collect();
            (!left.is_empty()).then_some(Expr::All(left))
        }
        other => Some(other),
    }
}

/// See [`super::Query::sort_order`].
pub(super) fn sort_order(program: &Program) -> Option<SortOrder> {
    let paths = Paths::of(program).filter(|_| !program.is_blocking())?;
    let direction = program.order.first()?.direction;
    let mut places = Vec::with_capacity(program.order.len());
    for column in &program.order {
        let place = paths.place(&column.expr)?;
        if column.direction != direction || place.is_empty() {
            return None;
        }
        places.push(place);
    }
    let first = path(&places[0]);
    let equal = equalities(program)
        .into_iter()
        .find(|(path, _)| *path == first);
    let mut between = match equal {
        Some((_, value)) => (
            Some(Place::before(value.clone())),
            Some(Place::behind(value)),
        ),
        None => (None, None),
    };
    for range in ranges(program) {
        if range.path == first {
            between.0 = between
                .0
                .or(range.lower.map(|(value, _)| Place::before(value)));
            between.1 = between
                .1
                .or(range.upper.map(|(value, _)| Place::behind(value)));
        }
    }
    let owned = |place: Vec<&str>| place.into_iter().map(str::to_owned).collect();
    Some(SortOrder {
        paths: SortPaths::new(places.into_iter().map(owned).collect()),
        is_descending: direction == Direction::Descending,
        between,
    })
}

/// See [`super::Query::key_set`].
pub(super) fn key_set(program: &Program, key_paths: &[&str]) -> KeySet {
    if let Some(feed) = &program.feed {
        return key_set(feed, key_paths);
    }
    if program.sources.is_empty() {
        return KeySet::Keys(Vec::new());
    }
    let (Some(paths), Some(filter)) = (Paths::of(program), &program.filter) else {
        return KeySet::Everything;
    };
    let mut keys: Vec<Vec<Option<Value>>> = vec![Vec::new()];
    let mut is_open = false;
    for key_path in key_paths {
        let place = segments(key_path);
        match allowed(&paths, filter, &place) {
            None => is_open = true,
            Some(values) if values.is_empty() => return KeySet::Keys(Vec::new()),
            // Later components narrow nothing once one before them is open.
            Some(_) if is_open => {}
            Some(values) => {
                if keys.len().saturating_mul(values.len()) > MAX_KEYS {
                    is_open = true;
                    continue;
                }
                keys = keys
                    .iter()
                    .flat_map(|key| {
                        values.values().map(|value| {
                            let mut key = key.clone();
                            key.push(value.clone());
                            key
                        })
                    })
                    .collect();
            }
        }
    }
    match keys.first() {
        Some(key) if key.is_empty() => KeySet::Everything,
        _ => KeySet::Keys(keys),
    }
}

fn one(value: &Value) -> Allowed {
    let component = value::is_primitive(value).then(|| value.clone());
    Some([(value::encoded(component.as_ref()), component)].into())
}

fn many<'v>(values: impl IntoIterator<Item = &'v Value>) -> Allowed {
    Some(values.into_iter().filter_map(one).flatten().collect())
}

/// The values the path can have where `expr` is true.
fn allowed(paths: &Paths<'_>, expr: &Expr, place: &[String]) -> Allowed {
    let is_here = |expr| paths.place(expr).is_some_and(|found| found == *place);
    match expr {
        Expr::Constant(Value::Bool(true)) => None,
        // Nothing but true lets a row through.
        Expr::Constant(_) | Expr::Undefined => Some(ValueSet::new()),
        Expr::Member { .. } if is_here(expr) => one(&Value::Bool(true)),
        Expr::Unary {
            operator: Unary::Not,
            operand,
        } if is_here(operand) => one(&Value::Bool(false)),
        Expr::All(terms) => terms
            .iter()
            .filter_map(|term| allowed(paths, term, place))
            .reduce(|mut left, right| {
                left.retain(|value, _| right.contains_key(value));
                left
            }),
        Expr::Any(terms) => {
            let mut union = ValueSet::new();
            for term in terms {
                union.extend(allowed(paths, term, place)?);
            }
            Some(union)
        }
        Expr::Binary {
            operator: Binary::Equal,
            operands,
        } => match against_constant(operands) {
            Some((expr, value, _)) if is_here(expr) => one(value),
            _ => None,
        },
        Expr::In {
            value,
            list,
            negated: false,
        } if is_here(value) && list.iter().all(Expr::is_constant) => {
            many(list.iter().filter_map(Expr::constant))
        }
        Expr::InSet {
            value,
            constants,
            negated: false,
            ..
        } if is_here(value) => many(constants),
        Expr::Like {
            value,
            pattern: Pattern::Fixed(like),
            negated: false,
        } if is_here(value) => one(&Value::from(like.exact()?)),
        Expr::Call { builtin, args } => match (builtin.name, args.as_slice()) {
            ("ARRAY_CONTAINS", [Expr::Constant(Value::Array(items)), expr]) if is_here(expr) => {
                many(items)
            }
            ("IS_NULL", [expr]) if is_here(expr) => one(&Value::Null),
            ("IS_BOOL", [expr]) if is_here(expr) => many(&[Value::Bool(false), Value::Bool(true)]),
            _ => None,
        },
        _ => None,
    }
}
