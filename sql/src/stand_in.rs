//! Aggregates that stand in for DataFusion's own where their argument is Float64: `sum`, `avg`, variances and standard
//! deviations, exact and whatever the order of rows; `min` and `max` with NaN above every number, where DataFusion's depend on
//! the order. Every other type, and a DISTINCT sum, goes to DataFusion's own, which are exact for integers and decimals.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::stddev::{stddev_pop_udaf, stddev_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_aggregate::variance::{var_pop_udaf, var_samp_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, StatisticsArgs,
};

use crate::exact::ExactSum;
use crate::moments::{Moments, Question};
use crate::{exact_aggregate, float_extremes};

/// What is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ours {
    /// An exact state, and what is asked of it.
    Exact(Question),
    /// The smallest or the largest value.
    Extreme {
        /// Whether it is the largest.
        largest: bool,
    },
}

/// An aggregate that stands in for a stock one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct StandIn {
    stock: Arc<AggregateUDF>,
    ours: Ours,
}

/// All of them, to be registered under the names of the stock ones.
pub fn stand_ins() -> [AggregateUDF; 8] {
    let spread = |sample, root| Ours::Exact(Question::Spread { sample, root });
    [
        (sum_udaf(), Ours::Exact(Question::Plain)),
        (avg_udaf(), Ours::Exact(Question::Mean)),
        (var_samp_udaf(), spread(true, false)),
        (var_pop_udaf(), spread(false, false)),
        (stddev_udaf(), spread(true, true)),
        (stddev_pop_udaf(), spread(false, true)),
        (min_udaf(), Ours::Extreme { largest: false }),
        (max_udaf(), Ours::Extreme { largest: true }),
    ]
    .map(|(stock, ours)| AggregateUDF::new_from_impl(StandIn { stock, ours }))
}

impl StandIn {
    /// What is ours of a call with this argument.
    fn ours(&self, argument: Option<&FieldRef>, distinct: bool) -> Option<Ours> {
        let is_float = argument.is_some_and(|field| *field.data_type() == DataType::Float64);
        // The smallest of distinct values is the smallest.
        (is_float && !(distinct && matches!(self.ours, Ours::Exact(_)))).then_some(self.ours)
    }

    fn of(&self, arguments: &AccumulatorArgs) -> Option<Ours> {
        self.ours(arguments.expr_fields.first(), arguments.is_distinct)
    }
}

fn better(largest: bool) -> Ordering {
    if largest { Ordering::Greater } else { Ordering::Less }
}

impl AggregateUDFImpl for StandIn {
    fn name(&self) -> &str {
        self.stock.name()
    }

    fn aliases(&self) -> &[String] {
        self.stock.aliases()
    }

    fn signature(&self) -> &Signature {
        self.stock.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.stock.return_type(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.stock.coerce_types(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match self.of(&arguments) {
            None => return self.stock.accumulator(arguments),
            Some(Ours::Exact(question @ Question::Spread { .. })) => {
                Box::new(exact_aggregate::One { state: Moments::default(), question })
            }
            Some(Ours::Exact(question)) => Box::new(exact_aggregate::One { state: ExactSum::default(), question }),
            Some(Ours::Extreme { largest }) => Box::new(float_extremes::One { found: None, better: better(largest) }),
        })
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match self.of(&arguments) {
            Some(Ours::Exact(_)) => self.accumulator(arguments),
            _ => self.stock.create_sliding_accumulator(arguments),
        }
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match self.ours(arguments.input_fields.first(), arguments.is_distinct) {
            Some(Ours::Exact(_)) => {
                Ok(vec![Arc::new(Field::new(format!("{}[exact]", arguments.name), DataType::Binary, true))])
            }
            _ => self.stock.state_fields(arguments),
        }
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        self.of(&arguments).is_some() || self.stock.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match self.of(&arguments) {
            None => return self.stock.create_groups_accumulator(arguments),
            Some(Ours::Exact(question @ Question::Spread { .. })) => {
                Box::new(exact_aggregate::Groups::<Moments> { states: vec![], question })
            }
            Some(Ours::Exact(question)) => Box::new(exact_aggregate::Groups::<ExactSum> { states: vec![], question }),
            Some(Ours::Extreme { largest }) => {
                Box::new(float_extremes::Groups { found: vec![], better: better(largest) })
            }
        })
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        match self.ours {
            Ours::Exact(_) => AggregateOrderSensitivity::Insensitive,
            Ours::Extreme { .. } => self.stock.order_sensitivity(),
        }
    }

    fn is_descending(&self) -> Option<bool> {
        self.stock.is_descending()
    }

    fn value_from_stats(&self, arguments: &StatisticsArgs) -> Option<ScalarValue> {
        match self.ours {
            // Statistics leave NaN out.
            Ours::Extreme { .. } if *arguments.return_type != DataType::Float64 => {
                self.stock.value_from_stats(arguments)
            }
            _ => None,
        }
    }
}
