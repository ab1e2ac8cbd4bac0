//! Group lists: each distinct tuple of a GROUP BY becomes a small number once, for all rules that group alike.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use tidewatch_model::limits::{GONE_AFTER, LONG_WINDOW_SIZE};
use tidewatch_model::{Span, Timestamp};

/// The group of a row that belongs to none: there are too many.
pub const NO_GROUP: u32 = u32::MAX;

/// How often, at most, gone groups are looked for when there are too many.
const SWEEP: Span = Span::minutes(1);

/// The groups of one list of expressions.
#[derive(Debug)]
pub struct Grouping {
    /// Turns tuples into bytes that are equal when the tuples are; absent for the empty list, which has one group.
    converter: Option<RowConverter>,
    known: HashMap<Arc<[u8]>, u32>,
    /// By group; empty for one that was given up, whose number is free.
    tuples: Vec<Arc<[u8]>>,
    /// By group: the newest row.
    newest: Vec<i64>,
    /// By group: the one that came after it last time. Sources repeat themselves, so it mostly does again.
    next: Vec<u32>,
    free: Vec<u32>,
    limit: usize,
    /// Whether no new group is taken, because memory is short.
    closed: bool,
    /// The key columns, one row per group, made when they are asked for.
    columns: Option<Vec<ArrayRef>>,
    /// Rows that belong to no group, because there were too many.
    pub overflow_rows: u64,
    /// When gone groups were looked for last, in event time.
    swept: i64,
    /// How many groups there ever were: grows whenever a number gets a meaning.
    pub version: u64,
    /// How many numbers have had more than one.
    pub reused: u64,
}

impl Grouping {
    /// By columns of these types; `limit` groups at most.
    pub fn new(types: &[DataType], limit: usize) -> Result<Grouping, ArrowError> {
        let converter = match types {
            [] => None,
            types => Some(RowConverter::new(types.iter().cloned().map(SortField::new).collect())?),
        };
        Ok(Grouping {
            converter,
            known: HashMap::new(),
            tuples: vec![],
            newest: vec![],
            next: vec![],
            free: vec![],
            limit,
            closed: false,
            columns: None,
            overflow_rows: 0,
            swept: i64::MIN,
            version: 0,
            reused: 0,
        })
    }

    /// How many numbers are in use or were; every group is below.
    pub fn len(&self) -> usize {
        self.tuples.len()
    }

    /// How many groups there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a number stands for a group.
    pub fn is_known(&self, group: u32) -> bool {
        self.tuples.get(group as usize).is_some_and(|tuple| self.converter.is_none() || !tuple.is_empty())
    }

    /// The group of each row; `times` are the rows' times.
    pub fn number(&mut self, keys: &[ArrayRef], times: &[i64]) -> Result<Vec<u32>, ArrowError> {
        let Some(converter) = &self.converter else {
            if self.tuples.is_empty() && !times.is_empty() {
                self.tuples.push(Arc::from([]));
                self.version += 1;
            }
            return Ok(vec![0; times.len()]);
        };
        let rows = converter.convert_columns(keys)?;
        let mut groups = Vec::with_capacity(times.len());
        let mut last = NO_GROUP;
        for (row, ts) in rows.iter().zip(times) {
            let tuple: &[u8] = row.as_ref();
            let guess = self.next.get(last as usize).copied().unwrap_or(NO_GROUP);
            let group = match self.tuples.get(guess as usize) {
                Some(known) if known.as_ref() == tuple => guess,
                _ => self.find(tuple, *ts),
            };
            if let Some(next) = self.next.get_mut(last as usize) {
                *next = group;
            }
            match self.newest.get_mut(group as usize) {
                Some(newest) => *newest = (*newest).max(*ts),
                None => self.overflow_rows += 1,
            }
            last = group;
            groups.push(group);
        }
        Ok(groups)
    }

