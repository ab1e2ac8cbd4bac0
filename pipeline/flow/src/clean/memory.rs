//! What is remembered of series, within bounds.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use tidewatch_model::limits::{CLEAN_ROWS, CLEAN_SERIES};

/// What is remembered of one series.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Its last rows, in few bytes; the oldest first.
    rows: Vec<u128>,
    /// By limit of change: time and value of the last that was believed.
    last: Vec<Option<(i64, f64)>>,
}

impl Series {
    /// Whether a row is none of the last, which it is now.
    pub fn see(&mut self, row: u128) -> bool {
        if self.rows.contains(&row) {
            return false;
        }
        if self.rows.len() == CLEAN_ROWS {
            self.rows.remove(0);
        }
        self.rows.push(row);
        true
    }

    /// The last value that was believed.
    pub fn last(&self, limit: usize) -> Option<(i64, f64)> {
        self.last.get(limit).copied().flatten()
    }

    /// Remembers values where they are later than the last.
    pub fn believe(&mut self, values: &[Option<(i64, f64)>]) {
        for (known, value) in self.last.iter_mut().zip(values) {
            if let Some((ts, number)) = value
                && !number.is_nan()
                && known.is_none_or(|(before, _)| *ts > before)
            {
                *known = *value;
            }
        }
    }
}

/// Series by the hashes of their names. When so many are known as may be, those that had no row since the last time that this
/// was so are forgotten: which ones depends on the rows alone.
#[derive(Debug, Default)]
pub struct Memory {
    young: HashMap<u128, Series>,
    old: HashMap<u128, Series>,
    /// What the last rows changed, in a fixed order.
    staged: BTreeMap<u128, Series>,
}

impl Memory {
    /// A series as it is after the last rows.
    pub fn series(&mut self, series: u128, limits: usize) -> &mut Series {
        let (young, old) = (&self.young, &self.old);
        self.staged.entry(series).or_insert_with(|| {
            let known = young.get(&series).or_else(|| old.get(&series)).cloned();
            known.unwrap_or_else(|| Series { rows: vec![], last: vec![None; limits] })
        })
    }

    /// Takes back what the last rows changed.
    pub fn forget_staged(&mut self) {
        self.staged.clear();
    }

    /// Keeps what the last rows changed.
    pub fn keep(&mut self) {
        while let Some((series, known)) = self.staged.pop_first() {
            if self.young.len() >= CLEAN_SERIES && !self.young.contains_key(&series) {
                self.old = std::mem::take(&mut self.young);
            }
            self.old.remove(&series);
            self.young.insert(series, known);
        }
    }

    /// Series that are known.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// Two hashes that begin apart: 128 bits, so that two rows that are not the same are not taken for it.
struct Twins(DefaultHasher, DefaultHasher);

impl Twins {
    fn new() -> Twins {
        let mut twins = Twins(DefaultHasher::new(), DefaultHasher::new());
        twins.1.write_u8(1);
        twins
    }

    fn number(&mut self, number: u64) {
        self.0.write_u64(number);
        self.1.write_u64(number);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.write(text.as_bytes());
        self.1.write(text.as_bytes());
    }

    fn finish(&self) -> u128 {
        (u128::from(self.0.finish()) << 64) | u128::from(self.1.finish())
    }
}

/// By row: these columns together, in few bytes.
pub fn hashes<'a>(columns: impl Iterator<Item = &'a ArrayRef>, rows: usize) -> Vec<u128> {
    let mut twins: Vec<Twins> = (0..rows).map(|_| Twins::new()).collect();
    for column in columns {
        for (row, twins) in twins.iter_mut().enumerate() {
            twins.number(u64::from(column.is_valid(row)));
            if column.is_valid(row) {
                hash_value(column, row, twins);
            }
        }
    }
    twins.iter().map(Twins::finish).collect()
}

fn hash_value(column: &ArrayRef, row: usize, twins: &mut Twins) {
    match column.data_type() {
        DataType::Timestamp(..) => twins.number(column.as_primitive::<TimestampMicrosecondType>().value(row) as u64),
        DataType::Int64 => twins.number(column.as_primitive::<Int64Type>().value(row) as u64),
        DataType::Float64 => twins.number(column.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Boolean => twins.number(u64::from(column.as_boolean().value(row))),
        DataType::Utf8 => twins.text(column.as_string::<i32>().value(row)),
        DataType::Map(..) => {
            let pairs = column.as_map().value(row);
            twins.number(pairs.len() as u64);
            for side in pairs.columns() {
                for index in 0..side.len() {
                    twins.number(u64::from(side.is_valid(index)));
                    twins.text(side.as_string_opt::<i32>().map_or("", |texts| texts.value(index)));
                }
            }
        }
        // Tables have no others.
        other => twins.text(&other.to_string()),
    }
}
