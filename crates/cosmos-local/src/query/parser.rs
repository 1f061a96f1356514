//! Tokens to tree: the grammar in the documentation of [`crate::query`], by recursive descent.
//!
//! The token stream is winnow's; expressions are read by precedence climbing over one table of
//! operators. Nesting is counted on the way down and the height of every tree on the way up: both
//! stay within [`MAX_DEPTH`], so that no later walk over a tree can exhaust the stack.

use winnow::stream::{Stateful, Stream as _, TokenSlice};

use super::ast::{
    Binary, Collection, Count, Direction, Expr, FunctionName, Item, Logical, OrderItem, Projection,
    Select, Source, Span, Step, Unary, Window,
};
use super::error::{ErrorCode, QueryError, Result};
use super::lexer::{self, Lexeme, Token};
use super::{MAX_DEPTH, MAX_JOINS, MAX_LIST_ITEMS, MAX_LOGICAL_TERMS, MAX_QUERY_LENGTH};

/// Words that cannot be aliases or start an expression as names.
/// Behind a `.` and after AS every word is a name.
const RESERVED: [&str; 31] = [
    "AND",
    "ARRAY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "DESC",
    "DISTINCT",
    "ESCAPE",
    "EXISTS",
    "FALSE",
    "FROM",
    "GROUP",
    "IN",
    "JOIN",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "OFFSET",
    "OR",
    "ORDER",
    "SELECT",
    "TOP",
    "TRUE",
    "UDF",
    "UNDEFINED",
    "VALUE",
    "WHERE",
    "HAVING",
    "UNION",
];

/// Whether a word cannot stand for a name by itself.
pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED
        .iter()
        .any(|known| known.eq_ignore_ascii_case(word))
}

/// Reads one whole query.
pub(super) fn parse(text: &str) -> Result<Select> {
    if text.len() > MAX_QUERY_LENGTH {
        return Err(QueryError::new(
            ErrorCode::LimitExceeded,
            format!("The query text exceeds the maximum of {MAX_QUERY_LENGTH} bytes."),
        ));
    }
    let lexemes = lexer::tokenize(text)?;
    let mut parser = Parser {
        input: Stateful {
            input: TokenSlice::new(&lexemes),
            state: 0,
        },
    };
    let (select, _) = parser.select()?;
    match parser.peek() {
        Token::End => Ok(select),
        _ => Err(parser.unexpected()),
    }
}

/// A tree and its height.
type Tree<T> = (T, usize);

/// The token stream; its state is the current nesting.
struct Parser<'t, 's> {
    input: Stateful<TokenSlice<'t, Lexeme<'s>>, usize>,
}

/// What may follow an operand, and how tightly it binds (larger is tighter).
#[derive(Clone, Copy, PartialEq)]
enum Infix {
    Conditional,
    Logical(Logical),
    /// IN, BETWEEN, LIKE, with or without NOT before.
    Predicate,
    Binary(Binary),
}

/// How tightly the right side of NOT binds: looser than a comparison, tighter than AND.
const NOT_POWER: u8 = 6;
const PREDICATE_POWER: u8 = 7;

impl Infix {
    fn power(self) -> u8 {
        match self {
            Self::Conditional => 1,
            Self::Binary(Binary::Coalesce) => 2,
            Self::Logical(Logical::Or) => 3,
            Self::Logical(Logical::And) => 5,
            Self::Predicate => PREDICATE_POWER,
            Self::Binary(operator) => match operator {
                Binary::Coalesce => 2,
                Binary::Equal | Binary::NotEqual => PREDICATE_POWER,
                Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual => 8,
                Binary::BitOr => 9,
                Binary::BitXor => 10,
                Binary::BitAnd => 11,
                Binary::ShiftLeft | Binary::ShiftRight | Binary::ShiftRightZeroFill => 12,
                Binary::Concat => 13,
                Binary::Add | Binary::Subtract => 14,
                Binary::Multiply | Binary::Divide | Binary::Remainder => 15,
            },
        }
    }
}

