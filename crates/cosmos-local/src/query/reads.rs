//! Which members of a document a program looks at, so that a store takes apart no more of it.

use std::collections::BTreeSet;

use super::program::{Expr, Pattern, Program, Projection, Source, Values};

/// Members of a document, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Members {
    /// The whole document.
    All,
    /// These only, each once: few, so that looking through them is quicker than anything else.
    Named(Vec<String>),
}

impl Members {
    /// Whether a member is among these.
    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|known| known == name),
        }
    }
}

/// When rows are made, and of what.
#[derive(Debug)]
pub(super) enum Plan {
    /// Each row as soon as it is found.
    AtOnce {
        /// What is looked at.
        reads: Members,
    },
    /// Rows are found first; those that are given out are made in the end.
    Late {
        /// What is looked at to find and, where that is asked for, to compare rows.
        finds: Members,
        /// What a row is compared by.
        sorts: Members,
        /// What a row is made of.
        makes: Members,
    },
}

/// What a walk is about.
#[derive(Clone, Copy)]
struct Parts {
    filter: bool,
    order: bool,
    projection: bool,
}

impl Parts {
    const ALL: Self = Self {
        filter: true,
        order: true,
        projection: true,
    };

    const NONE: Self = Self {
        filter: false,
        order: false,
        projection: false,
    };
}

impl Plan {
    /// `compares` says whether rows have to be compared to be found.
    pub(super) fn of(program: &Program, compares: bool) -> Self {
        let is_late = match (program.sources.as_slice(), &program.projection) {
            _ if program.is_blocking() => false,
            ([source], projection) if is_document(source, &[true]) => match projection {
                // Undefined would be no row, which has to be known when rows are counted.
                Projection::Value(expr) => matches!(expr, Expr::Slot { up: 0, .. }),
                Projection::Object(members) => are_parts(members),
            },
            _ => false,
        };
        let members = |parts| {
            let mut walk = Walk::default();
            walk.program(program, parts);
            walk.members()
        };
        if !is_late {
            return Self::AtOnce {
                reads: members(Parts::ALL),
            };
        }
        Self::Late {
            finds: members(Parts {
                filter: true,
                order: compares,
                ..Parts::NONE
            }),
            sorts: members(Parts {
                order: true,
                ..Parts::NONE
            }),
            makes: members(Parts {
                projection: true,
                ..Parts::NONE
            }),
        }
    }
}

/// Whether rows are no larger than their documents: each of a row's members is another one of the document's.
fn are_parts(members: &[(String, Expr)]) -> bool {
    let mut names = BTreeSet::new();
    let mut parts = members.iter().map(|(_, expr)| member_of(expr));
    parts.all(|name| name.is_some_and(|name| names.insert(name)))
}

/// The member of the document that a path leads into.
fn member_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Member { base, name } => match **base {
            Expr::Slot { up: 0, .. } => Some(name),
            _ => member_of(base),
        },
        _ => None,
    }
}

/// See [`super::Query::takes_all`].
pub(super) fn takes_all(program: &Program) -> bool {
    let gives_a_row = match &program.projection {
        Projection::Value(expr) => matches!(expr, Expr::Slot { .. }),
        Projection::Object(_) => true,
    };
    let [source] = program.sources.as_slice() else {
        return false;
    };
    let is_kept = program.filter.is_none() && !program.is_blocking() && program.feed.is_none();
    is_kept && gives_a_row && is_document(source, &[true])
}

/// See [`super::Query::is_light`].
pub(super) fn is_light(program: &Program) -> bool {
    let is_path = |source: &Source| matches!(source.values, Values::Path(_)) && !source.each;
    let projected = match &program.projection {
        Projection::Value(expr) => is_light_expr(expr),
        Projection::Object(members) => members.iter().all(|(_, expr)| is_light_expr(expr)),
    };
    program.feed.is_none()
        && program.sources.iter().all(is_path)
        && program.filter.as_ref().is_none_or(is_light_expr)
        && program
            .order
            .iter()
            .all(|column| is_light_expr(&column.expr))
        && program.grouping.is_none()
        && projected
}

