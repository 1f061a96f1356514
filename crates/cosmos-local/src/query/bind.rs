//! Tree to program: what every name means, and whether the query makes sense at all.
//!
//! The environment of a running query is a chain of frames. The outermost holds the document;
//! each FROM source adds one. Binding turns every name into the number of frames to go out and
//! the cell to take there. Whatever does not depend on rows is computed here, once.

use std::collections::HashSet;

use serde_json::Value;

use super::ast::{self, Aggregate, Collection, Count, Direction, Select, Span, Step};
use super::error::{ErrorCode, QueryError, Result};
use super::eval::{Env, Machine};
use super::functions::{self, Builtin};
use super::like::Like;
use super::program::{Expr, Grouping, Pattern, Program, Projection, SortColumn, Source, Values};
use super::value;

/// Constants in an IN list from which on a hash set is cheaper than comparing one by one.
const IN_SET_FROM: usize = 8;

/// Binds the outermost query: its first source reads the documents.
pub(super) fn bind(select: &Select, parameters: &[(String, Value)]) -> Result<Program> {
    Binder {
        parameters,
        frames: Vec::new(),
        own: 0,
        folded: None,
    }
    .outermost(select)
}

/// The value of a count; parameters must hold whole numbers in the same range as literals.
pub(super) fn count(count: &Count, parameters: &[(String, Value)], code: ErrorCode) -> Result<u64> {
    match count {
        Count::Literal(count) => Ok(*count),
        Count::Parameter { name, span } => parameter(parameters, name, *span)?
            .as_f64()
            .filter(|count| count.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(count))
            .map(|count| count as u64)
            .ok_or_else(|| {
                QueryError::at(
                    *span,
                    code,
                    format!("The value of parameter '@{name}' must be a non-negative integer."),
                )
            }),
    }
}

fn parameter<'q>(parameters: &'q [(String, Value)], name: &str, span: Span) -> Result<&'q Value> {
    parameters
        .iter()
        .find(|(known, _)| known.strip_prefix('@').unwrap_or(known) == name)
        .map(|(_, value)| value)
        .ok_or_else(|| {
            QueryError::at(
                span,
                ErrorCode::Unresolved,
                format!("Parameter '@{name}' was not supplied with the query."),
            )
        })
}

/// What is visible while an expression is bound.
struct Binder<'q> {
    parameters: &'q [(String, Value)],
    /// Outermost first. The name under which the frame's first cell goes, if any.
    frames: Vec<Option<String>>,
    /// The first frame of the query being bound; those before belong to the queries around it.
    own: usize,
    /// Set while the select list of a folded query is bound.
    folded: Option<Folded<'q>>,
}

/// The state of binding a select list over groups.
struct Folded<'q> {
    keys: &'q [ast::Expr],
    aggregates: Vec<(Aggregate, Expr)>,
    /// The frames of this query's own sources; visible inside aggregates only.
    sources: Vec<Option<String>>,
}

impl<'q> Binder<'q> {
    fn outermost(mut self, select: &'q Select) -> Result<Program> {
        self.frames.push(None);
        self.own = self.frames.len();
        if let Some(first) = select.from.first()
            && let Collection::Subquery(inner) = &first.collection
            && !first.each
            && folds_the_collection(inner)
        {
            let feed = bind(inner, self.parameters)?;
            self.frames.push(first.alias.clone());
            let rows_are_documents = Source {
                values: Values::Path(Expr::Slot { up: 0, cell: 0 }),
                each: false,
            };
            let mut sources = vec![rows_are_documents];
            for joined in &select.from[1..] {
                sources.push(self.source(joined)?);
            }
            let mut program = self.clauses(select, sources)?;
            program.feed = Some(Box::new(feed));
            return Ok(program);
        }
        let mut sources = Vec::new();
        for source in &select.from {
            sources.push(self.source(source)?);
        }
        if sources.is_empty() {
            // Without FROM no document is in sight, for subqueries neither.
            self.frames.push(None);
        }
        self.clauses(select, sources)
    }