    fn find(&mut self, tuple: &[u8], now: i64) -> u32 {
        if let Some(group) = self.known.get(tuple) {
            return *group;
        }
        if self.is_full() {
            // Looking at all of them for each row that finds no place would cost most when there is most to do.
            if now >= self.swept.saturating_add(SWEEP.0) {
                self.swept = now;
                self.forget_gone(Timestamp(now));
            }
            if self.is_full() {
                return NO_GROUP;
            }
        }
        let tuple: Arc<[u8]> = Arc::from(tuple);
        self.columns = None;
        self.version += 1;
        let group = match self.free.pop() {
            Some(group) => {
                self.reused += 1;
                self.tuples[group as usize] = tuple.clone();
                self.newest[group as usize] = i64::MIN;
                group
            }
            None => {
                self.tuples.push(tuple.clone());
                self.newest.push(i64::MIN);
                self.next.push(NO_GROUP);
                self.tuples.len() as u32 - 1
            }
        };
        self.known.insert(tuple, group);
        group
    }

    fn is_full(&self) -> bool {
        self.closed || self.known.len() >= self.limit
    }

    /// Takes no new group any more, or takes them again.
    pub fn close(&mut self, closed: bool) {
        self.closed = closed;
    }

    /// Frees the numbers of groups that no window can hold any more and whose alerts are over.
    fn forget_gone(&mut self, now: Timestamp) {
        let keep_from =
            now.saturating_sub(GONE_AFTER).saturating_sub(LONG_WINDOW_SIZE).saturating_sub(LONG_WINDOW_SIZE);
        for (group, newest) in self.newest.iter().enumerate() {
            if *newest < keep_from.0 && !self.tuples[group].is_empty() {
                self.known.remove(&self.tuples[group]);
                self.tuples[group] = Arc::from([]);
                self.free.push(group as u32);
            }
        }
    }

    /// The key columns: one row per number; what stands at a free number means nothing.
    pub fn columns(&mut self) -> Result<&[ArrayRef], ArrowError> {
        if self.columns.is_none() {
            self.columns = Some(match &self.converter {
                None => vec![],
                Some(converter) => {
                    // A free number shows what stands at another one.
                    let any = self.tuples.iter().find(|tuple| !tuple.is_empty());
                    let parser = converter.parser();
                    let tuples = self.tuples.iter().map(|tuple| match tuple.is_empty() {
                        true => any.unwrap_or(tuple),
                        false => tuple,
                    });
                    converter.convert_rows(tuples.map(|tuple| parser.parse(tuple)))?
                }
            });
        }
        Ok(self.columns.as_deref().unwrap_or_default())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let tuples: usize = self.tuples.iter().map(|tuple| tuple.len() + 2 * size_of::<Arc<[u8]>>() + 32).sum();
        tuples + self.newest.len() * 8 + self.next.len() * 4
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, StringArray};

    fn number(grouping: &mut Grouping, hosts: &[&str], ts: i64) -> Vec<u32> {
        let keys: ArrayRef = Arc::new(StringArray::from(hosts.to_vec()));
        grouping.number(&[keys], &vec![ts; hosts.len()]).unwrap()
    }

    #[test]
    fn equal_tuples_have_one_number_and_too_many_have_none() {
        let mut grouping = Grouping::new(&[DataType::Utf8], 3).unwrap();
        assert_eq!(number(&mut grouping, &["a", "b", "a", "b"], 1), [0, 1, 0, 1]);
        assert_eq!(number(&mut grouping, &["b", "", "a"], 2), [1, 2, 0]);
        assert_eq!(number(&mut grouping, &["c", "a"], 3), [NO_GROUP, 0]);
        assert_eq!(grouping.overflow_rows, 1);
        let columns = grouping.columns().unwrap();
        let hosts: Vec<_> = columns[0].as_string::<i32>().iter().flatten().collect();
        assert_eq!(hosts, ["a", "b", ""]);
    }

    #[test]
    fn a_group_that_is_gone_for_long_makes_room() {
        let mut grouping = Grouping::new(&[DataType::Utf8], 2).unwrap();
        number(&mut grouping, &["a", "b"], 1);
        let later = GONE_AFTER.0 * 2;
        number(&mut grouping, &["b"], later);
        assert_eq!(number(&mut grouping, &["c", "b", "a"], later), [0, 1, NO_GROUP]);
        assert_eq!(grouping.reused, 1);
    }
}
