//! What a client says: a question for others, or one of the few things that are settled here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Set, Statement as Ast, Value, visit_expressions_mut};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use serde::{Deserialize, Serialize};

/// Bytes of what is parsed at once.
const SQL_BYTES: usize = 64 << 10;

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statement {
    /// A question, in a form without what only PostgreSQL's parser knows.
    Question(String),
    /// A setting of the session and its value.
    Set(String, String),
    /// A setting that is asked for.
    Show(String),
    /// A transaction begins: everything is read-only, so it is only kept in mind.
    Begin,
    /// It ends.
    End(String),
    /// It goes on from an earlier point of it.
    Back,
    /// What needs no work.
    Done(String),
}

/// The statements of a text; none when it is empty.
///
/// # Errors
/// The SQLSTATE, and what is wrong.
pub fn parse(sql: &str) -> Result<Vec<Statement>, (String, String)> {
    if sql.len() > SQL_BYTES {
        return Err(("54001".to_string(), format!("expected at most {} KiB of SQL", SQL_BYTES >> 10)));
    }
    let wrong = |error: ParserError| ("42601".to_string(), error.to_string());
    let mut parsed = PostgresCompatibilityParser::new().parse(sql).map_err(wrong)?;
    settle_settings(&mut parsed);
    parsed.into_iter().map(statement).collect()
}

/// What a setting is that nobody set.
pub fn setting(name: &str) -> &'static str {
    match name {
        "transaction_isolation_level" | "transaction_isolation" => "read committed",
        "server_version" => VERSION,
        "server_version_num" => "160006",
        "standard_conforming_strings" | "transaction_read_only" | "default_transaction_read_only" => "on",
        "timezone" | "time_zone" => "UTC",
        "search_path" => "public",
        "client_encoding" | "server_encoding" => "UTF8",
        _ => "",
    }
}

/// The version that clients believe to talk to.
pub const VERSION: &str = "16.6";

/// `current_setting('name')` is what the setting is.
fn settle_settings(statements: &mut Vec<Ast>) {
    let settle = |expression: &mut Expr| {
        let name = match expression {
            Expr::Function(call) if call.name.to_string().ends_with("current_setting") => {
                let arguments = call.args.to_string();
                arguments.split('\'').nth(1).map(str::to_lowercase)
            }
            _ => None,
        };
        if let Some(name) = name {
            *expression = Expr::value(Value::SingleQuotedString(setting(&name).to_string()));
        }
        ControlFlow::<()>::Continue(())
    };
    let (ControlFlow::Continue(()) | ControlFlow::Break(())) = visit_expressions_mut(statements, settle);
}

/// Whether a text is so plain that parsing it takes no time: what nests can take a parser exponential time, what is long its stack.
pub fn is_plain(sql: &str) -> bool {
    sql.len() <= 256 && sql.bytes().filter(|byte| *byte == b'(').count() <= 3
}

fn statement(parsed: Ast) -> Result<Statement, (String, String)> {
    let done = |tag: &str| Statement::Done(tag.to_string());
    let bare = |text: &str| text.trim_matches('\'').to_string();
    Ok(match parsed {
        Ast::Query(_) | Ast::Explain { .. } => Statement::Question(parsed.to_string()),
        Ast::StartTransaction { .. } => Statement::Begin,
        Ast::Commit { .. } => Statement::End("COMMIT".to_string()),
        Ast::Rollback { savepoint: Some(_), .. } => Statement::Back,
        Ast::Rollback { .. } => Statement::End("ROLLBACK".to_string()),
        Ast::Savepoint { .. } => done("SAVEPOINT"),
        Ast::ReleaseSavepoint { .. } => done("RELEASE"),
        Ast::Deallocate { .. } => done("DEALLOCATE"),
        Ast::Discard { .. } => done("DISCARD ALL"),
        Ast::Set(Set::SingleAssignment { variable, values, .. }) => {
            let values: Vec<String> = values.iter().map(|value| bare(&value.to_string())).collect();
            Statement::Set(variable.to_string().to_lowercase(), values.join(", "))
        }
        Ast::Set(Set::SetTimeZone { value, .. }) => Statement::Set("timezone".to_string(), bare(&value.to_string())),
        // Isolation and roles: there is one of each.
        Ast::Set(_) => done("SET"),
        Ast::ShowVariable { variable } => {
            let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
            Statement::Show(words.join("_"))
        }
        other => {
            let shown: String = other.to_string().chars().take(60).collect();
            return Err(("25006".to_string(), format!("only reading is possible here, not: {shown}")));
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_here_and_what_is_asked() {
        let parsed = parse("BEGIN; SELECT 1; SET TIME ZONE 'UTC'; SHOW TRANSACTION ISOLATION LEVEL; COMMIT;").unwrap();
        let expected = [
            Statement::Begin,
            Statement::Question("SELECT 1".to_string()),
            Statement::Set("timezone".to_string(), "UTC".to_string()),
            Statement::Show("transaction_isolation_level".to_string()),
            Statement::End("COMMIT".to_string()),
        ];
        assert_eq!(parsed, expected);
        assert_eq!(parse(" ; -- nothing").unwrap(), []);
        let version = parse("SELECT current_setting('server_version_num')::int/100 AS version").unwrap();
        assert_eq!(version, [Statement::Question("SELECT '160006'::INT / 100 AS version".to_string())]);
        for sql in ["DROP TABLE gpu", "COPY gpu TO '/tmp/x'", "INSERT INTO gpu VALUES (1)", "VACUUM"] {
            assert!(parse(sql).is_err(), "{sql}");
        }
        assert_eq!(parse("SELEC").unwrap_err().0, "42601");
        assert_eq!(parse("ROLLBACK TO SAVEPOINT a").unwrap(), [Statement::Back]);
        assert!(is_plain("BEGIN") && !is_plain("SELECT cast(cast(cast(cast("));
    }
}