    /// Binds a query inside another: all its sources are in scope already.
    fn subquery(&mut self, select: &'q Select) -> Result<Program> {
        let outer = self.frames.len();
        let enclosing = (std::mem::replace(&mut self.own, outer), self.folded.take());
        let mut sources = Vec::new();
        for source in &select.from {
            sources.push(self.source(source)?);
        }
        let program = self.clauses(select, sources);
        self.frames.truncate(outer);
        (self.own, self.folded) = enclosing;
        program
    }

    /// Binds one source and adds its frame.
    fn source(&mut self, source: &'q ast::Source) -> Result<Source> {
        match &source.collection {
            Collection::Path { name, span, steps } => {
                let base = match self.frames.as_slice() {
                    // The first name in a query is the collection's, whatever it is.
                    [None] => Expr::Slot { up: 0, cell: 0 },
                    _ => self.name(name, *span)?,
                };
                self.path_source(source, base, steps)
            }
            Collection::Subquery(select) => {
                let rows = self.subquery(select)?;
                self.declare(source)?;
                Ok(Source {
                    values: Values::Rows(Box::new(rows)),
                    each: source.each,
                })
            }
        }
    }

    fn path_source(&mut self, source: &ast::Source, base: Expr, steps: &[Step]) -> Result<Source> {
        let path = steps.iter().fold(base, |base, step| match step {
            Step::Member(name) => Expr::Member {
                base: Box::new(base),
                name: name.clone(),
            },
            Step::Element(position) => Expr::Index {
                base: Box::new(base),
                index: Box::new(Expr::Constant(Value::from(*position))),
            },
        });
        self.declare(source)?;
        Ok(Source {
            values: Values::Path(path),
            each: source.each,
        })
    }

    fn declare(&mut self, source: &ast::Source) -> Result<()> {
        let name = source.name().map(str::to_owned);
        if let Some(name) = &name
            && self.frames[self.own..]
                .iter()
                .flatten()
                .any(|known| known == name)
        {
            return Err(QueryError::at(
                source.span,
                ErrorCode::Syntax,
                format!("The alias '{name}' is specified more than once in the FROM clause."),
            ));
        }
        self.frames.push(name);
        Ok(())
    }

    fn clauses(&mut self, select: &'q Select, sources: Vec<Source>) -> Result<Program> {
        let filter = match &select.filter {
            Some(filter) => {
                refuse_aggregates(filter, "WHERE")?;
                Some(self.expr(filter)?)
            }
            None => None,
        };
        let order = self.order(select)?;
        let is_grouped = select.is_grouped();
        let (grouping, projection) = if is_grouped {
            self.grouped(select, sources.len())?
        } else {
            (None, self.projection(select, sources.len())?)
        };
        let (skip, take) = match (&select.top, &select.window) {
            (Some(top), _) => (0, Some(count(top, self.parameters, ErrorCode::TopValue)?)),
            (None, Some(window)) => (
                count(&window.offset, self.parameters, ErrorCode::OffsetValue)?,
                Some(count(
                    &window.limit,
                    self.parameters,
                    ErrorCode::LimitValue,
                )?),
            ),
            (None, None) => (0, None),
        };
        Ok(Program {
            feed: None,
            sources,
            filter,
            grouping,
            projection,
            distinct: select.distinct,
            // One folded row needs no order, and the service accepts the clause without effect.
            order: if is_grouped { Vec::new() } else { order },
            skip,
            take,
        })
    }

    fn order(&mut self, select: &'q Select) -> Result<Vec<SortColumn>> {
        let mut order = Vec::new();
        for column in &select.order_by {
            if !select.group_by.is_empty() {
                return Err(QueryError::at(
                    column.span,
                    ErrorCode::Unsupported,
                    "ORDER BY together with GROUP BY is not supported.",
                ));
            }
            let expr = self.expr(&column.expr)?;
            if !is_path(&expr) {
                return Err(QueryError::new(
                    ErrorCode::OrderBy,
                    "Unsupported ORDER BY clause. ORDER BY item expression could not be mapped to a document path.",
                ));
            }
            let direction = column.direction.unwrap_or(Direction::Ascending);
            order.push(SortColumn { expr, direction });
        }
        Ok(order)
    }

