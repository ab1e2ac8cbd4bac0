//! Reading a rule file: `CREATE [OR REPLACE] ALERT [IF NOT EXISTS] name [WITH (option = value, ...)] AS SELECT ...;`
//!
//! The prefix is ours and is read from the tokens; the SELECT goes to the SQL parser with its tokens' places kept, so
//! every error points into the file. One broken statement does not hide the others.

use datafusion::sql::sqlparser::ast::Query;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location as ParserLocation, Token, TokenWithSpan, Tokenizer, Whitespace};

use tidewatch_model::limits::RULE_BYTES;

use crate::fault::{Fault, Location};
use crate::settings::Settings;
use crate::spelling::{windows_to_from, without_markers};

/// One option as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenOption {
    /// Its name, lower case unless quoted.
    pub name: String,
    /// Its value: the text of a quoted string, or the words as they stand.
    pub value: String,
    /// Where the name stands.
    pub at: Location,
}

/// A `CREATE ALERT` as written.
#[derive(Debug, Clone)]
pub struct WrittenAlert {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub at: Location,
    /// Whether it is a `CREATE STREAM`.
    pub stream: bool,
    /// The options, in order.
    pub options: Vec<WrittenOption>,
    /// The SELECT.
    pub query: Box<Query>,
    /// The tokens of the SELECT, to find the place of a name that planning complains about.
    pub tokens: Vec<TokenWithSpan>,
}

/// A `CREATE VIEW` as written.
#[derive(Debug, Clone)]
pub struct WrittenView {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub at: Location,
    /// The SELECT.
    pub query: Box<Query>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Statements {
    /// Alerts, in order.
    pub alerts: Vec<WrittenAlert>,
    /// Views, in order.
    pub views: Vec<WrittenView>,
    /// What could not be read.
    pub faults: Vec<Fault>,
}

/// Reads every statement of a file; the broken ones come back as faults.
pub fn read_statements(file: &str, text: &str, settings: &Settings) -> Statements {
    let dialect = GenericDialect {};
    let tokens = match Tokenizer::new(&dialect, text).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(error) => {
            let at = Location::new(file, error.location);
            return Statements { faults: vec![Fault::error(at, error.message)], ..Statements::default() };
        }
    };
    let mut found = Statements::default();
    for statement in tokens.split(|token| token.token == Token::SemiColon) {
        if statement.iter().all(|token| is_blank(&token.token)) {
            continue;
        }
        let bytes: usize = statement.iter().map(|token| token.token.to_string().len()).sum();
        if bytes > RULE_BYTES {
            let first = statement.iter().find(|token| !is_blank(&token.token)).map(|token| token.span.start);
            let at = Location::new(file, first.unwrap_or(ParserLocation::new(1, 1)));
            found.faults.push(Fault::error(at, format!("a statement of {bytes} bytes: expected {RULE_BYTES} at most")));
            continue;
        }
        let read =
            settings.put_in(file, statement).and_then(|tokens| Reader { file, tokens: &tokens, next: 0 }.statement());
        match read {
            Ok(Written::Alert(alert)) => found.alerts.push(alert),
            Ok(Written::View(view)) => found.views.push(view),
            Err(fault) => found.faults.push(fault),
        }
    }
    found
}

fn is_blank(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_) | Token::EOF)
}

enum Written {
    Alert(WrittenAlert),
    View(WrittenView),
}

/// Walks the tokens of one statement.
struct Reader<'a> {
    file: &'a str,
    tokens: &'a [TokenWithSpan],
    next: usize,
}

