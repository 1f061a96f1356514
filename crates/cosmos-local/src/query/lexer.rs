//! Text to tokens.
//!
//! Keywords are not told apart from names here: whether a word is a keyword depends on where it
//! stands (`c.order` is a member), so that is the parser's to say.

use winnow::LocatingSlice;
use winnow::ascii::{digit1, multispace1};
use winnow::combinator::{alt, cut_err, dispatch, opt, peek, preceded, repeat, terminated};
use winnow::error::{ContextError, ErrMode};
use winnow::prelude::*;
use winnow::stream::Location as _;
use winnow::token::{any, one_of, take_till, take_until, take_while};

use super::ast::Span;
use super::error::{ErrorCode, QueryError, Result};

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'s> {
    /// A name or keyword.
    Word(&'s str),
    /// `@name`, without the sign.
    Parameter(&'s str),
    /// A number without sign, as typed.
    Number(&'s str),
    /// A string literal, unescaped.
    Text(String),
    /// An operator or punctuation mark.
    Symbol(&'static str),
    /// The end of the text. Always the last token, so that there always is one to look at.
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexeme<'s> {
    pub(super) token: Token<'s>,
    pub(super) span: Span,
}

/// Longest first: the first that fits is taken.
const SYMBOLS: [&str; 31] = [
    ">>>", "<<", ">>", "<=", ">=", "!=", "<>", "||", "??", "(", ")", "[", "]", "{", "}", ",", ".",
    ":", "?", "=", "<", ">", "+", "-", "*", "/", "%", "&", "|", "^", "~",
];

type Input<'s> = LocatingSlice<&'s str>;
type Parsed<T> = ModalResult<T, ContextError>;

/// Splits a query text into tokens; the last one is [`Token::End`].
pub(super) fn tokenize(text: &str) -> Result<Vec<Lexeme<'_>>> {
    let mut input = LocatingSlice::new(text);
    let mut lexemes = Vec::new();
    loop {
        if gap(&mut input).is_err() {
            // The parser stopped right behind the opening mark.
            let end = input.current_token_start();
            let start = end - "/*".len();
            let what = "Syntax error, a comment is not closed.";
            return Err(QueryError::at(Span { start, end }, ErrorCode::Syntax, what));
        }
        let start = input.current_token_start();
        if input.is_empty() {
            let span = Span { start, end: start };
            lexemes.push(Lexeme {
                token: Token::End,
                span,
            });
            return Ok(lexemes);
        }
        match token(&mut input) {
            Ok(token) => {
                let end = input.previous_token_end();
                let span = Span { start, end };
                lexemes.push(Lexeme { token, span });
            }
            Err(ErrMode::Cut(_)) => {
                let span = Span {
                    start,
                    end: text.len(),
                };
                return Err(QueryError::at(
                    span,
                    ErrorCode::Syntax,
                    "Syntax error, a string literal is not closed or holds an invalid escape sequence.",
                ));
            }
            Err(_) => {
                let near = text[start..].chars().next().unwrap_or_default();
                let end = start + near.len_utf8();
                let what = format!("Syntax error, incorrect syntax near '{near}'.");
                return Err(QueryError::at(Span { start, end }, ErrorCode::Syntax, what));
            }
        }
    }
}

/// White space, `-- line` and `/* block */` comments.
fn gap(input: &mut Input<'_>) -> Parsed<()> {
    repeat(
        0..,
        dispatch! {
            peek(any);
            '-' => ("--", take_till(0.., ['\r', '\n'])).void(),
            '/' => ("/*", cut_err((take_until(0.., "*/"), "*/"))).void(),
            _ => multispace1.void(),
        },
    )
    .parse_next(input)
}

fn token<'s>(input: &mut Input<'s>) -> Parsed<Token<'s>> {
    dispatch! {
        peek(any);
        '0'..='9' => number.map(Token::Number),
        '.' => alt((number.map(Token::Number), symbol.map(Token::Symbol))),
        '@' => preceded('@', word).map(Token::Parameter),
        '\'' | '"' => string.map(Token::Text),
        c if begins_word(c) => word.map(Token::Word),
        _ => symbol.map(Token::Symbol),
    }
    .parse_next(input)
}

fn begins_word(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn word<'s>(input: &mut Input<'s>) -> Parsed<&'s str> {
    (
        one_of(begins_word),
        take_while(0.., |c: char| c.is_alphanumeric() || c == '_'),
    )
        .take()
        .parse_next(input)
}

/// `12`, `12.5`, `.5`, `1e9`, `0x1F`; a word must not follow without a gap.
fn number<'s>(input: &mut Input<'s>) -> Parsed<&'s str> {
    let exponent = || opt((one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1));
    terminated(
        alt((
            (
                '0',
                one_of(['x', 'X']),
                take_while(1..=16, |c: char| c.is_ascii_hexdigit()),
            )
                .take(),
            (digit1, opt(('.', opt(digit1))), exponent()).take(),
            ('.', digit1, exponent()).take(),
        )),
        winnow::combinator::not(one_of(|c: char| c.is_alphanumeric() || c == '_')),
    )
    .parse_next(input)
}

