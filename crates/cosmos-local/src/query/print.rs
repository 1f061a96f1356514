//! Tree to text, in the layout the service uses for rewritten queries: one clause per line, every
//! infix operation in parentheses, strings in double quotes (`QueryPlanBaselineTests.*.xml`).
//!
//! Printing and reading again gives the same tree; a property test holds us to it.

use std::fmt::{self, Display, Formatter, Write as _};

use super::ast::{
    Collection, Count, Direction, Expr, Item, Logical, OrderItem, Projection, Select, Source, Step,
    Unary,
};
use super::parser::is_reserved;

/// Writes `items` with `, ` between them.
fn separated<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    mut write: impl FnMut(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            f.write_str(", ")?;
        }
        write(f, item)?;
    }
    Ok(())
}

/// Writes a string literal. JSON's escapes are a subset of the grammar's.
fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// Whether `.name` can be written, or `["name"]` must be.
fn is_plain(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|c| c.is_alphabetic() || c == '_')
        && characters.all(|c| c.is_alphanumeric() || c == '_')
        && !is_reserved(name)
}

fn member(f: &mut Formatter<'_>, name: &str) -> fmt::Result {
    if is_plain(name) {
        return write!(f, ".{name}");
    }
    f.write_char('[')?;
    quoted(f, name)?;
    f.write_char(']')
}

impl Display for Select {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        if self.distinct {
            f.write_str("DISTINCT ")?;
        }
        if let Some(top) = &self.top {
            write!(f, "TOP {top} ")?;
        }
        self.projection.fmt(f)?;
        for (position, source) in self.from.iter().enumerate() {
            f.write_str(if position == 0 { "\nFROM " } else { "\nJOIN " })?;
            source.fmt(f)?;
        }
        if let Some(filter) = &self.filter {
            write!(f, "\nWHERE {filter}")?;
        }
        if !self.group_by.is_empty() {
            f.write_str("\nGROUP BY ")?;
            separated(f, &self.group_by, |f, key| key.fmt(f))?;
        }
        if !self.order_by.is_empty() {
            f.write_str("\nORDER BY ")?;
            separated(f, &self.order_by, |f, column| column.fmt(f))?;
        }
        if let Some(window) = &self.window {
            write!(f, "\nOFFSET {} LIMIT {}", window.offset, window.limit)?;
        }
        Ok(())
    }
}

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(count) => count.fmt(f),
            Self::Parameter { name, .. } => write!(f, "@{name}"),
        }
    }
}

impl Display for Projection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Star(_) => f.write_char('*'),
            Self::Value(expr) => write!(f, "VALUE {expr}"),
            Self::List(items) => separated(f, items, |f, item| item.fmt(f)),
        }
    }
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)?;
        match &self.alias {
            Some(alias) => write!(f, " AS {alias}"),
            None => Ok(()),
        }
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (&self.alias, self.each) {
            (Some(alias), true) => write!(f, "{alias} IN {}", self.collection),
            (Some(alias), false) => write!(f, "{} AS {alias}", self.collection),
            (None, _) => self.collection.fmt(f),
        }
    }
}

impl Display for Collection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { name, steps, .. } => {
                f.write_str(name)?;
                steps.iter().try_for_each(|step| match step {
                    Step::Member(name) => member(f, name),
                    Step::Element(position) => write!(f, "[{position}]"),
                })
            }
            Self::Subquery(select) => write!(f, "({select})"),
        }
    }
}

impl Display for OrderItem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)?;
        f.write_str(match self.direction {
            None => "",
            Some(Direction::Ascending) => " ASC",
            Some(Direction::Descending) => " DESC",
        })
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined => f.write_str("undefined"),
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => quoted(f, text),
            Self::Parameter { name, .. } => write!(f, "@{name}"),
            Self::Name { name, .. } => f.write_str(name),
            Self::Member { base, name, .. } => {
                based(f, base)?;
                member(f, name)
            }
            Self::Index { base, index } => {
                based(f, base)?;
                write!(f, "[{index}]")
            }
            Self::Unary { operator, operand } => {
                let operator = match operator {
                    Unary::Minus => "-",
                    Unary::Plus => "+",
                    Unary::BitNot => "~",
                    Unary::Not => "NOT ",
                };
                // Two minus signs in a row would start a comment.
                match (operator, &**operand) {
                    ("-", Self::Unary { .. }) => write!(f, "(- {operand})"),
                    _ => write!(f, "({operator}{operand})"),
                }
            }
            Self::Binary { operator, operands } => {
                let (left, right) = &**operands;
                write!(f, "({left} {} {right})", operator.symbol())
            }
            Self::Logical { operator, terms } => {
                let word = match operator {
                    Logical::And => " AND ",
                    Logical::Or => " OR ",
                };
                f.write_char('(')?;
                for (position, term) in terms.iter().enumerate() {
                    f.write_str(if position > 0 { word } else { "" })?;
                    term.fmt(f)?;
                }
                f.write_char(')')
            }
            Self::Conditional { parts } => {
                let (condition, then, otherwise) = &**parts;
                write!(f, "({condition} ? {then} : {otherwise})")
            }
            Self::In {
                value,
                list,
                negated,
            } => {
                write!(f, "({value} {}IN (", not(*negated))?;
                separated(f, list, |f, item| item.fmt(f))?;
                f.write_str("))")
            }
            Self::Between { parts, negated } => {
                let (value, low, high) = &**parts;
                write!(f, "({value} {}BETWEEN {low} AND {high})", not(*negated))
            }
            Self::Like {
                operands,
                escape,
                negated,
            } => {
                let (value, pattern) = &**operands;
                write!(f, "({value} {}LIKE {pattern}", not(*negated))?;
                if let Some(escape) = escape {
                    f.write_str(" ESCAPE ")?;
                    quoted(f, escape.encode_utf8(&mut [0; 4]))?;
                }
                f.write_char(')')
            }
            Self::Call { name, args, .. } => {
                write!(f, "{}(", name.0)?;
                separated(f, args, |f, arg| arg.fmt(f))?;
                f.write_char(')')
            }
            Self::Array(items) => {
                f.write_char('[')?;
                separated(f, items, |f, item| item.fmt(f))?;
                f.write_char(']')
            }
            Self::Object(members) => {
                f.write_char('{')?;
                separated(f, members, |f, (name, value)| {
                    quoted(f, name)?;
                    write!(f, ": {value}")
                })?;
                f.write_char('}')
            }
            Self::Scalar(select) => write!(f, "({select})"),
            Self::Exists(select) => write!(f, "EXISTS({select})"),
            Self::ArrayOf(select) => write!(f, "ARRAY({select})"),
        }
    }
}

/// The base of a step. A number would swallow the dot behind it.
fn based(f: &mut Formatter<'_>, base: &Expr) -> fmt::Result {
    match base {
        Expr::Number(text) => write!(f, "({text})"),
        base => base.fmt(f),
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}
