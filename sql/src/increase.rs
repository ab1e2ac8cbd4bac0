//! `increase(counter, ts)` and `rate(counter, ts)` as DataFusion aggregates; [`crate::shared::growth`] says what they mean.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use crate::moments::Question;
use crate::samples::{SAMPLE_BYTES, merge, state_of};
use crate::shared::growth::{Counter, FloatCounter, Grown, IntegerCounter, answers};

/// The two, by name. In a rule `ts` may be left out.
const QUESTIONS: [(&str, Question); 2] = [("increase", Question::Plain), ("rate", Question::Rate)];

/// What a function of this name asks, if it is one of the two.
pub fn growth_question(name: &str) -> Option<Question> {
    QUESTIONS.iter().find(|(known, _)| *known == name).map(|(_, question)| *question)
}

/// `increase(counter, ts)`: Int64 for integers, else Float64; NULL below two values. `rate(counter, ts)`: Float64, per second.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Growth {
    name: &'static str,
    question: Question,
    signature: Signature,
}

/// The aggregates, to be registered.
pub fn growths() -> [AggregateUDF; 2] {
    QUESTIONS.map(|(name, question)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        AggregateUDF::new_from_impl(Growth { name, question, signature })
    })
}

impl AggregateUDFImpl for Growth {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        match arguments {
            [counter, DataType::Timestamp(_, _)] if counter.is_integer() => Ok(vec![DataType::Int64, time]),
            [counter, DataType::Timestamp(_, _)] if counter.is_numeric() || counter.is_null() => {
                Ok(vec![DataType::Float64, time])
            }
            _ => plan_err!("{0} expects a counter and a time: {0}(oom_kills_total, ts)", self.name),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(if self.question == Question::Rate { DataType::Float64 } else { arguments[0].clone() })
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let integer = *arguments.expr_fields[0].data_type() == DataType::Int64;
        Ok(Box::new(Samples { integer, question: self.question, samples: vec![] }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[samples]", arguments.name), DataType::Binary, true))])
    }
}

/// What was seen of a counter, in any order: times and bits.
#[derive(Debug)]
struct Samples {
    integer: bool,
    question: Question,
    samples: Vec<(i64, i64)>,
}

impl Accumulator for Samples {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let times = values[1].as_primitive::<TimestampMicrosecondType>();
        let bits = if self.integer {
            IntegerCounter::bits(values[0].as_ref())
        } else {
            FloatCounter::bits(values[0].as_ref())
        };
        let seen = |row: &usize| values[0].is_valid(*row) && times.is_valid(*row);
        self.samples.extend((0..bits.len()).filter(seen).map(|row| (times.value(row), bits[row])));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.samples.sort_unstable();
        let samples = self.samples.iter().copied();
        let answer = match self.integer {
            true => answers::<IntegerCounter>(&[Grown::over::<IntegerCounter>(samples)], self.question),
            false => answers::<FloatCounter>(&[Grown::over::<FloatCounter>(samples)], self.question),
        };
        ScalarValue::try_from_array(&answer, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.samples.capacity() * SAMPLE_BYTES
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(state_of(&self.samples))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        merge(&mut self.samples, states)
    }
}