fn symbol(input: &mut Input<'_>) -> Parsed<&'static str> {
    let rest: &str = input;
    let found = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
    match found {
        Some(symbol) => symbol.value(*symbol).parse_next(input),
        None => winnow::combinator::fail.parse_next(input),
    }
}

fn string(input: &mut Input<'_>) -> Parsed<String> {
    let quote = one_of(['\'', '"']).parse_next(input)?;
    let body = repeat(0.., fragment(quote)).fold(String::new, |mut text, fragment| {
        match fragment {
            Fragment::Plain(plain) => text.push_str(plain),
            Fragment::Escaped(c) => text.push(c),
        }
        text
    });
    cut_err(terminated(body, quote)).parse_next(input)
}

enum Fragment<'s> {
    Plain(&'s str),
    Escaped(char),
}

fn fragment<'s>(quote: char) -> impl Parser<Input<'s>, Fragment<'s>, ErrMode<ContextError>> {
    move |input: &mut Input<'s>| {
        alt((
            take_while(1.., move |c: char| c != quote && c != '\\').map(Fragment::Plain),
            preceded('\\', cut_err(escape)).map(Fragment::Escaped),
        ))
        .parse_next(input)
    }
}

fn escape(input: &mut Input<'_>) -> Parsed<char> {
    any.verify_map(|c| match c {
        '"' | '\'' | '\\' | '/' => Some(Escape::Char(c)),
        'b' => Some(Escape::Char('\u{8}')),
        'f' => Some(Escape::Char('\u{c}')),
        'n' => Some(Escape::Char('\n')),
        'r' => Some(Escape::Char('\r')),
        't' => Some(Escape::Char('\t')),
        'u' => Some(Escape::Unicode),
        _ => None,
    })
    .parse_next(input)
    .and_then(|escape| match escape {
        Escape::Char(c) => Ok(c),
        Escape::Unicode => unicode(input),
    })
}

enum Escape {
    Char(char),
    Unicode,
}

/// The four digits after `\u`, and the second half of a surrogate pair. A half without its
/// partner has no UTF-8 form; it becomes U+FFFD, as in text that is decoded from UTF-16.
fn unicode(input: &mut Input<'_>) -> Parsed<char> {
    let first = code_unit(input)?;
    if !(0xD800..0xDC00).contains(&first) {
        return Ok(char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    let second = opt(preceded("\\u", code_unit).verify(|unit| (0xDC00..0xE000).contains(unit)))
        .parse_next(input)?;
    let units = std::iter::once(first).chain(second);
    Ok(char::decode_utf16(units)
        .next()
        .and_then(std::result::Result::ok)
        .unwrap_or(char::REPLACEMENT_CHARACTER))
}

fn code_unit(input: &mut Input<'_>) -> Parsed<u16> {
    take_while(4..=4, |c: char| c.is_ascii_hexdigit())
        .verify_map(|digits| u16::from_str_radix(digits, 16).ok())
        .parse_next(input)
}

/// The value of a count literal (TOP, OFFSET, LIMIT, array position): decimal digits only.
pub(super) fn count(digits: &str) -> Option<u64> {
    let decimal = digits.bytes().all(|b| b.is_ascii_digit());
    decimal.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        let mut lexemes = tokenize(text).unwrap();
        assert_eq!(lexemes.pop().unwrap().token, Token::End);
        lexemes.into_iter().map(|lexeme| lexeme.token).collect()
    }

    #[test]
    fn operators_are_read_longest_first() {
        assert_eq!(
            tokens("a>>>b>>c>d"),
            [
                Token::Word("a"),
                Token::Symbol(">>>"),
                Token::Word("b"),
                Token::Symbol(">>"),
                Token::Word("c"),
                Token::Symbol(">"),
                Token::Word("d"),
            ]
        );
    }

    #[test]
    fn strings_unescape_and_comments_vanish() {
        assert_eq!(
            tokens("'it\\'s' -- no\n\"\\ud83d\\ude80 \\u00e9\" /* 'x */"),
            [Token::Text("it's".into()), Token::Text("🚀 é".into())]
        );
    }

    #[test]
    fn numbers_are_kept_as_typed() {
        assert_eq!(
            tokens("12 1.50 .5 1e-3 0xFF"),
            ["12", "1.50", ".5", "1e-3", "0xFF"].map(Token::Number)
        );
    }

    #[test]
    fn failures_say_where() {
        for (text, location) in [
            ("SELECT 'ab", (7, 10)),
            ("é #", (2, 3)),
            ("'\\x'", (0, 4)),
            ("/* open", (0, 2)),
            ("1abc", (0, 1)),
        ] {
            let error = tokenize(text).unwrap_err().located_in(text);
            assert_eq!(error.location(), Some(location), "{text}");
        }
    }
}