    fn projection(&mut self, select: &'q Select, own: usize) -> Result<Projection> {
        match &select.projection {
            ast::Projection::Star(span) => match own {
                1 => Ok(Projection::Value(Expr::Slot { up: 0, cell: 0 })),
                0 => Err(QueryError::at(
                    *span,
                    ErrorCode::Syntax,
                    "'SELECT *' is not valid if FROM clause is omitted.",
                )),
                _ => Err(QueryError::at(
                    *span,
                    ErrorCode::Syntax,
                    "'SELECT *' is only valid with a single input set.",
                )),
            },
            ast::Projection::Value(expr) => Ok(Projection::Value(self.expr(expr)?)),
            ast::Projection::List(items) => {
                let names = Select::names(items);
                let mut members = Vec::new();
                for (name, item) in names.into_iter().zip(items) {
                    members.push((name, self.expr(&item.expr)?));
                }
                Ok(Projection::Object(members))
            }
        }
    }

    /// Binds the keys over the sources, and the select list over the groups.
    fn grouped(
        &mut self,
        select: &'q Select,
        own: usize,
    ) -> Result<(Option<Grouping>, Projection)> {
        if let ast::Projection::Star(span) = select.projection {
            return Err(QueryError::at(
                span,
                ErrorCode::StarWithGroupBy,
                "'SELECT *' is not allowed with GROUP BY.",
            ));
        }
        let mut keys = Vec::new();
        for key in &select.group_by {
            refuse_aggregates(key, "GROUP BY")?;
            keys.push(self.expr(key)?);
        }
        let sources = self.frames.split_off(self.frames.len() - own);
        self.frames.push(None);
        self.folded = Some(Folded {
            keys: &select.group_by,
            aggregates: Vec::new(),
            sources,
        });
        let projection = self.projection(select, own);
        let folded = self.folded.take();
        self.frames.pop();
        let (aggregates, sources) = folded
            .map(|folded| (folded.aggregates, folded.sources))
            .unwrap_or_default();
        self.frames.extend(sources);
        Ok((Some(Grouping { keys, aggregates }), projection?))
    }

    fn name(&self, name: &str, span: Span) -> Result<Expr> {
        let up = self
            .frames
            .iter()
            .rev()
            .position(|frame| frame.as_deref() == Some(name));
        up.map(|up| Expr::Slot { up, cell: 0 }).ok_or_else(|| {
            QueryError::at(
                span,
                ErrorCode::Unresolved,
                format!("Identifier '{name}' could not be resolved."),
            )
        })
    }

    fn list(&mut self, exprs: &'q [ast::Expr]) -> Result<Vec<Expr>> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    fn boxed(&mut self, expr: &'q ast::Expr) -> Result<Box<Expr>> {
        self.expr(expr).map(Box::new)
    }

    fn expr(&mut self, expr: &'q ast::Expr) -> Result<Expr> {
        if let Some(cell) = self.folded_cell(expr)? {
            return Ok(Expr::Slot { up: 0, cell });
        }
        let bound = self.unfolded(expr)?;
        Ok(fold(bound))
    }