impl Reader<'_> {
    fn statement(mut self) -> Result<Written, Fault> {
        self.word("CREATE")?;
        if self.take("OR") {
            self.word("REPLACE")?;
        }
        if self.take("VIEW") {
            let (name, at) = self.name("the name of the view")?;
            check_name(&name, &at)?;
            self.word("AS")?;
            return Ok(Written::View(WrittenView { name, at, query: self.query()? }));
        }
        self.alert().map(Written::Alert)
    }

    fn alert(mut self) -> Result<WrittenAlert, Fault> {
        let stream = self.take("STREAM");
        if !stream && !self.take("ALERT") {
            let (token, at) = self.peek();
            return Err(expected("ALERT, STREAM or VIEW", &token, at));
        }
        if self.take("IF") {
            self.word("NOT")?;
            self.word("EXISTS")?;
        }
        let (name, at) = self.name(if stream { "the name of the stream" } else { "the name of the alert" })?;
        check_name(&name, &at)?;
        let options = if self.take("WITH") { self.options().map_err(|fault| fault.of_rule(&name))? } else { vec![] };
        self.word("AS").map_err(|fault| fault.of_rule(&name))?;
        let query = self.query().map_err(|fault| fault.of_rule(&name))?;
        Ok(WrittenAlert { name, at, stream, options, query, tokens: self.tokens[self.next..].to_vec() })
    }

    /// The next token that means something, and where it stands.
    fn peek(&mut self) -> (Token, Location) {
        while self.tokens.get(self.next).is_some_and(|token| matches!(token.token, Token::Whitespace(_))) {
            self.next += 1;
        }
        match self.tokens.get(self.next) {
            Some(token) => (token.token.clone(), Location::new(self.file, token.span.start)),
            None => {
                let end = self.tokens.last().map_or(ParserLocation::new(1, 1), |token| token.span.end);
                (Token::EOF, Location::new(self.file, end))
            }
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let (token, _) = self.peek();
        let found = matches!(&token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word));
        if found {
            self.next += 1;
        }
        found
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if self.take(word) {
            return Ok(());
        }
        let (token, at) = self.peek();
        Err(expected(word, &token, at))
    }

    fn symbol(&mut self, symbol: Token) -> Result<(), Fault> {
        let (token, at) = self.peek();
        if token == symbol {
            self.next += 1;
            return Ok(());
        }
        Err(expected(&format!("'{symbol}'"), &token, at))
    }

    /// A word, folded to lower case unless it is quoted, or a quoted string.
    fn name(&mut self, what: &str) -> Result<(String, Location), Fault> {
        let (token, at) = self.peek();
        let name = match &token {
            Token::Word(word) if word.quote_style.is_some() => word.value.clone(),
            Token::Word(word) => word.value.to_lowercase(),
            Token::DoubleQuotedString(text) => text.clone(),
            _ => return Err(expected(what, &token, at)),
        };
        self.next += 1;
        Ok((name, at))
    }

    fn options(&mut self) -> Result<Vec<WrittenOption>, Fault> {
        self.symbol(Token::LParen)?;
        let mut options = Vec::new();
        loop {
            if self.peek().0 == Token::RParen {
                break;
            }
            let (name, at) = self.name("the name of an option")?;
            self.symbol(Token::Eq)?;
            let value = self.value()?;
            options.push(WrittenOption { name, value, at });
            if self.peek().0 != Token::Comma {
                break;
            }
            self.next += 1;
        }
        self.symbol(Token::RParen)?;
        Ok(options)
    }

    /// A quoted string, or everything up to the next comma or parenthesis (`30s`, `true`, `critical`).
    fn value(&mut self) -> Result<String, Fault> {
        let (token, at) = self.peek();
        if let Token::SingleQuotedString(text) = token {
            self.next += 1;
            return Ok(text);
        }
        let mut text = String::new();
        while let Some(found) = self.tokens.get(self.next) {
            match &found.token {
                Token::Comma | Token::RParen | Token::EOF => break,
                Token::Whitespace(Whitespace::Space | Whitespace::Tab | Whitespace::Newline) => text.push(' '),
                Token::Whitespace(_) => {}
                other => text.push_str(&other.to_string()),
            }
            self.next += 1;
        }
        match text.trim() {
            "" => Err(expected("a value", &token, at)),
            trimmed => Ok(trimmed.to_string()),
        }
    }

    fn query(&mut self) -> Result<Box<Query>, Fault> {
        let (token, at) = self.peek();
        if !matches!(&token, Token::Word(_) | Token::LParen) {
            return Err(expected("a SELECT", &token, at));
        }
        let dialect = GenericDialect {};
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(without_markers(&self.tokens[self.next..]));
        let mut query = parser.parse_query().map_err(|error| self.parser_fault(&error))?;
        let rest = parser.peek_token();
        if rest.token != Token::EOF {
            return Err(expected(
                "the end of the statement (';')",
                &rest.token,
                Location::new(self.file, rest.span.start),
            ));
        }
        windows_to_from(&mut query);
        Ok(query)
    }

    /// The parser's message, with its place taken out of the text and put where we put places.
    fn parser_fault(&mut self, error: &ParserError) -> Fault {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
            ParserError::RecursionLimitExceeded => "the expression is nested too deeply",
        };
        let (message, place) = text.split_once(" at Line: ").unwrap_or((text, ""));
        let mut numbers = place.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
        let at = match (numbers.next(), numbers.next()) {
            (Some(line), Some(column)) if line > 0 => Location { file: self.file.to_string(), line, column },
            _ => self.end(),
        };
        Fault::error(at, lower_first(message))
    }

    fn end(&mut self) -> Location {
        let end = self.tokens.iter().rev().find(|token| !is_blank(&token.token));
        Location::new(self.file, end.map_or(ParserLocation::new(1, 1), |token| token.span.end))
    }
}

fn expected(what: &str, found: &Token, at: Location) -> Fault {
    let found = if *found == Token::EOF { "the end of the statement".to_string() } else { format!("'{found}'") };
    Fault::error(at, format!("expected {what}, found {found}"))
}

/// Where something of the SELECT stands; the name of the alert when that is not known.
pub fn place(alert: &WrittenAlert, at: ParserLocation) -> Location {
    match at.line {
        0 => alert.at.clone(),
        _ => Location::new(&alert.at.file, at),
    }
}

/// Alert names are label values, file names and topic keys: the same narrow form everywhere.
fn check_name(name: &str, at: &Location) -> Result<(), Fault> {
    let mut letters = name.chars();
    let good = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && name.len() <= 120;
    if good {
        return Ok(());
    }
    let message = format!("'{name}' is not a name here: expected letters, digits and '_', 120 at most");
    Err(Fault::error(at.clone(), message))
}

/// Messages begin with a small letter, like every other message here; names in capitals are left alone.
pub(crate) fn lower_first(message: &str) -> String {
    let mut letters = message.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().collect::<String>() + letters.as_str()
        }
        _ => message.to_string(),
    }
}
