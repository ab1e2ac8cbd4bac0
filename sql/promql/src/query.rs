//! From a typed expression to a SELECT over `metrics`.
//!
//! The innermost SELECT has one row for each series and window, with a column for each thing that is computed of it; each aggregation is a
//! SELECT around it, and so is what rows are told of each other. No sample is NULL.

use std::time::Duration;

use crate::leaf::{HAS_VALUE, Leaf};
use crate::node::{Aggregation, Arithmetic, Key, Node};
use crate::text::{column, interval, number, quoted};

/// A part of SQL with how tightly it binds.
#[derive(Debug, Clone)]
pub struct Text {
    sql: String,
    rank: u8,
}

/// Metrics that are there as long as anything is: of every scrape, and of Tidewatch itself.
const ANCHORS: [&str; 2] = ["up", "tidewatch_lake_failures_total"];

const OR: u8 = 0;
const AND: u8 = 1;
const NOT: u8 = 2;
const COMPARE: u8 = 3;
const ADD: u8 = 4;
const MULTIPLY: u8 = 5;
const ATOM: u8 = 6;

impl Text {
    fn atom(sql: impl Into<String>) -> Text {
        Text { sql: sql.into(), rank: ATOM }
    }

    /// In parentheses where it binds less tightly.
    fn at(&self, rank: u8) -> String {
        if self.rank < rank { format!("({})", self.sql) } else { self.sql.clone() }
    }
}

/// The columns of rows that were put together so many times.
#[derive(Debug, Default)]
pub struct Level {
    /// The key: names of its columns, and their texts over the rows below.
    pub texts: Vec<(String, String)>,
    /// Aggregates: names and texts.
    pub columns: Vec<(String, String)>,
    /// Maps of labels without some, each made of one before it: names and texts.
    pub rests: Vec<(String, String)>,
    /// What rows are told of each other, in the order in which it must be known.
    pub told: Vec<Vec<(String, String)>>,
}

/// Writes the parts of a SELECT.
pub struct Query {
    /// How often it looks.
    pub slide: Duration,
    /// How far back.
    pub size: Duration,
    /// What is computed of each series.
    pub leaves: Vec<Leaf>,
    /// The columns of each level.
    pub levels: Vec<Level>,
    /// Whether it has an answer where none of its series is there.
    pub always: bool,
    /// Whether the last level is a SELECT of its own, so that its columns have names.
    pub named: bool,
}

impl Query {
    /// For an expression and the texts that go with it, which were put together `level` times.
    pub fn new(parts: &[&Node], level: usize, slide: Duration) -> Query {
        let mut leaves = Vec::new();
        parts.iter().for_each(|part| part.leaves(&mut leaves));
        let size = leaves.iter().map(Leaf::reach).max().unwrap_or(slide).max(slide);
        let told = parts.iter().any(|part| part.depth(level) > 0);
        let grown = level == 0 && leaves.iter().any(|leaf| !leaf.is_plain());
        let named = told || grown || level > 0 && (parts.len() > 1 || parts.iter().any(|part| part.has_where()));
        let levels = (0..=level).map(|_| Level::default()).collect();
        Query { slide, size, leaves, levels, always: false, named }
    }

    /// Whether the texts of a level stand in the SELECT that puts its rows together.
    fn is_inline(&self, level: usize) -> bool {
        level + 1 == self.levels.len() && !self.named
    }