    /// The cell of the group that holds this expression, if it is a key or an aggregate.
    fn folded_cell(&mut self, expr: &'q ast::Expr) -> Result<Option<usize>> {
        let Some(folded) = &self.folded else {
            return match expr.as_aggregate() {
                Some((_, _, span)) => Err(QueryError::at(
                    span,
                    ErrorCode::AggregateNesting,
                    "An aggregate function is only allowed in the select list, and not inside of another aggregate function.",
                )),
                None => Ok(None),
            };
        };
        if let Some(cell) = folded.keys.iter().position(|key| key == expr) {
            return Ok(Some(cell));
        }
        if let Some((aggregate, args, span)) = expr.as_aggregate() {
            return self.aggregate(aggregate, args, span).map(Some);
        }
        if matches!(
            expr,
            ast::Expr::Scalar(_) | ast::Expr::Exists(_) | ast::Expr::ArrayOf(_)
        ) {
            return Err(QueryError::new(
                ErrorCode::Unsupported,
                "A subquery in the select list of a query with GROUP BY or an aggregate is not supported.",
            ));
        }
        if let Some((name, span)) = path(expr)
            && folded.sources.iter().flatten().any(|source| source == name)
            && !has_key_prefix(expr, folded.keys)
        {
            return Err(QueryError::at(
                span,
                ErrorCode::NotGrouped,
                format!(
                    "Property reference '{expr}' is invalid in the select list because it is not contained in either an aggregate function or the GROUP BY clause."
                ),
            ));
        }
        Ok(None)
    }

    /// Binds an aggregate over the sources and gives its cell.
    fn aggregate(
        &mut self,
        aggregate: Aggregate,
        args: &'q [ast::Expr],
        span: Span,
    ) -> Result<usize> {
        let [arg] = args else {
            return Err(QueryError::at(
                span,
                ErrorCode::ArgumentCount,
                format!(
                    "The {} function requires 1 argument(s).",
                    aggregate.sql_name()
                ),
            ));
        };
        if arg.has_aggregate() || arg.has_subquery() {
            return Err(QueryError::at(
                span,
                ErrorCode::AggregateNesting,
                "Cannot perform an aggregate function on an expression containing an aggregate or a subquery.",
            ));
        }
        let Some(mut folded) = self.folded.take() else {
            return Err(QueryError::at(
                span,
                ErrorCode::AggregateNesting,
                "An aggregate function is only allowed in the select list.",
            ));
        };
        let group_frame = self.frames.pop();
        let own = folded.sources.len();
        self.frames.append(&mut folded.sources);
        let bound = self.expr(arg);
        folded.sources = self.frames.split_off(self.frames.len() - own);
        self.frames.extend(group_frame);
        folded.aggregates.push((aggregate, bound?));
        let cell = folded.keys.len() + folded.aggregates.len() - 1;
        self.folded = Some(folded);
        Ok(cell)
    }

    fn unfolded(&mut self, expr: &'q ast::Expr) -> Result<Expr> {
        Ok(match expr {
            ast::Expr::Undefined => Expr::Undefined,
            ast::Expr::Null => Expr::Constant(Value::Null),
            ast::Expr::Bool(value) => Expr::Constant(Value::from(*value)),
            ast::Expr::Number(text) => number(text)?,
            ast::Expr::Text(text) => Expr::Constant(Value::from(text.as_str())),
            ast::Expr::Parameter { name, span } => {
                Expr::Constant(parameter(self.parameters, name, *span)?.clone())
            }
            ast::Expr::Name { name, span } => self.name(name, *span)?,
            ast::Expr::Member { base, name, .. } => Expr::Member {
                base: self.boxed(base)?,
                name: name.clone(),
            },
            ast::Expr::Index { base, index } => Expr::Index {
                base: self.boxed(base)?,
                index: self.boxed(index)?,
            },
            ast::Expr::Unary { operator, operand } => Expr::Unary {
                operator: *operator,
                operand: self.boxed(operand)?,
            },
            ast::Expr::Binary { operator, operands } => Expr::Binary {
                operator: *operator,
                operands: Box::new((self.expr(&operands.0)?, self.expr(&operands.1)?)),
            },
            ast::Expr::Logical { operator, terms } => {
                let terms = self.list(terms)?;
                match operator {
                    ast::Logical::And => Expr::All(terms),
                    ast::Logical::Or => Expr::Any(terms),
                }
            }
            ast::Expr::Conditional { parts } => Expr::Conditional {
                parts: self.three(parts)?,
            },
            ast::Expr::In {
                value,
                list,
                negated,
            } => {
                let value = self.boxed(value)?;
                within(value, self.list(list)?, *negated)
            }
            ast::Expr::Between { parts, negated } => Expr::Between {
                parts: self.three(parts)?,
                negated: *negated,
            },
            ast::Expr::Like {
                operands,
                escape,
                negated,
            } => Expr::Like {
                value: self.boxed(&operands.0)?,
                pattern: match self.expr(&operands.1)? {
                    Expr::Constant(Value::String(text)) => {
                        Pattern::Fixed(Like::new(&text, *escape))
                    }
                    pattern => Pattern::Computed {
                        pattern: Box::new(pattern),
                        escape: *escape,
                    },
                },
                negated: *negated,
            },
            ast::Expr::Call { name, args, span } => Expr::Call {
                builtin: builtin(&name.0, args.len(), *span)?,
                args: self.list(args)?,
            },
            ast::Expr::Array(items) => Expr::Array(self.list(items)?),
            ast::Expr::Object(members) => {
                let mut bound = Vec::new();
                for (name, value) in members {
                    bound.push((name.clone(), self.expr(value)?));
                }
                Expr::Object(bound)
            }
            ast::Expr::Scalar(select) => Expr::Scalar(Box::new(self.subquery(select)?)),
            ast::Expr::Exists(select) => Expr::Exists(Box::new(self.subquery(select)?)),
            ast::Expr::ArrayOf(select) => Expr::ArrayOf(Box::new(self.subquery(select)?)),
        })
    }

