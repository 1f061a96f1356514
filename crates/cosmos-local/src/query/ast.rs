//! The tree of a query as it was written.
//!
//! The tree keeps parameters by name and functions by the name as typed: rewritten queries
//! ([`super::plan`]) are printed from it ([`super::print`]). What the names mean is decided by
//! [`super::bind`]. Two trees are equal when they say the same, wherever they stand in the text:
//! GROUP BY finds its expressions in the select list that way.

/// Half-open range of bytes in the query text. Never takes part in comparing trees.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Span {}

impl Span {
    /// From the start of `self` to the end of `last`.
    pub(super) fn to(self, last: Span) -> Span {
        Span {
            start: self.start,
            end: last.end,
        }
    }
}

/// `SELECT … FROM … WHERE … GROUP BY … ORDER BY … OFFSET … LIMIT …`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Select {
    pub(super) distinct: bool,
    pub(super) top: Option<Count>,
    pub(super) projection: Projection,
    /// First source, then one per JOIN. Empty without a FROM clause.
    pub(super) from: Vec<Source>,
    pub(super) filter: Option<Expr>,
    pub(super) group_by: Vec<Expr>,
    pub(super) order_by: Vec<OrderItem>,
    pub(super) window: Option<Window>,
}

/// The count of TOP, OFFSET or LIMIT.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Count {
    Literal(u64),
    Parameter { name: String, span: Span },
}

/// `OFFSET offset LIMIT limit`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    pub(super) offset: Count,
    pub(super) limit: Count,
}

/// What a row looks like.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Projection {
    /// `*`
    Star(Span),
    /// `VALUE expr`
    Value(Expr),
    /// `expr [[AS] alias], …`
    List(Vec<Item>),
}

/// One member of a select list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) expr: Expr,
    pub(super) alias: Option<String>,
}

/// One source of rows: `collection [[AS] alias]` or `alias IN collection`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Source {
    pub(super) collection: Collection,
    pub(super) alias: Option<String>,
    /// `alias IN collection`: one row per array element instead of one row for the whole.
    pub(super) each: bool,
    pub(super) span: Span,
}

/// Where a source takes its values from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Collection {
    /// `name.a["b"][0]`
    Path {
        name: String,
        span: Span,
        steps: Vec<Step>,
    },
    /// `(SELECT …)`
    Subquery(Box<Select>),
}

/// One step of a path in FROM.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Member(String),
    Element(u64),
}

/// One sort column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OrderItem {
    pub(super) expr: Expr,
    /// As written: nothing, ASC or DESC.
    pub(super) direction: Option<Direction>,
    pub(super) span: Span,
}

/// Which way a sort column runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Smallest first; what a column without a word means.
    Ascending,
    /// Largest first.
    Descending,
}

/// A function name: letter case does not matter when comparing.
#[derive(Debug, Clone)]
pub(super) struct FunctionName(pub(super) String);

impl PartialEq for FunctionName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

/// A scalar expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Undefined,
    Null,
    Bool(bool),
    /// The number as typed, so that it is printed as typed.
    Number(String),
    Text(String),
    Parameter {
        name: String,
        span: Span,
    },
    /// An alias in scope.
    Name {
        name: String,
        span: Span,
    },
    /// `base.name` or `base["name"]`
    Member {
        base: Box<Expr>,
        name: String,
        span: Span,
    },
    /// `base[index]` with anything but a string literal
    Index {
        base: Box<Expr>,
        index: Box<Expr>,
    },
    Unary {
        operator: Unary,
        operand: Box<Expr>,
    },
    Binary {
        operator: Binary,
        operands: Box<(Expr, Expr)>,
    },
    /// AND and OR chains are flat: a chain of thousands is legal and must not nest.
    Logical {
        operator: Logical,
        terms: Vec<Expr>,
    },
    Conditional {
        parts: Box<(Expr, Expr, Expr)>,
    },
    In {
        value: Box<Expr>,
        list: Vec<Expr>,
        negated: bool,
    },
    Between {
        parts: Box<(Expr, Expr, Expr)>,
        negated: bool,
    },
    Like {
        operands: Box<(Expr, Expr)>,
        escape: Option<char>,
        negated: bool,
    },
    Call {
        name: FunctionName,
        args: Vec<Expr>,
        /// From the name to the closing parenthesis.
        span: Span,
    },
    Array(Vec<Expr>),
    Object(Vec<(String, Expr)>),
    /// `(SELECT …)`
    Scalar(Box<Select>),
    /// `EXISTS (SELECT …)`
    Exists(Box<Select>),
    /// `ARRAY (SELECT …)`
    ArrayOf(Box<Select>),
}

/// Prefix operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unary {
    Minus,
    Plus,
    BitNot,
    Not,
}

/// AND, OR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logical {
    And,
    Or,
}

/// Infix operators over two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Coalesce,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    BitOr,
    BitXor,
    BitAnd,
    ShiftLeft,
    ShiftRight,
    ShiftRightZeroFill,
    Concat,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Binary {
    /// The operator as written.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Coalesce => "??",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::BitOr => "|",
            Self::BitXor => "^",
            Self::BitAnd => "&",
            Self::ShiftLeft => "<<",
            Self::ShiftRight => ">>",
            Self::ShiftRightZeroFill => ">>>",
            Self::Concat => "||",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

/// The functions that fold many rows into one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Count,
    CountIf,
    Sum,
    Average,
    Min,
    Max,
    MakeList,
    MakeSet,
}

