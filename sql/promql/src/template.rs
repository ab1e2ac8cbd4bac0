//! Annotations: from Go's templates, as Prometheus fills them in, to ours.

/// A number as Go writes it.
const VALUE: &str = r#"printf("%v", value)"#;
/// All labels as Go writes them.
const ALL_LABELS: &str = r#"printf("%v", labels)"#;

/// A text with our templates in it, and whether it shows all labels at once, of which an alert has more than its series.
///
/// # Errors
/// The action that has no translation, and why.
pub fn translated(text: &str) -> Result<(String, bool), String> {
    let mut out = String::new();
    let mut rest = text;
    let mut open: Vec<&str> = Vec::new();
    while let Some(at) = rest.find("{{") {
        out.push_str(&plain(&rest[..at]));
        let inner = &rest[at + 2..];
        let end = end_of_action(inner).ok_or_else(|| format!("`{{{{{inner}`: expected }}}}"))?;
        out.push_str(&action(&inner[..end], &mut open)?);
        rest = &inner[end + 2..];
    }
    out.push_str(&plain(rest));
    match open.first() {
        None => Ok((out.clone(), out.contains(ALL_LABELS))),
        Some(word) => Err(format!("{{{{ {word} }}}} without its end")),
    }
}

/// What our templates would take for a statement or a comment.
fn plain(text: &str) -> String {
    text.replace("{%", "{{ '{%' }}").replace("{#", "{{ '{#' }}")
}