    fn three(
        &mut self,
        parts: &'q (ast::Expr, ast::Expr, ast::Expr),
    ) -> Result<Box<(Expr, Expr, Expr)>> {
        Ok(Box::new((
            self.expr(&parts.0)?,
            self.expr(&parts.1)?,
            self.expr(&parts.2)?,
        )))
    }
}

/// Whether a subquery in FROM reads the collection as a whole instead of one document at a time.
fn folds_the_collection(inner: &Select) -> bool {
    let is_whole = inner.is_blocking()
        || inner.top.is_some()
        || inner.window.is_some()
        || !inner.order_by.is_empty();
    is_whole && !inner.from.is_empty()
}

fn refuse_aggregates(expr: &ast::Expr, clause: &str) -> Result<()> {
    match expr.has_aggregate() {
        true => Err(QueryError::new(
            ErrorCode::AggregateNesting,
            format!("An aggregate function is not allowed in the {clause} clause."),
        )),
        false => Ok(()),
    }
}

/// The name a path starts from, and where the path stands.
fn path(expr: &ast::Expr) -> Option<(&str, Span)> {
    match expr {
        ast::Expr::Name { name, span } => Some((name, *span)),
        ast::Expr::Member { base, span, .. } => Some((path(base)?.0, *span)),
        ast::Expr::Index { base, .. } => path(base),
        _ => None,
    }
}

/// Whether a path continues one of the GROUP BY expressions.
fn has_key_prefix(expr: &ast::Expr, keys: &[ast::Expr]) -> bool {
    match expr {
        ast::Expr::Member { base, .. } | ast::Expr::Index { base, .. } => {
            keys.contains(base) || has_key_prefix(base, keys)
        }
        _ => false,
    }
}

/// Whether an expression names a place in a document: what ORDER BY accepts.
fn is_path(expr: &Expr) -> bool {
    match expr {
        Expr::Slot { .. } => true,
        Expr::Member { base, .. } => is_path(base),
        Expr::Index { base, index } => index.is_constant() && is_path(base),
        _ => false,
    }
}

fn number(text: &str) -> Result<Expr> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let value = match hexadecimal {
        // At most 16 digits, by the lexer.
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(Value::from),
        None => match text.parse::<i64>() {
            Ok(integer) => Some(Value::from(integer)),
            Err(_) => text.parse().ok().and_then(value::number),
        },
    };
    value.map(Expr::Constant).ok_or_else(|| {
        QueryError::new(
            ErrorCode::Syntax,
            format!("The number '{text}' is out of range."),
        )
    })
}