/// Whether an expression is made of paths and comparisons alone.
fn is_light_expr(expr: &Expr) -> bool {
    match expr {
        Expr::Undefined | Expr::Constant(_) | Expr::Slot { .. } => true,
        Expr::Member { base, .. } => is_light_expr(base),
        Expr::Unary { operand, .. } => is_light_expr(operand),
        Expr::Binary { operands, .. } => is_light_expr(&operands.0) && is_light_expr(&operands.1),
        Expr::All(terms) | Expr::Any(terms) => terms.iter().all(is_light_expr),
        Expr::Between { parts, .. } => [&parts.0, &parts.1, &parts.2]
            .into_iter()
            .all(is_light_expr),
        Expr::InSet { value, .. } => is_light_expr(value),
        _ => false,
    }
}

/// Whether a source's only row is the document itself.
fn is_document(source: &Source, frames: &[bool]) -> bool {
    match &source.values {
        Values::Path(Expr::Slot { up, .. }) if !source.each => {
            frames.iter().rev().nth(*up) == Some(&true)
        }
        _ => false,
    }
}

/// A walk over a program, from the outermost frame inwards.
#[derive(Default)]
struct Walk {
    /// Outermost first: whether the frame's cell is the document.
    frames: Vec<bool>,
    is_all: bool,
    names: BTreeSet<String>,
}

impl Walk {
    fn members(self) -> Members {
        if self.is_all {
            return Members::All;
        }
        Members::Named(self.names.into_iter().collect())
    }

    /// Parts of the outermost program, over documents or the rows of its feed.
    fn program(&mut self, program: &Program, parts: Parts) {
        self.frames.push(true);
        self.select(program, parts);
        self.frames.pop();
    }

    fn select(&mut self, program: &Program, parts: Parts) {
        let outer = self.frames.len();
        for source in &program.sources {
            let is_document = is_document(source, &self.frames);
            match &source.values {
                Values::Path(_) if is_document => {}
                Values::Path(path) => self.expr(path),
                Values::Rows(rows) => self.select(rows, Parts::ALL),
            }
            self.frames.push(is_document);
        }
        if parts.filter {
            self.exprs(&program.filter);
        }
        if parts.order {
            self.exprs(program.order.iter().map(|column| &column.expr));
        }
        if let Some(grouping) = &program.grouping {
            self.exprs(&grouping.keys);
            self.exprs(grouping.aggregates.iter().map(|(_, arg)| arg));
            self.frames.truncate(outer);
            self.frames.push(false);
        }
        if parts.projection {
            match &program.projection {
                Projection::Value(expr) => self.expr(expr),
                Projection::Object(members) => self.exprs(members.iter().map(|(_, expr)| expr)),
            }
        }
        self.frames.truncate(outer);
    }

    fn exprs<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) {
        for expr in exprs {
            self.expr(expr);
        }
    }

    fn is_document(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Slot { up, .. } if self.frames.iter().rev().nth(*up) == Some(&true))
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Undefined | Expr::Constant(_) => {}
            Expr::Slot { .. } => self.is_all |= self.is_document(expr),
            Expr::Member { base, name } if self.is_document(base) => {
                self.names.insert(name.clone());
            }
            Expr::Member { base, .. } => self.expr(base),
            Expr::Index { base, index } => self.exprs([&**base, &**index]),
            Expr::Unary { operand, .. } => self.expr(operand),
            Expr::Binary { operands, .. } => self.exprs([&operands.0, &operands.1]),
            Expr::Conditional { parts } | Expr::Between { parts, .. } => {
                self.exprs([&parts.0, &parts.1, &parts.2]);
            }
            Expr::All(list) | Expr::Any(list) | Expr::Array(list) => self.exprs(list),
            Expr::Call { args, .. } => self.exprs(args),
            Expr::Object(members) => self.exprs(members.iter().map(|(_, expr)| expr)),
            Expr::In { value, list, .. } => {
                self.expr(value);
                self.exprs(list);
            }
            Expr::InSet { value, .. } => self.expr(value),
            Expr::Like { value, pattern, .. } => {
                self.expr(value);
                if let Pattern::Computed { pattern, .. } = pattern {
                    self.expr(pattern);
                }
            }
            Expr::Scalar(program) | Expr::Exists(program) | Expr::ArrayOf(program) => {
                self.select(program, Parts::ALL);
            }
        }
    }
}