/// Where `}}` is outside of quotes.
fn end_of_action(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '"' || letter == '`' => quote = Some(letter),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

fn action(written: &str, open: &mut Vec<&'static str>) -> Result<String, String> {
    let (before, body) = match written.strip_prefix("- ") {
        Some(body) => ("-", body),
        None => ("", written),
    };
    let (after, body) = match body.strip_suffix(" -") {
        Some(body) => ("-", body),
        None => ("", body),
    };
    let body = body.trim();
    let refused = |reason: String| format!("`{{{{ {body} }}}}`: {reason}");
    let statement = |text: &str| format!("{{%{before} {text} {after}%}}");
    if body.starts_with("/*") {
        return Ok(String::new());
    }
    let tokens = tokens(body).map_err(refused)?;
    let words: Vec<&str> = tokens.iter().map(Token::word).collect();
    match words.as_slice() {
        ["if", ..] => {
            open.push("if");
            Ok(statement(&format!("if {}", pipeline(&tokens[1..]).map_err(refused)?)))
        }
        ["else", "if", ..] if !open.is_empty() => {
            Ok(statement(&format!("elif {}", pipeline(&tokens[2..]).map_err(refused)?)))
        }
        ["else"] if !open.is_empty() => Ok(statement("else")),
        ["end"] if open.pop().is_some() => Ok(statement("endif")),
        ["range" | "with" | "define" | "template" | "block", ..] => Err(refused("no translation".to_string())),
        _ if tokens.iter().any(|token| matches!(token, Token::Sign(":="))) => Err(refused("a variable".to_string())),
        _ => {
            let value = pipeline(&tokens).map_err(refused)?;
            let compares = matches!(words.first(), Some(&("eq" | "ne" | "lt" | "le" | "gt" | "ge" | "not")));
            let shown = match value.as_str() {
                "value" => VALUE.to_string(),
                "labels" => ALL_LABELS.to_string(),
                compared if compares => format!("printf(\"%v\", {compared})"),
                shown => shown.to_string(),
            };
            Ok(format!("{{{{{before} {shown} {after}}}}}"))
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(&'static str),
}

impl Token {
    fn word(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Text(_) => "",
            Token::Sign(sign) => sign,
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let signs = ["|", "(", ")", ":="];
        if let Some(sign) = signs.into_iter().find(|sign| rest.starts_with(sign)) {
            found.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else if first == '"' || first == '`' {
            let (text, after) = quoted(&rest[1..], first).ok_or("a text without its end")?;
            found.push(Token::Text(text));
            rest = after;
        } else {
            let end = rest.find(|letter: char| letter.is_whitespace() || "|()".contains(letter)).unwrap_or(rest.len());
            found.push(Token::Word(rest[..end].to_string()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(found)
}

fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            _ if letter == quote => return Some((found, &text[at + letter.len_utf8()..])),
            '\\' if quote == '"' => match letters.next()?.1 {
                'n' => found.push('\n'),
                't' => found.push('\t'),
                other => found.push(other),
            },
            _ => found.push(letter),
        }
    }
    None
}

/// `a | b | c`: each takes what was before as its last argument.
fn pipeline(tokens: &[Token]) -> Result<String, String> {
    let mut depth = 0_i32;
    let mut commands: Vec<Vec<Token>> = vec![vec![]];
    for token in tokens {
        match token {
            Token::Sign("(") => depth += 1,
            Token::Sign(")") => depth -= 1,
            Token::Sign("|") if depth == 0 => {
                commands.push(vec![]);
                continue;
            }
            _ => {}
        }
        if let Some(command) = commands.last_mut() {
            command.push(token.clone());
        }
    }
    let mut value: Option<String> = None;
    for command in commands {
        value = Some(called(&command, value)?);
    }
    value.ok_or_else(|| "nothing".to_string())
}

/// One command with what is piped into it.
fn called(command: &[Token], piped: Option<String>) -> Result<String, String> {
    let (first, rest) = command.split_first().ok_or("nothing")?;
    let mut arguments = arguments(rest)?;
    arguments.extend(piped);
    let Token::Word(name) = first else {
        let mut all = self::arguments(command)?;
        return if all.len() == 1 && arguments.is_empty() || matches!(first, Token::Sign("(")) && all.len() == 1 {
            Ok(all.remove(0))
        } else {
            Err("expected a function".to_string())
        };
    };
    if let Some(value) = operand(name) {
        return if arguments.is_empty() { Ok(value) } else { Err(format!("'{name}' is no function")) };
    }
    let text = match (name.as_str(), arguments.as_slice()) {
        ("humanize" | "humanize1024" | "humanizeDuration" | "humanizePercentage" | "humanizeTimestamp", [value]) => {
            format!("{value} | {}", filter(name))
        }
        ("title", [value]) => format!("{value} | title"),
        ("toUpper", [value]) => format!("{value} | upper"),
        ("toLower", [value]) => format!("{value} | lower"),
        ("print", [value]) => format!("printf(\"%v\", {value})"),
        ("index", [labels, label]) if labels == "labels" => format!("labels[{label}]"),
        ("printf", [format, values @ ..]) => printf(format, values)?,
        ("eq", [one, other]) => format!("{one} == {other}"),
        ("ne", [one, other]) => format!("{one} != {other}"),
        ("lt", [one, other]) => format!("{one} < {other}"),
        ("le", [one, other]) => format!("{one} <= {other}"),
        ("gt", [one, other]) => format!("{one} > {other}"),
        ("ge", [one, other]) => format!("{one} >= {other}"),
        ("and", [one, other]) => format!("({one} and {other})"),
        ("or", [one, other]) => format!("({one} or {other})"),
        ("not", [one]) => format!("(not {one})"),
        _ => return Err(format!("'{name}' has no translation")),
    };
    Ok(if text.contains(' ') && !text.starts_with('(') && !text.starts_with("printf(") {
        format!("({text})")
    } else {
        text
    })
}

fn filter(name: &str) -> &'static str {
    match name {
        "humanize" => "humanize",
        "humanize1024" => "humanize1024",
        "humanizeDuration" => "humanize_duration",
        "humanizePercentage" => "humanize_percentage",
        _ => "humanize_timestamp",
    }
}

fn arguments(tokens: &[Token]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            Token::Text(text) => found.push(literal(text)),
            Token::Word(word) => found.push(operand(word).ok_or_else(|| format!("'{word}' has no translation"))?),
            Token::Sign("(") => {
                let mut depth = 1;
                let start = at + 1;
                while depth > 0 {
                    at += 1;
                    match tokens.get(at) {
                        Some(Token::Sign("(")) => depth += 1,
                        Some(Token::Sign(")")) => depth -= 1,
                        Some(_) => {}
                        None => return Err("a parenthesis without its end".to_string()),
                    }
                }
                found.push(pipeline(&tokens[start..at])?);
            }
            Token::Sign(sign) => return Err(format!("'{sign}' is not expected")),
        }
        at += 1;
    }
    Ok(found)
}

/// A value that is named or written.
fn operand(word: &str) -> Option<String> {
    if let Some(label) = word.strip_prefix("$labels.").or_else(|| word.strip_prefix(".Labels.")) {
        let good = !label.is_empty() && label.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        return good.then(|| format!("labels.{label}"));
    }
    match word {
        "$value" | ".Value" => Some("value".to_string()),
        "$labels" | ".Labels" => Some("labels".to_string()),
        "true" | "false" => Some(word.to_string()),
        word => word.parse::<f64>().ok().map(|_| word.to_string()),
    }
}

fn literal(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// `printf "%.1f of %s" a b` is called as it is, where ours writes what Go's does.
fn printf(format: &str, values: &[String]) -> Result<String, String> {
    if !format.starts_with('"') {
        return Err("printf without a format".to_string());
    }
    let mut rest = format;
    let mut count = 0;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        let end = rest.find(|letter: char| !"+-# 0123456789.".contains(letter)).unwrap_or(rest.len());
        let verb = rest[end..].chars().next().ok_or("printf: a verb without its end")?;
        match verb {
            '%' => {}
            's' | 'v' | 'q' | 'd' | 'f' | 'F' | 'e' | 'g' => count += 1,
            _ => return Err(format!("printf: '%{}{verb}' has no translation", &rest[..end])),
        }
        rest = &rest[end + verb.len_utf8()..];
    }
    match count == values.len() {
        true => Ok(format!("printf({format}{})", values.iter().map(|value| format!(", {value}")).collect::<String>())),
        false => Err(format!("printf: {count} values are expected, and {} given", values.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: &str) {
        let found = translated(written).map(|(text, _)| text);
        assert_eq!(found.unwrap_or_else(|reason| format!("refused: {reason}")), expected, "{written}");
    }

    #[test]
    fn labels_and_values_are_those_of_the_alert() {
        check(
            "{{ $labels.instance }} is at {{ $value }}%",
            r#"{{ labels.instance }} is at {{ printf("%v", value) }}%"#,
        );
        check("{{.Labels.job}} {{- .Value -}}", r#"{{ labels.job }} {{- printf("%v", value) -}}"#);
        check("{{- $value -}}", r#"{{- printf("%v", value) -}}"#);
        check(r#"{{ index $labels "job" }} {% x"#, r#"{{ labels["job"] }} {{ '{%' }} x"#);
        check("no template", "no template");
        check("{{ $labels }}", r#"{{ printf("%v", labels) }}"#);
        check("{{ lt $value 3.0 }}", r#"{{ printf("%v", (value < 3.0)) }}"#);
        assert_eq!(translated("{{ $labels }}").map(|(_, all)| all), Ok(true));
    }

    #[test]
    fn numbers_are_shown_to_people() {
        check("{{ $value | humanizePercentage }}", "{{ (value | humanize_percentage) }}");
        check("{{ humanizeDuration $value }}", "{{ (value | humanize_duration) }}");
        check(r#"{{ printf "%.2f" $value }}"#, r#"{{ printf("%.2f", value) }}"#);
        check(r#"{{ $value | printf "%.0f%%" }}"#, r#"{{ printf("%.0f%%", value) }}"#);
        check(r#"{{ printf "%s/%s" $labels.a $labels.b }}"#, r#"{{ printf("%s/%s", labels.a, labels.b) }}"#);
        check(r#"{{ $labels.a | toUpper | printf "%q" }}"#, r#"{{ printf("%q", (labels.a | upper)) }}"#);
        check(r#"{{ print $value }}"#, r#"{{ printf("%v", value) }}"#);
        check(r#"{{ printf "%.1f" (humanize $value) }}"#, r#"{{ printf("%.1f", (value | humanize)) }}"#);
        check(r#"{{ printf "%x" $value }}"#, r#"refused: `{{ printf "%x" $value }}`: printf: '%x' has no translation"#);
        check(r#"{{ printf "%s" }}"#, r#"refused: `{{ printf "%s" }}`: printf: 1 values are expected, and 0 given"#);
        check(r#"{{ with $x := 3 }}{{ end }}"#, "refused: `{{ with $x := 3 }}`: no translation");
    }

    #[test]
    fn conditions_are_kept() {
        check(
            r#"{{ if eq $labels.a "b" }}x{{ else if gt $value 3.0 }}y{{ else }}z{{ end }}"#,
            "{% if (labels.a == \"b\") %}x{% elif (value > 3.0) %}y{% else %}z{% endif %}",
        );
        check("{{ if $labels.a }}x", "refused: {{ if }} without its end");
        check(r#"{{ with query "up" }}"#, "refused: `{{ with query \"up\" }}`: no translation");
        check(
            "{{ $externalLabels.cluster }}",
            "refused: `{{ $externalLabels.cluster }}`: '$externalLabels.cluster' has no translation",
        );
    }
}