    /// The value at a level; NULL where there is no sample.
    pub fn value(&mut self, node: &Node, at: usize) -> Result<Text, String> {
        Ok(match node {
            Node::Number(value) => Text { sql: number(*value), rank: if *value < 0.0 { ADD } else { ATOM } },
            Node::Now => Text::atom("extract(epoch FROM window_end)"),
            Node::Calendar(what) => Text::atom(format!("extract({what} FROM window_end)")),
            Node::Leaf(leaf) => self.leaf(leaf, at)?,
            Node::Negative(input) => Text { sql: format!("-{}", self.value(input, at)?.at(ATOM)), rank: MULTIPLY },
            Node::Arithmetic(operator, left, right) => self.arithmetic(*operator, left, right, at)?,
            Node::Compare { as_number: true, left, right, .. } => {
                let compared = self.compared(node, at)?;
                let (left, right) = (self.value(left, at)?, self.value(right, at)?);
                Text::atom(format!(
                    "CASE WHEN {} THEN 1.0 WHEN {} IS NOT NULL AND {} IS NOT NULL THEN 0.0 END",
                    compared.sql,
                    left.at(ATOM),
                    right.at(ATOM)
                ))
            }
            Node::Compare { .. } | Node::And(..) | Node::Unless(..) | Node::Where { .. } | Node::Top { .. } => {
                let (condition, shown) = (self.present(node, at)?, self.shown(node, at)?);
                Text::atom(format!("CASE WHEN {} THEN {} END", condition.sql, shown.sql))
            }
            Node::Or(left, right) => {
                let (condition, left, right) = (self.present(left, at)?, self.shown(left, at)?, self.value(right, at)?);
                Text::atom(format!("CASE WHEN {} THEN {} ELSE {} END", condition.sql, left.sql, right.sql))
            }
            Node::Call(name, arguments) => {
                let texts = arguments
                    .iter()
                    .map(|argument| Ok(self.value(argument, at)?.sql))
                    .collect::<Result<Vec<_>, String>>()?;
                match (*name, arguments.first()) {
                    // SQL's least and greatest pass over NULL; no sample is no sample.
                    ("least" | "greatest", Some(first)) if !first.is_always() => Text::atom(format!(
                        "CASE WHEN {} IS NOT NULL THEN {name}({}) END",
                        Text { sql: texts[0].clone(), rank: OR }.at(ATOM),
                        texts.join(", ")
                    )),
                    _ => Text::atom(format!("{name}({})", texts.join(", "))),
                }
            }
            Node::Aggregate { function, input, level, key, texts } => {
                self.aggregate(*function, input, *level, key, texts)?
            }
            Node::Over { function, input, level, partition } => self.over(node, *function, input, *level, partition)?,
            Node::Bucket { .. } => return Err("buckets without a quantile".to_string()),
            Node::Label(name) => Text::atom(format!("labels[{}]", quoted(name))),
            Node::KeyLabel(name) if self.is_inline(at) => {
                let text = self.levels[at].texts.iter().find(|(known, _)| known == name);
                Text::atom(
                    text.map(|(_, text)| text.clone()).ok_or_else(|| format!("the label '{name}' is not known"))?,
                )
            }
            Node::KeyLabel(name) => Text::atom(column(name)),
            Node::NoLabel => Text::atom("CAST(NULL AS VARCHAR)"),
            Node::Text(text) => Text::atom(quoted(text)),
            Node::LabelsWithout(labels) => Text::atom(self.rest(labels, at)),
            Node::TextOfSample { sample, text } => {
                let (condition, text) = (self.present(sample, at)?, self.value(text, at)?);
                Text::atom(format!("CASE WHEN {} THEN {} END", condition.sql, text.sql))
            }
            Node::LabelOfOne { sample, text, level, partition } => {
                let (condition, text) = (self.present(sample, *level)?, self.value(text, *level)?);
                let window = self.window(partition, *level)?;
                let sql = format!("max(CASE WHEN {} THEN {} END) OVER ({window})", condition.sql, text.sql);
                self.tell(node, *level, sql)
            }
            Node::Replaced { source, regex, replacement, otherwise } => {
                let (source, otherwise) = (self.value(source, at)?.at(ATOM), self.value(otherwise, at)?);
                let empty = regex::Regex::new(regex).is_ok_and(|regex| regex.is_match(""));
                let source = if empty { format!("coalesce({source}, '')") } else { source };
                let (regex, replacement) = (quoted(regex), quoted(replacement));
                Text::atom(format!(
                    "CASE WHEN {source} ~ {regex} THEN nullif(regexp_replace({source}, {regex}, {replacement}), '') ELSE {} END",
                    otherwise.sql
                ))
            }
        })
    }

    /// The value where it is known that there is one.
    pub fn shown(&mut self, node: &Node, at: usize) -> Result<Text, String> {
        match node {
            Node::Compare { as_number: false, left, right, yields_right, .. } => {
                self.shown(if *yields_right { right } else { left }, at)
            }
            Node::And(left, _) | Node::Unless(left, _) => self.shown(left, at),
            Node::Where { input, .. } | Node::Top { input, .. } => self.shown(input, at),
            node => self.value(node, at),
        }
    }

