//! `approx_percentile(x, quantile)` as a DataFusion aggregate; [`crate::sketch`] says how near it is.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;

use crate::exact_aggregate::{Groups, One};
use crate::moments::Question;
use crate::sketch::Sketch;

/// The name in SQL.
pub const APPROX_PERCENTILE: &str = "approx_percentile";

/// What its second argument may be.
pub const SHARE: &str = "approx_percentile expects a constant between 0 and 1: approx_percentile(step_seconds, 0.99)";

/// `approx_percentile(x, 0.99)`: Float64, NULL without values.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    signature: Signature,
}

/// The aggregate, to be registered.
pub fn approx_percentile() -> AggregateUDF {
    let signature = Signature::exact(vec![DataType::Float64, DataType::Float64], Volatility::Immutable);
    AggregateUDF::new_from_impl(Percentile { signature })
}

/// What a constant asks, when it is a share.
pub fn quantile(value: &ScalarValue) -> Option<Question> {
    match value {
        ScalarValue::Float64(Some(share)) if (0.0..=1.0).contains(share) => Some(Question::Quantile(share.to_bits())),
        _ => None,
    }
}

fn question(arguments: &AccumulatorArgs) -> Result<Question> {
    let constant = arguments.exprs.get(1).and_then(|expression| expression.downcast_ref::<Literal>());
    match constant.and_then(|constant| quantile(constant.value())) {
        Some(question) => Ok(question),
        None => plan_err!("{SHARE}"),
    }
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        APPROX_PERCENTILE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One { state: Sketch::default(), question: question(&arguments)? }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[sketch]", arguments.name), DataType::Binary, true))])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::<Sketch> { states: vec![], question: question(&arguments)? }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}
