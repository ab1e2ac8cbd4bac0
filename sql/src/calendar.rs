//! `date_trunc` of a timestamp in UTC is `date_bin`, which costs a quarter: the former asks a calendar about each row.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::datetime::date_bin;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{Expr, ExprSchemable, lit};

/// The rewriting.
#[derive(Debug)]
pub struct TruncAsBin;

const SECOND: i64 = 1_000_000_000;
/// 1970-01-05, a Monday: weeks begin on Mondays.
const MONDAY: i64 = 4 * 86_400 * 1_000_000;

impl FunctionRewrite for TruncAsBin {
    fn name(&self) -> &str {
        "date_trunc_as_date_bin"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::ScalarFunction(call) = &expr else { return Ok(Transformed::no(expr)) };
        if call.func.name() != "date_trunc" || call.args.len() != 2 {
            return Ok(Transformed::no(expr));
        }
        let Some((step, origin)) = step_of(&call.args[0]) else { return Ok(Transformed::no(expr)) };
        let DataType::Timestamp(unit, Some(zone)) = call.args[1].get_type(schema)? else {
            return Ok(Transformed::no(expr));
        };
        if !matches!(zone.as_ref(), "UTC" | "+00:00") {
            return Ok(Transformed::no(expr));
        }
        let origin = ScalarValue::TimestampMicrosecond(Some(origin), Some(zone.clone()));
        let origin = lit(origin.cast_to(&DataType::Timestamp(unit, Some(zone)))?);
        let args = vec![lit(ScalarValue::IntervalMonthDayNano(Some(step))), call.args[1].clone(), origin];
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&date_bin()), args))))
    }
}

/// What has a fixed length, and where it begins. Months have none.
fn step_of(part: &Expr) -> Option<(IntervalMonthDayNano, i64)> {
    let Expr::Literal(ScalarValue::Utf8(Some(part)) | ScalarValue::Utf8View(Some(part)), _) = part else { return None };
    let nanoseconds = match part.to_lowercase().as_str() {
        "second" => SECOND,
        "minute" => 60 * SECOND,
        "hour" => 3_600 * SECOND,
        "day" => 86_400 * SECOND,
        "week" => return Some((IntervalMonthDayNano::new(0, 0, 7 * 86_400 * SECOND), MONDAY)),
        _ => return None,
    };
    Some((IntervalMonthDayNano::new(0, 0, nanoseconds), 0))
}