fn binary_operator(symbol: &str) -> Option<Binary> {
    Some(match symbol {
        "??" => Binary::Coalesce,
        "=" => Binary::Equal,
        "!=" | "<>" => Binary::NotEqual,
        "<" => Binary::Less,
        "<=" => Binary::LessOrEqual,
        ">" => Binary::Greater,
        ">=" => Binary::GreaterOrEqual,
        "|" => Binary::BitOr,
        "^" => Binary::BitXor,
        "&" => Binary::BitAnd,
        "<<" => Binary::ShiftLeft,
        ">>" => Binary::ShiftRight,
        ">>>" => Binary::ShiftRightZeroFill,
        "||" => Binary::Concat,
        "+" => Binary::Add,
        "-" => Binary::Subtract,
        "*" => Binary::Multiply,
        "/" => Binary::Divide,
        "%" => Binary::Remainder,
        _ => return None,
    })
}

fn too_deep(span: Span) -> QueryError {
    QueryError::at(
        span,
        ErrorCode::LimitExceeded,
        format!("The query is nested deeper than the maximum of {MAX_DEPTH} levels."),
    )
}

// Looking and taking.
impl<'t, 's> Parser<'t, 's> {
    fn lexeme(&self) -> Option<&'t Lexeme<'s>> {
        self.input.peek_token()
    }

    fn peek(&self) -> &'t Token<'s> {
        self.lexeme().map_or(&Token::End, |lexeme| &lexeme.token)
    }

    /// The token after the next one.
    fn peek_second(&self) -> &'t Token<'s> {
        let mut ahead = self.input.input.clone();
        ahead.next_token();
        ahead
            .peek_token()
            .map_or(&Token::End, |lexeme| &lexeme.token)
    }

    fn span(&self) -> Span {
        self.lexeme().map_or(Span::default(), |lexeme| lexeme.span)
    }

    /// The last token taken.
    fn previous_span(&self) -> Span {
        let previous = self.input.input.previous_tokens().next();
        previous.map_or(Span::default(), |lexeme| lexeme.span)
    }

    /// Takes the next token. [`Token::End`] stays, however often it is taken.
    fn advance(&mut self) {
        if *self.peek() != Token::End {
            self.input.next_token();
        }
    }

    fn unexpected(&self) -> QueryError {
        let near = match self.peek() {
            Token::End => {
                return QueryError::at(
                    self.span(),
                    ErrorCode::UnexpectedEnd,
                    "Syntax error, unexpected end of the query.",
                );
            }
            Token::Word(word) => (*word).to_owned(),
            Token::Parameter(name) => format!("@{name}"),
            Token::Number(number) => (*number).to_owned(),
            Token::Text(text) => text.clone(),
            Token::Symbol(symbol) => (*symbol).to_owned(),
        };
        QueryError::at(
            self.span(),
            ErrorCode::Syntax,
            format!("Syntax error, incorrect syntax near '{near}'."),
        )
    }