impl Aggregate {
    pub(super) const ALL: [Self; 8] = [
        Self::Count,
        Self::CountIf,
        Self::Sum,
        Self::Average,
        Self::Min,
        Self::Max,
        Self::MakeList,
        Self::MakeSet,
    ];

    /// The aggregate of this name, in any letter case.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|aggregate| aggregate.sql_name().eq_ignore_ascii_case(name))
    }

    /// The name in the query language.
    pub(super) fn sql_name(self) -> &'static str {
        match self {
            Self::Count => "COUNT",
            Self::CountIf => "COUNTIF",
            Self::Sum => "SUM",
            Self::Average => "AVG",
            Self::Min => "MIN",
            Self::Max => "MAX",
            Self::MakeList => "MAKELIST",
            Self::MakeSet => "MAKESET",
        }
    }

    /// The name that query plans use (`AggregateOperator` of `Azure/azure-cosmos-dotnet-v3`).
    pub(super) fn plan_name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::CountIf => "CountIf",
            Self::Sum => "Sum",
            Self::Average => "Average",
            Self::Min => "Min",
            Self::Max => "Max",
            Self::MakeList => "MakeList",
            Self::MakeSet => "MakeSet",
        }
    }
}

impl Expr {
    /// The direct parts of an expression, without descending into subqueries.
    pub(super) fn children(&self) -> Vec<&Expr> {
        match self {
            Self::Undefined
            | Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::Parameter { .. }
            | Self::Name { .. }
            | Self::Scalar(_)
            | Self::Exists(_)
            | Self::ArrayOf(_) => Vec::new(),
            Self::Member { base, .. } => vec![base],
            Self::Index { base, index } => vec![base, index],
            Self::Unary { operand, .. } => vec![operand],
            Self::Binary { operands, .. } | Self::Like { operands, .. } => {
                vec![&operands.0, &operands.1]
            }
            Self::Conditional { parts } | Self::Between { parts, .. } => {
                vec![&parts.0, &parts.1, &parts.2]
            }
            Self::Logical { terms: list, .. }
            | Self::Call { args: list, .. }
            | Self::Array(list) => list.iter().collect(),
            Self::In { value, list, .. } => std::iter::once(&**value).chain(list).collect(),
            Self::Object(members) => members.iter().map(|(_, expr)| expr).collect(),
        }
    }

    /// Whether an aggregate of this query (not of a subquery in it) occurs anywhere inside.
    pub(super) fn has_aggregate(&self) -> bool {
        self.as_aggregate().is_some() || self.children().into_iter().any(Expr::has_aggregate)
    }

    /// Whether a subquery occurs anywhere inside.
    pub(super) fn has_subquery(&self) -> bool {
        matches!(self, Self::Scalar(_) | Self::Exists(_) | Self::ArrayOf(_))
            || self.children().into_iter().any(Expr::has_subquery)
    }

    /// The aggregate and its argument, when the whole expression is one.
    pub(super) fn as_aggregate(&self) -> Option<(Aggregate, &[Expr], Span)> {
        match self {
            Self::Call { name, args, span } => {
                Aggregate::by_name(&name.0).map(|aggregate| (aggregate, args.as_slice(), *span))
            }
            _ => None,
        }
    }
}

impl Select {
    /// All expressions a row is made of.
    pub(super) fn projected(&self) -> Vec<&Expr> {
        match &self.projection {
            Projection::Star(_) => Vec::new(),
            Projection::Value(expr) => vec![expr],
            Projection::List(items) => items.iter().map(|item| &item.expr).collect(),
        }
    }

    /// Whether rows are folded: GROUP BY, or an aggregate in the select list.
    pub(super) fn is_grouped(&self) -> bool {
        !self.group_by.is_empty() || self.projected().into_iter().any(Expr::has_aggregate)
    }

    /// Whether all rows must be seen before the first can be given out.
    pub(super) fn is_blocking(&self) -> bool {
        self.distinct || self.is_grouped()
    }

    /// The member names of a select list: alias, else last path step, else `$1`, `$2`, … counted
    /// over the unnamed ones (`QueryPlanBaselineTests.GroupBy.xml`).
    pub(super) fn names(items: &[Item]) -> Vec<String> {
        let mut unnamed = 0;
        items
            .iter()
            .map(|item| {
                item.alias.clone().unwrap_or_else(|| match &item.expr {
                    Expr::Name { name, .. } | Expr::Member { name, .. } => name.clone(),
                    _ => {
                        unnamed += 1;
                        format!("${unnamed}")
                    }
                })
            })
            .collect()
    }
}

impl Source {
    /// The name rows of this source go by: the alias, else the last step of the path.
    pub(super) fn name(&self) -> Option<&str> {
        if let Some(alias) = &self.alias {
            return Some(alias);
        }
        match &self.collection {
            Collection::Path { name, steps, .. } => match steps.last() {
                None => Some(name),
                Some(Step::Member(member)) => Some(member),
                Some(Step::Element(_)) => None,
            },
            Collection::Subquery(_) => None,
        }
    }
}