    /// The condition that there is a sample.
    pub fn present(&mut self, node: &Node, at: usize) -> Result<Text, String> {
        Ok(match node {
            node if node.is_always() => Text::atom("true"),
            Node::Compare { as_number: false, left, right, .. } => {
                let mut parts = Vec::new();
                for side in [left, right].into_iter().filter(|side| side.is_filter()) {
                    parts.push(self.present(side, at)?);
                }
                parts.push(self.compared(node, at)?);
                all(parts)
            }
            Node::And(left, right) => all(vec![self.present(left, at)?, self.present(right, at)?]),
            Node::Unless(left, right) => {
                let (left, right) = (self.present(left, at)?, self.present(right, at)?);
                all(vec![left, Text { sql: format!("{} IS NOT TRUE", right.at(ATOM)), rank: NOT }])
            }
            Node::Or(left, right) => {
                let (left, right) = (self.present(left, at)?, self.present(right, at)?);
                Text { sql: format!("{} OR {}", left.at(OR), right.at(OR)), rank: OR }
            }
            Node::Where { input, text, condition } => {
                let text = self.value(text, at)?.at(ATOM);
                all(vec![self.present(input, at)?, Text { sql: condition.replace('@', &text), rank: AND }])
            }
            Node::Top { count, input, smallest, level, partition } => {
                let value = self.value(input, *level)?;
                let window = self.window(partition, *level)?;
                let order = if *smallest { "ASC" } else { "DESC" };
                let ties = self.ties(*level);
                let sql = format!("row_number() OVER ({window} ORDER BY {} {order} NULLS LAST{ties})", value.sql);
                let rank = self.tell(node, *level, sql);
                let first = Text { sql: format!("{} <= {}", rank.sql, number(*count)), rank: COMPARE };
                all(vec![first, self.present(input, at)?])
            }
            Node::Aggregate { function: Aggregation::Count, .. } => {
                let count = self.value(node, at)?;
                match counted(&count) {
                    Some(count) => Text { sql: format!("{count} > 0"), rank: COMPARE },
                    None => Text { sql: format!("{} IS NOT NULL", count.at(ADD)), rank: COMPARE },
                }
            }
            node => Text { sql: format!("{} IS NOT NULL", self.value(node, at)?.at(ADD)), rank: COMPARE },
        })
    }

    fn compared(&mut self, node: &Node, at: usize) -> Result<Text, String> {
        let Node::Compare { operator, left, right, .. } = node else { return self.present(node, at) };
        let side = |query: &mut Query, node: &Node| {
            if node.is_filter() { query.shown(node, at) } else { query.value(node, at) }
        };
        let (mut one, other) = (side(self, left)?, side(self, right)?);
        // A count that passes such a condition is not zero.
        let passes = match (*operator, &**right) {
            (">", Node::Number(least)) => *least >= 0.0,
            (">=" | "=", Node::Number(least)) => *least > 0.0,
            _ => false,
        };
        if passes && let Some(count) = counted(&one) {
            one = Text::atom(count);
        }
        Ok(Text { sql: format!("{} {operator} {}", one.at(ADD), other.at(ADD)), rank: COMPARE })
    }

    fn leaf(&mut self, leaf: &Leaf, at: usize) -> Result<Text, String> {
        let index = self.leaves.iter().position(|known| known == leaf).unwrap_or_default();
        let name = leaf_name(index);
        if !self.is_inline(0) || at != 0 {
            return Ok(Text::atom(name));
        }
        let columns = leaf.columns(&name, &self.conditions(), self.size);
        let rank = if leaf.function.is_sum() { ADD } else { ATOM };
        columns
            .aggregates
            .first()
            .map(|(_, sql)| Text { sql: sql.clone(), rank })
            .ok_or_else(|| "no column".to_string())
    }

    /// What all rows pass: the names of the metrics, what all selectors have in common, and that there is a value where all need one.
    pub fn conditions(&self) -> Vec<String> {
        let mut names: Vec<&str> = Vec::new();
        for leaf in &self.leaves {
            if !names.contains(&leaf.selector.name.as_str()) {
                names.push(&leaf.selector.name);
            }
        }
        if self.always {
            // Rows of these are there as long as anything is: without any row there is no window.
            names.extend(ANCHORS.iter().filter(|anchor| !names.contains(anchor)).copied().collect::<Vec<_>>());
        }
        let listed: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let mut conditions = vec![match listed.as_slice() {
            [one] => format!("name = {one}"),
            _ => format!("name IN ({})", listed.join(", ")),
        }];
        let first = self.leaves.first().filter(|_| !self.always);
        let common = first.into_iter().flat_map(|first| &first.selector.matchers);
        let common = common.filter(|matcher| self.leaves.iter().all(|leaf| leaf.selector.matchers.contains(matcher)));
        conditions.extend(common.cloned());
        if self.leaves.iter().any(Leaf::needs_values) && !self.sees_ends() {
            conditions.push(HAS_VALUE.to_string());
        }
        conditions
    }

    /// Whether something of it is told by a row without a value that its series has ended.
    pub fn sees_ends(&self) -> bool {
        self.leaves.iter().any(Leaf::sees_ends)
    }