    fn at_word(&self, keyword: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn at_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let found = self.at_word(keyword);
        if found {
            self.advance();
        }
        found
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = self.at_symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect_word(&mut self, keyword: &str) -> Result<()> {
        match self.take_word(keyword) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<()> {
        match self.take_symbol(symbol) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    /// Any word, also a keyword: behind `.` and AS.
    fn any_name(&mut self) -> Result<String> {
        match self.peek() {
            Token::Word(word) => {
                self.advance();
                Ok((*word).to_owned())
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A word that is not a keyword, if one is next.
    fn optional_name(&mut self) -> Option<String> {
        match self.peek() {
            Token::Word(word) if !is_reserved(word) => {
                self.advance();
                Some((*word).to_owned())
            }
            _ => None,
        }
    }

    /// `[[AS] alias]`
    fn alias(&mut self) -> Result<Option<String>> {
        if self.take_word("AS") {
            return self.any_name().map(Some);
        }
        Ok(self.optional_name())
    }

    /// Reads `item {, item}` and the tallest of their heights.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<Tree<T>>,
    ) -> Result<Tree<Vec<T>>> {
        let (first, mut height) = item(self)?;
        let mut items = vec![first];
        while self.take_symbol(",") {
            if items.len() == MAX_LIST_ITEMS {
                return Err(QueryError::at(
                    self.span(),
                    ErrorCode::LimitExceeded,
                    format!("A list exceeds the maximum of {MAX_LIST_ITEMS} items."),
                ));
            }
            let (next, next_height) = item(self)?;
            items.push(next);
            height = height.max(next_height);
        }
        Ok((items, height))
    }

    /// Runs `read` one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.input.state == MAX_DEPTH {
            return Err(too_deep(self.span()));
        }
        self.input.state += 1;
        let outcome = read(self);
        self.input.state -= 1;
        outcome
    }

    /// A tree over parts of the given height.
    fn grown<T>(&self, tree: T, parts: usize) -> Result<Tree<T>> {
        match parts < MAX_DEPTH {
            true => Ok((tree, parts + 1)),
            false => Err(too_deep(self.previous_span())),
        }
    }
}

// Clauses.
impl Parser<'_, '_> {
    fn select(&mut self) -> Result<Tree<Select>> {
        self.nested(Self::select_here)
    }

    fn select_here(&mut self) -> Result<Tree<Select>> {
        self.expect_word("SELECT")?;
        let distinct = self.take_word("DISTINCT");
        let top = match self.take_word("TOP") {
            true => Some(self.count(ErrorCode::TopValue, "TOP")?),
            false => None,
        };
        let (projection, mut height) = self.projection()?;
        let mut from = Vec::new();
        if self.take_word("FROM") {
            let (first, first_height) = self.source()?;
            height = height.max(first_height);
            from.push(first);
            while self.take_word("JOIN") {
                if from.len() > MAX_JOINS {
                    return Err(QueryError::at(
                        self.span(),
                        ErrorCode::LimitExceeded,
                        format!("The query exceeds the maximum of {MAX_JOINS} joins."),
                    ));
                }
                let (joined, joined_height) = self.source()?;
                height = height.max(joined_height);
                from.push(joined);
            }
        }
        let filter = match self.take_word("WHERE") {
            true => {
                let (filter, filter_height) = self.expression(0)?;
                height = height.max(filter_height);
                Some(filter)
            }
            false => None,
        };
        let mut group_by = Vec::new();
        if self.take_word("GROUP") {
            self.expect_word("BY")?;
            let (keys, keys_height) = self.list(|parser| parser.expression(0))?;
            height = height.max(keys_height);
            group_by = keys;
        }
        let mut order_by = Vec::new();
        if self.take_word("ORDER") {
            self.expect_word("BY")?;
            if self.at_word("RANK") && matches!(self.peek_second(), Token::Word(_)) {
                return Err(QueryError::at(
                    self.span(),
                    ErrorCode::Unsupported,
                    "ORDER BY RANK is not supported.",
                ));
            }
            let (columns, columns_height) = self.list(Self::order_item)?;
            height = height.max(columns_height);
            order_by = columns;
        }
        let window = self.window(top.is_some())?;
        let select = Select {
            distinct,
            top,
            projection,
            from,
            filter,
            group_by,
            order_by,
            window,
        };
        self.grown(select, height)
    }

    fn window(&mut self, has_top: bool) -> Result<Option<Window>> {
        let span = self.span();
        if !self.take_word("OFFSET") {
            return Ok(None);
        }
        if has_top {
            return Err(QueryError::at(
                span,
                ErrorCode::Syntax,
                "TOP and OFFSET LIMIT cannot be used in the same query.",
            ));
        }
        let offset = self.count(ErrorCode::OffsetValue, "OFFSET")?;
        self.expect_word("LIMIT")?;
        let limit = self.count(ErrorCode::LimitValue, "LIMIT")?;
        Ok(Some(Window { offset, limit }))
    }

    fn count(&mut self, code: ErrorCode, clause: &str) -> Result<Count> {
        let span = self.span();
        let count = match self.peek() {
            Token::Number(digits) => match lexer::count(digits) {
                Some(count) if count <= u64::from(u32::MAX) => Count::Literal(count),
                Some(_) => {
                    let what =
                        format!("The {clause} count value exceeds the maximum allowed value.");
                    return Err(QueryError::at(span, code, what));
                }
                None => {
                    let what = format!(
                        "The count value provided for a {clause} clause must be an integer."
                    );
                    return Err(QueryError::at(span, code, what));
                }
            },
            Token::Parameter(name) => Count::Parameter {
                name: (*name).to_owned(),
                span,
            },
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(count)
    }

    fn projection(&mut self) -> Result<Tree<Projection>> {
        let span = self.span();
        if self.take_symbol("*") {
            return Ok((Projection::Star(span), 0));
        }
        if self.take_word("VALUE") {
            let (expr, height) = self.expression(0)?;
            return Ok((Projection::Value(expr), height));
        }
        let (items, height) = self.list(|parser| {
            let (expr, height) = parser.expression(0)?;
            let alias = parser.alias()?;
            Ok((Item { expr, alias }, height))
        })?;
        Ok((Projection::List(items), height))
    }

    fn source(&mut self) -> Result<Tree<Source>> {
        let span = self.span();
        let is_iterator =
            matches!(self.peek_second(), Token::Word(word) if word.eq_ignore_ascii_case("IN"));
        if is_iterator && let Some(alias) = self.optional_name() {
            self.expect_word("IN")?;
            let (collection, height) = self.collection()?;
            let source = Source {
                collection,
                alias: Some(alias),
                each: true,
                span: span.to(self.previous_span()),
            };
            return Ok((source, height));
        }
        let (collection, height) = self.collection()?;
        let alias = self.alias()?;
        let source = Source {
            collection,
            alias,
            each: false,
            span: span.to(self.previous_span()),
        };
        Ok((source, height))
    }

    fn collection(&mut self) -> Result<Tree<Collection>> {
        if self.take_symbol("(") {
            let (select, height) = self.select()?;
            self.expect_symbol(")")?;
            return Ok((Collection::Subquery(Box::new(select)), height));
        }
        let span = self.span();
        let Some(name) = self.optional_name() else {
            return Err(self.unexpected());
        };
        let mut steps = Vec::new();
        loop {
            if self.take_symbol(".") {
                steps.push(Step::Member(self.any_name()?));
            } else if self.take_symbol("[") {
                let step = match self.peek() {
                    Token::Text(member) => Some(Step::Member(member.clone())),
                    Token::Number(digits) => lexer::count(digits).map(Step::Element),
                    _ => None,
                };
                steps.push(step.ok_or_else(|| self.unexpected())?);
                self.advance();
                self.expect_symbol("]")?;
            } else {
                break;
            }
        }
        Ok((Collection::Path { name, span, steps }, 0))
    }

    fn order_item(&mut self) -> Result<Tree<OrderItem>> {
        let span = self.span();
        let (expr, height) = self.expression(0)?;
        let span = span.to(self.previous_span());
        let direction = if self.take_word("ASC") {
            Some(Direction::Ascending)
        } else if self.take_word("DESC") {
            Some(Direction::Descending)
        } else {
            None
        };
        let item = OrderItem {
            expr,
            direction,
            span,
        };
        Ok((item, height))
    }
}

// Expressions.
impl Parser<'_, '_> {
    fn infix(&self) -> Option<Infix> {
        match self.peek() {
            Token::Symbol("?") => Some(Infix::Conditional),
            Token::Symbol(symbol) => binary_operator(symbol).map(Infix::Binary),
            Token::Word(word) if word.eq_ignore_ascii_case("AND") => {
                Some(Infix::Logical(Logical::And))
            }
            Token::Word(word) if word.eq_ignore_ascii_case("OR") => {
                Some(Infix::Logical(Logical::Or))
            }
            Token::Word(word) => ["IN", "BETWEEN", "LIKE", "NOT"]
                .iter()
                .any(|predicate| predicate.eq_ignore_ascii_case(word))
                .then_some(Infix::Predicate),
            _ => None,
        }
    }

    /// An expression of operators that bind at least as tightly as `power`.
    fn expression(&mut self, power: u8) -> Result<Tree<Expr>> {
        self.nested(|parser| {
            let mut left = parser.operand()?;
            while let Some(infix) = parser.infix().filter(|infix| infix.power() >= power) {
                left = parser.continued(left, infix)?;
            }
            Ok(left)
        })
    }

    /// `left` and what `infix` adds to it.
    fn continued(&mut self, left: Tree<Expr>, infix: Infix) -> Result<Tree<Expr>> {
        match infix {
            Infix::Conditional => self.conditional(left),
            Infix::Logical(operator) => self.logical(left, operator),
            Infix::Predicate => self.predicate(left),
            Infix::Binary(operator) => {
                self.advance();
                let (right, height) = self.expression(infix.power() + 1)?;
                let binary = Expr::Binary {
                    operator,
                    operands: Box::new((left.0, right)),
                };
                self.grown(binary, left.1.max(height))
            }
        }
    }

    fn conditional(&mut self, (condition, height): Tree<Expr>) -> Result<Tree<Expr>> {
        self.expect_symbol("?")?;
        let (then, then_height) = self.expression(1)?;
        self.expect_symbol(":")?;
        let (otherwise, otherwise_height) = self.expression(1)?;
        let conditional = Expr::Conditional {
            parts: Box::new((condition, then, otherwise)),
        };
        self.grown(conditional, height.max(then_height).max(otherwise_height))
    }

    fn logical(&mut self, first: Tree<Expr>, operator: Logical) -> Result<Tree<Expr>> {
        let infix = Infix::Logical(operator);
        let mut height = first.1;
        let mut terms = vec![first.0];
        while self.infix() == Some(infix) {
            let span = self.span();
            self.advance();
            if terms.len() > MAX_LOGICAL_TERMS {
                return Err(QueryError::at(
                    span,
                    ErrorCode::LimitExceeded,
                    format!(
                        "The query exceeds the maximum of {MAX_LOGICAL_TERMS} AND or OR operators in a row."
                    ),
                ));
            }
            let (term, term_height) = self.expression(infix.power() + 1)?;
            height = height.max(term_height);
            terms.push(term);
        }
        self.grown(Expr::Logical { operator, terms }, height)
    }

    fn predicate(&mut self, (value, height): Tree<Expr>) -> Result<Tree<Expr>> {
        let negated = self.take_word("NOT");
        let operand_power = PREDICATE_POWER + 1;
        if self.take_word("IN") {
            self.expect_symbol("(")?;
            let (list, list_height) = self.list(|parser| parser.expression(0))?;
            self.expect_symbol(")")?;
            let within = Expr::In {
                value: Box::new(value),
                list,
                negated,
            };
            return self.grown(within, height.max(list_height));
        }
        if self.take_word("BETWEEN") {
            let (low, low_height) = self.expression(operand_power)?;
            self.expect_word("AND")?;
            let (high, high_height) = self.expression(operand_power)?;
            let between = Expr::Between {
                parts: Box::new((value, low, high)),
                negated,
            };
            return self.grown(between, height.max(low_height).max(high_height));
        }
        self.expect_word("LIKE")?;
        let (pattern, pattern_height) = self.expression(operand_power)?;
        let escape = match self.take_word("ESCAPE") {
            true => Some(self.escape_character()?),
            false => None,
        };
        let like = Expr::Like {
            operands: Box::new((value, pattern)),
            escape,
            negated,
        };
        self.grown(like, height.max(pattern_height))
    }

    fn escape_character(&mut self) -> Result<char> {
        let Token::Text(text) = self.peek() else {
            return Err(self.unexpected());
        };
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(escape), None) => {
                self.advance();
                Ok(escape)
            }
            _ => Err(QueryError::at(
                self.span(),
                ErrorCode::Syntax,
                "ESCAPE takes exactly one character.",
            )),
        }
    }

    fn operand(&mut self) -> Result<Tree<Expr>> {
        let operator = match self.peek() {
            Token::Symbol("-") => Unary::Minus,
            Token::Symbol("+") => Unary::Plus,
            Token::Symbol("~") => Unary::BitNot,
            Token::Word(word) if word.eq_ignore_ascii_case("NOT") => Unary::Not,
            _ => {
                let start = self.span();
                let primary = self.primary()?;
                return self.steps(primary, start);
            }
        };
        self.advance();
        let (operand, height) = match operator {
            Unary::Not => self.expression(NOT_POWER)?,
            _ => self.nested(Self::operand)?,
        };
        let operand = Box::new(operand);
        self.grown(Expr::Unary { operator, operand }, height)
    }

    /// `{.name | [index]}` behind a primary expression that began at `start`.
    fn steps(&mut self, mut base: Tree<Expr>, start: Span) -> Result<Tree<Expr>> {
        loop {
            let (expr, height) = base;
            if self.take_symbol(".") {
                let name = self.any_name()?;
                let member = Expr::Member {
                    base: Box::new(expr),
                    name,
                    span: start.to(self.previous_span()),
                };
                base = self.grown(member, height)?;
            } else if self.take_symbol("[") {
                let (index, index_height) = self.expression(0)?;
                self.expect_symbol("]")?;
                let indexed = match index {
                    Expr::Text(name) => Expr::Member {
                        base: Box::new(expr),
                        name,
                        span: start.to(self.previous_span()),
                    },
                    index => Expr::Index {
                        base: Box::new(expr),
                        index: Box::new(index),
                    },
                };
                base = self.grown(indexed, height.max(index_height))?;
            } else {
                return Ok((expr, height));
            }
        }
    }

    fn primary(&mut self) -> Result<Tree<Expr>> {
        let span = self.span();
        let leaf = match self.peek() {
            Token::Number(number) => Expr::Number((*number).to_owned()),
            Token::Text(text) => Expr::Text(text.clone()),
            Token::Parameter(name) => Expr::Parameter {
                name: (*name).to_owned(),
                span,
            },
            Token::Symbol("(") => return self.parenthesised(),
            Token::Symbol("[") => return self.array(),
            Token::Symbol("{") => return self.object(),
            Token::Word(word) => return self.word(word, span),
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok((leaf, 1))
    }

    fn word(&mut self, word: &str, span: Span) -> Result<Tree<Expr>> {
        let upper = word.to_ascii_uppercase();
        let is_call = matches!(self.peek_second(), Token::Symbol("("));
        let leaf = match upper.as_str() {
            "TRUE" => Expr::Bool(true),
            "FALSE" => Expr::Bool(false),
            "NULL" => Expr::Null,
            "UNDEFINED" => Expr::Undefined,
            "EXISTS" | "ARRAY" if is_call => {
                self.advance();
                self.expect_symbol("(")?;
                let (select, height) = self.select()?;
                self.expect_symbol(")")?;
                let select = Box::new(select);
                let tree = match upper.as_str() {
                    "EXISTS" => Expr::Exists(select),
                    _ => Expr::ArrayOf(select),
                };
                return self.grown(tree, height);
            }
            "UDF" => return Err(self.user_defined_function(span)),
            _ if is_call && !is_reserved(word) => return self.call(word, span),
            _ if is_reserved(word) => return Err(self.unexpected()),
            _ => Expr::Name {
                name: word.to_owned(),
                span,
            },
        };
        self.advance();
        Ok((leaf, 1))
    }

    fn user_defined_function(&mut self, span: Span) -> QueryError {
        self.advance();
        if !self.take_symbol(".") {
            return self.unexpected();
        }
        match self.any_name() {
            Ok(name) => QueryError::at(
                span.to(self.previous_span()),
                ErrorCode::Unsupported,
                format!("User-defined functions are not supported: 'udf.{name}'."),
            ),
            Err(error) => error,
        }
    }

    fn call(&mut self, name: &str, span: Span) -> Result<Tree<Expr>> {
        self.advance();
        self.expect_symbol("(")?;
        if matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case("SELECT")) {
            return Err(QueryError::at(
                span,
                ErrorCode::Unsupported,
                format!("'{name}' over a subquery is not supported."),
            ));
        }
        let (args, height) = match self.at_symbol(")") {
            true => (Vec::new(), 0),
            false => self.list(|parser| parser.expression(0))?,
        };
        self.expect_symbol(")")?;
        let call = Expr::Call {
            name: FunctionName(name.to_owned()),
            args,
            span: span.to(self.previous_span()),
        };
        self.grown(call, height)
    }

    fn parenthesised(&mut self) -> Result<Tree<Expr>> {
        self.expect_symbol("(")?;
        if self.at_word("SELECT") {
            let (select, height) = self.select()?;
            self.expect_symbol(")")?;
            return self.grown(Expr::Scalar(Box::new(select)), height);
        }
        let inner = self.expression(0)?;
        self.expect_symbol(")")?;
        Ok(inner)
    }

    fn array(&mut self) -> Result<Tree<Expr>> {
        self.expect_symbol("[")?;
        let (items, height) = match self.at_symbol("]") {
            true => (Vec::new(), 0),
            false => self.list(|parser| parser.expression(0))?,
        };
        self.expect_symbol("]")?;
        self.grown(Expr::Array(items), height)
    }

    fn object(&mut self) -> Result<Tree<Expr>> {
        self.expect_symbol("{")?;
        let (members, height) = match self.at_symbol("}") {
            true => (Vec::new(), 0),
            false => self.list(|parser| {
                let name = match parser.peek() {
                    Token::Text(name) => {
                        parser.advance();
                        name.clone()
                    }
                    _ => parser.any_name()?,
                };
                parser.expect_symbol(":")?;
                let (value, height) = parser.expression(0)?;
                Ok(((name, value), height))
            })?,
        };
        self.expect_symbol("}")?;
        self.grown(Expr::Object(members), height)
    }
}