fn within(value: Box<Expr>, list: Vec<Expr>, negated: bool) -> Expr {
    if list.len() < IN_SET_FROM || !list.iter().all(Expr::is_constant) {
        return Expr::In {
            value,
            list,
            negated,
        };
    }
    // Undefined is equal to nothing, but `x NOT IN (undefined)` is not true either.
    if negated && list.iter().any(|item| item.constant().is_none()) {
        return Expr::In {
            value,
            list,
            negated,
        };
    }
    let constants: Vec<Value> = list
        .iter()
        .filter_map(|item| item.constant().cloned())
        .collect();
    let encodings: HashSet<Vec<u8>> = constants
        .iter()
        .map(|constant| value::encoded(Some(constant)))
        .collect();
    Expr::InSet {
        value,
        constants,
        encodings,
        negated,
    }
}

fn builtin(name: &str, arguments: usize, span: Span) -> Result<&'static Builtin> {
    let Some(builtin) = functions::find(name) else {
        let span = Span {
            start: span.start,
            end: span.start + name.len(),
        };
        return Err(match functions::is_known_elsewhere(name) {
            true => QueryError::at(
                span,
                ErrorCode::Unsupported,
                format!(
                    "The {} function is not supported.",
                    name.to_ascii_uppercase()
                ),
            ),
            false => QueryError::at(
                span,
                ErrorCode::UnknownFunction,
                format!("'{name}' is not a recognized built-in function name."),
            ),
        });
    };
    let (least, most) = (builtin.least, builtin.most);
    if (least..=most).contains(&arguments) {
        return Ok(builtin);
    }
    let required = match (least, most) {
        (least, most) if least == most => format!("{least}"),
        (least, usize::MAX) => format!("at least {least}"),
        (least, most) => format!("{least} to {most}"),
    };
    Err(QueryError::at(
        span,
        ErrorCode::ArgumentCount,
        format!(
            "The {} function requires {required} argument(s).",
            name.to_ascii_uppercase()
        ),
    ))
}

/// Computes what depends on no row. An expression that exceeds a limit stays as it is and fails
/// when it runs, if it runs.
fn fold(expr: Expr) -> Expr {
    let is_foldable = match &expr {
        Expr::Member { base, .. } => base.is_constant(),
        Expr::Index { base, index } => base.is_constant() && index.is_constant(),
        Expr::Unary { operand, .. } => operand.is_constant(),
        Expr::Binary { operands, .. } => operands.0.is_constant() && operands.1.is_constant(),
        Expr::All(list) | Expr::Any(list) | Expr::Array(list) => list.iter().all(Expr::is_constant),
        Expr::Conditional { parts } | Expr::Between { parts, .. } => {
            parts.0.is_constant() && parts.1.is_constant() && parts.2.is_constant()
        }
        Expr::In { value, list, .. } => value.is_constant() && list.iter().all(Expr::is_constant),
        Expr::InSet { value, .. } => value.is_constant(),
        Expr::Like { value, pattern, .. } => {
            value.is_constant() && matches!(pattern, Pattern::Fixed(_))
        }
        Expr::Call { builtin, args } => builtin.is_pure && args.iter().all(Expr::is_constant),
        Expr::Object(members) => members.iter().all(|(_, value)| value.is_constant()),
        Expr::Undefined
        | Expr::Constant(_)
        | Expr::Slot { .. }
        | Expr::Scalar(_)
        | Expr::Exists(_)
        | Expr::ArrayOf(_) => false,
    };
    if !is_foldable {
        return expr;
    }
    let value = Machine::new()
        .eval(&expr, &Env::empty())
        .map(|value| value.map(std::borrow::Cow::into_owned));
    match value {
        Ok(Some(value)) => Expr::Constant(value),
        Ok(None) => Expr::Undefined,
        Err(_) => expr,
    }
}