    fn operand(&mut self, node: &Node, at: usize) -> Result<Text, String> {
        let text = self.value(node, at)?;
        Ok(if node.is_whole() { Text::atom(format!("CAST({} AS DOUBLE)", text.sql)) } else { text })
    }

    fn arithmetic(&mut self, operator: Arithmetic, left: &Node, right: &Node, at: usize) -> Result<Text, String> {
        let (one, other) = (self.operand(left, at)?, self.operand(right, at)?);
        let text = |sign: &str, rank: u8| Text { sql: format!("{} {sign} {}", one.at(rank), other.at(rank + 1)), rank };
        Ok(match (operator, right) {
            (Arithmetic::Add, _) => text("+", ADD),
            (Arithmetic::Subtract, _) => text("-", ADD),
            (Arithmetic::Multiply, _) => text("*", MULTIPLY),
            (Arithmetic::Divide, Node::Number(divisor)) if *divisor != 0.0 => text("/", MULTIPLY),
            (Arithmetic::Modulo, Node::Number(divisor)) if *divisor != 0.0 => text("%", MULTIPLY),
            (Arithmetic::Divide | Arithmetic::Modulo, Node::Number(_)) => return Err("a division by zero".to_string()),
            // Of nothing by nothing there is no sample that a condition holds for; else PromQL has infinity.
            (Arithmetic::Divide, _) => Text::atom(format!(
                "CASE WHEN {other} <> 0 THEN ratio({}, {}) WHEN {other} = 0 AND {one} <> 0 THEN {} * CAST('inf' AS DOUBLE) END",
                one.sql,
                other.sql,
                one.at(MULTIPLY),
                other = other.at(ADD),
                one = one.at(ADD),
            )),
            (Arithmetic::Modulo, _) => Text::atom(format!(
                "CASE WHEN {} <> 0 THEN {} % {} END",
                other.at(ADD),
                one.at(MULTIPLY),
                other.at(ATOM)
            )),
            (Arithmetic::Power, _) => Text::atom(format!("power({}, {})", one.sql, other.sql)),
        })
    }

    fn aggregate(
        &mut self,
        function: Aggregation,
        input: &Node,
        level: usize,
        key: &Key,
        texts: &[(String, Node)],
    ) -> Result<Text, String> {
        let below = level - 1;
        let mut found = Vec::new();
        for (label, text) in texts {
            found.push((label.clone(), self.value(text, below)?.sql));
        }
        if let Key::Without(labels) = key {
            found.push(("labels".to_string(), self.rest(labels, below)));
        }
        match self.levels[level].texts.is_empty() {
            true => self.levels[level].texts = found,
            false if self.levels[level].texts == found => {}
            false => return Err("labels by which is aggregated are changed on one side".to_string()),
        }
        let sql = self.aggregated(function, input, below)?;
        if self.is_inline(level) {
            return Ok(Text::atom(sql));
        }
        let sql = if function == Aggregation::Count { format!("CAST({sql} AS DOUBLE)") } else { sql };
        let columns = &mut self.levels[level].columns;
        let index = columns.iter().position(|(_, known)| *known == sql).unwrap_or(columns.len());
        let name = format!("a{level}_{}", index + 1);
        if index == columns.len() {
            columns.push((name.clone(), sql));
        }
        Ok(Text::atom(name))
    }

    fn aggregated(&mut self, function: Aggregation, input: &Node, at: usize) -> Result<String, String> {
        let (input, bound) = match input {
            Node::Bucket { count, bound } => (&**count, Some(self.value(bound, at)?)),
            input => (input, None),
        };
        let (value, filter) = match input.is_filter() {
            true => (self.shown(input, at)?, format!(" FILTER (WHERE {})", self.present(input, at)?.sql)),
            false => (self.value(input, at)?, String::new()),
        };
        let value = value.sql;
        let call = |text: String| format!("{text}{filter}");
        Ok(match function {
            Aggregation::Sum => call(format!("sum({value})")),
            Aggregation::Avg => call(format!("avg({value})")),
            Aggregation::Min => call(format!("min({value})")),
            Aggregation::Max => call(format!("max({value})")),
            Aggregation::Count => format!("nullif({}, 0)", call(format!("count({value})"))),
            Aggregation::Group => format!("CASE WHEN {} > 0 THEN 1.0 END", call(format!("count({value})"))),
            Aggregation::Stddev => call(format!("stddev_pop({value})")),
            Aggregation::Stdvar => call(format!("var_pop({value})")),
            Aggregation::Quantile(share) => call(format!("percentile_cont({value}, {})", number(share))),
            Aggregation::Histogram(share) => {
                let bound = bound.ok_or("a histogram without bounds")?;
                call(format!("histogram_quantile({}, TRY_CAST({} AS DOUBLE), {value})", number(share), bound.sql))
            }
        })
    }

