//! Other dialects' spellings of windows, brought to `HOP(table, ts, slide, size)` in FROM: Flink's
//! `TABLE(HOP(TABLE t, DESCRIPTOR(ts), ...))`, which the parser does not read, and `GROUP BY hop(ts, slide, size)`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query,
    SetExpr, TableFactor, TableFunctionArgs, visit_expressions_mut,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::rows_table::{WINDOW_END, WINDOW_START};

/// The window functions.
const FUNCTIONS: [&str; 2] = ["hop", "tumble"];

fn is_word(token: Option<&TokenWithSpan>, words: &[&str]) -> bool {
    let Some(TokenWithSpan { token: Token::Word(word), .. }) = token else { return false };
    word.quote_style.is_none() && words.iter().any(|known| word.value.eq_ignore_ascii_case(known))
}

/// Tokens without Flink's `TABLE` and `DESCRIPTOR` around the names that they announce.
pub fn without_markers(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let means = |index: &usize| !matches!(tokens[*index].token, Token::Whitespace(_));
    let places: Vec<usize> = (0..tokens.len()).filter(means).collect();
    let at = |place: usize| places.get(place).map(|index| &tokens[*index]);
    let is = |place: usize, token: &Token| at(place).is_some_and(|found| found.token == *token);
    let mut dropped = vec![false; tokens.len()];
    for place in 0..places.len() {
        let in_call = place > 0
            && (is(place - 1, &Token::LParen) || is(place - 1, &Token::Comma) || is(place - 1, &Token::RArrow));
        if is_word(at(place), &["table"])
            && in_call
            && matches!(at(place + 1).map(|next| &next.token), Some(Token::Word(_)))
        {
            dropped[places[place]] = true;
        }
        let opens = is(place + 1, &Token::LParen);
        let wraps = (is_word(at(place), &["table"]) && is_word(at(place + 2), &FUNCTIONS))
            || (is_word(at(place), &["descriptor"]) && in_call);
        if !(opens && wraps) {
            continue;
        }
        let mut depth = 0;
        for inner in place + 1..places.len() {
            depth += i32::from(is(inner, &Token::LParen)) - i32::from(is(inner, &Token::RParen));
            if depth == 0 {
                for marker in [place, place + 1, inner] {
                    dropped[places[marker]] = true;
                }
                break;
            }
        }
    }
    tokens.iter().zip(dropped).filter(|(_, dropped)| !dropped).map(|(token, _)| token.clone()).collect()
}

/// `FROM t GROUP BY hop(ts, slide, size), x` as `FROM HOP(t, ts, slide, size) GROUP BY window_start, window_end, x`;
/// `hop_start(..)` and `hop_end(..)` are the window's bounds.
pub fn windows_to_from(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return };
    let [from] = select.from.as_mut_slice() else { return };
    let TableFactor::Table { name, args: args @ None, .. } = &mut from.relation else { return };
    let Some(place) = groups.iter().position(|group| called(group, &FUNCTIONS).is_some()) else { return };
    let Some((function, arguments)) = called(&groups[place], &FUNCTIONS) else { return };
    let mut parts: Vec<Ident> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
    let table = if parts.len() == 1 { Expr::Identifier(parts.remove(0)) } else { Expr::CompoundIdentifier(parts) };
    let table = FunctionArg::Unnamed(FunctionArgExpr::Expr(table));
    let all = std::iter::once(table).chain(arguments).collect();
    *args = Some(TableFunctionArgs { args: all, settings: None });
    *name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(function))]);
    let bounds = [WINDOW_START, WINDOW_END].map(|bound| Expr::Identifier(Ident::new(bound)));
    groups.splice(place..=place, bounds);
    let _ = visit_expressions_mut(query, |expression| {
        for (suffix, bound) in [("start", WINDOW_START), ("end", WINDOW_END)] {
            let names = FUNCTIONS.map(|function| format!("{function}_{suffix}"));
            if called(expression, &[&names[0], &names[1]]).is_some() {
                *expression = Expr::Identifier(Ident::new(bound));
            }
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The name and the arguments of a call of one of these functions.
fn called(expression: &Expr, names: &[&str]) -> Option<(String, Vec<FunctionArg>)> {
    let Expr::Function(call) = expression else { return None };
    let name = call.name.to_string().to_lowercase();
    let FunctionArguments::List(list) = &call.args else { return None };
    names.contains(&name.as_str()).then(|| (name, list.args.clone()))
}