    fn over(
        &mut self,
        node: &Node,
        function: Aggregation,
        input: &Node,
        level: usize,
        partition: &[Node],
    ) -> Result<Text, String> {
        let value = self.operand(input, level)?.sql;
        let window = self.window(partition, level)?;
        let call = match function {
            Aggregation::Sum => "sum",
            Aggregation::Avg => "avg",
            Aggregation::Min => "min",
            Aggregation::Max => "max",
            Aggregation::Count | Aggregation::Group => "count",
            Aggregation::Stddev => "stddev_pop",
            Aggregation::Stdvar => "var_pop",
            Aggregation::Quantile(_) | Aggregation::Histogram(_) => {
                return Err("a quantile that is told to many rows".to_string());
            }
        };
        let sql = format!("{call}({value}) OVER ({window})");
        let sql = match function {
            Aggregation::Count => format!("CAST(nullif({sql}, 0) AS DOUBLE)"),
            Aggregation::Group => format!("CASE WHEN {sql} > 0 THEN 1.0 END"),
            _ => sql,
        };
        Ok(self.tell(node, level, sql))
    }

    /// The column of all labels but these at a level.
    fn rest(&mut self, labels: &[String], level: usize) -> String {
        labels.iter().fold("labels".to_string(), |map, label| {
            let sql = without(&map, label);
            let rests = &mut self.levels[level].rests;
            if let Some((name, _)) = rests.iter().find(|(_, known)| *known == sql) {
                return name.clone();
            }
            let name = format!("r{level}_{}", rests.len() + 1);
            rests.push((name.clone(), sql));
            name
        })
    }

    fn window(&mut self, partition: &[Node], level: usize) -> Result<String, String> {
        let mut texts = vec!["window_end".to_string()];
        for part in partition {
            texts.push(self.value(part, level)?.sql);
        }
        Ok(format!("PARTITION BY {}", texts.join(", ")))
    }

    /// What puts rows of the same number into an order.
    fn ties(&self, level: usize) -> String {
        match self.levels[level].texts.as_slice() {
            texts if level == 0 || texts.iter().any(|(name, _)| name == "labels") => {
                ", array_to_string(map_values(labels), ',')".to_string()
            }
            texts => texts.iter().map(|(name, _)| format!(", {}", column(name))).collect(),
        }
    }

    /// The column of what rows of a level are told.
    fn tell(&mut self, node: &Node, level: usize, sql: String) -> Text {
        let depth = node.depth(level).max(1) - 1;
        let told = &mut self.levels[level].told;
        while told.len() <= depth {
            told.push(vec![]);
        }
        if let Some((name, _)) = told.iter().flatten().find(|(_, known)| *known == sql) {
            return Text::atom(name.clone());
        }
        let name = format!("o{level}_{}", told.iter().map(Vec::len).sum::<usize>() + 1);
        told[depth].push((name.clone(), sql));
        Text::atom(name)
    }
}

impl Text {
    /// The SQL.
    pub fn into_sql(self) -> String {
        self.sql
    }
}

/// The name of a leaf's column.
pub fn leaf_name(index: usize) -> String {
    format!("s{}", index + 1)
}

/// The count itself, where zero is no sample.
fn counted(text: &Text) -> Option<&str> {
    text.sql.strip_prefix("nullif(").and_then(|rest| rest.strip_suffix(", 0)"))
}

fn all(parts: Vec<Text>) -> Text {
    let mut parts: Vec<Text> = parts.into_iter().filter(|part| part.sql != "true").collect();
    match parts.len() {
        0 => Text::atom("true"),
        1 => parts.remove(0),
        _ => Text { sql: parts.iter().map(|part| part.at(AND)).collect::<Vec<_>>().join(" AND "), rank: AND },
    }
}

/// A map without a label.
fn without(map: &str, label: &str) -> String {
    let label = quoted(label);
    let count = format!("CAST(cardinality({map}) AS BIGINT)");
    // Behind the last, where the label is missing.
    let place = format!("coalesce(CAST(array_position(map_keys({map}), {label}) AS BIGINT), {count} + 1)");
    let before = format!("array_slice(map_values({map}), 1, {place} - 1)");
    let after = format!("array_slice(map_values({map}), {place} + 1, {count})");
    format!("map(array_remove(map_keys({map}), {label}), array_concat({before}, {after}))")
}

/// `INTERVAL`s of a window.
pub fn hop(slide: Duration, size: Duration) -> String {
    format!("HOP(metrics, ts, {}, {})", interval(slide), interval(size))
}
