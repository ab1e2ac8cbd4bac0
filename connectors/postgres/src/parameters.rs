//! Values that a client binds to `$1`, `$2`, ..., as the texts that answers are asked with.

use pgwire::api::Type;
use pgwire::api::portal::{Format, Portal};
use pgwire::error::{PgWireError, PgWireResult};

use crate::columns::EPOCH_MICROS;
use crate::handlers::error;

/// The values of a portal.
pub fn texts<S: Clone>(portal: &Portal<S>, types: &[Type]) -> PgWireResult<Vec<Option<String>>> {
    let one = |(index, wire): (usize, &Type)| {
        let bound = portal.parameters.get(index).ok_or(PgWireError::ParameterIndexOutOfBound(index))?;
        let Some(bytes) = bound else { return Ok(None) };
        let is_binary = match &portal.parameter_format {
            Format::Individual(all) => all.get(index) == Some(&1),
            other => other.is_binary(index),
        };
        let text = if is_binary { of_binary(bytes, wire) } else { of_text(bytes, wire) };
        let wrong = || error("22P03", format!("parameter ${} is no {}", index + 1, wire.name()));
        text.map(Some).ok_or_else(wrong)
    };
    types.iter().enumerate().map(one).collect()
}

fn of_text(bytes: &[u8], wire: &Type) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(
        match (wire, text) {
            (&Type::BOOL, "t" | "1" | "on" | "yes") => "true",
            (&Type::BOOL, "f" | "0" | "off" | "no") => "false",
            _ => text,
        }
        .to_string(),
    )
}

/// The binary forms of PostgreSQL's `*send` functions.
fn of_binary(bytes: &[u8], wire: &Type) -> Option<String> {
    let time = |micros: i64| {
        let time = chrono::DateTime::from_timestamp_micros(micros.checked_add(EPOCH_MICROS)?)?;
        Some(time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string())
    };
    Some(match *wire {
        Type::BOOL => (bytes.first()? != &0).to_string(),
        Type::INT2 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        Type::INT4 | Type::OID => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        Type::INT8 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        Type::FLOAT4 => f32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        Type::FLOAT8 => f64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        Type::TIMESTAMP => time(i64::from_be_bytes(bytes.try_into().ok()?))?,
        Type::TIMESTAMPTZ => format!("{}Z", time(i64::from_be_bytes(bytes.try_into().ok()?))?),
        // Days since 2000-01-01.
        Type::DATE => {
            time(i64::from(i32::from_be_bytes(bytes.try_into().ok()?)) * 86_400_000_000)?.split('T').next()?.to_string()
        }
        Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR | Type::UNKNOWN | Type::JSON => {
            std::str::from_utf8(bytes).ok()?.to_string()
        }
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn binary_values_are_read() {
        let read = |bytes: &[u8], wire: Type| of_binary(bytes, &wire);
        assert_eq!(read(&(-2_i16).to_be_bytes(), Type::INT2).unwrap(), "-2");
        assert_eq!(read(&1.5_f64.to_be_bytes(), Type::FLOAT8).unwrap(), "1.5");
        assert_eq!(read(&0_i64.to_be_bytes(), Type::TIMESTAMPTZ).unwrap(), "2000-01-01T00:00:00.000000Z");
        assert_eq!(read(&31_i32.to_be_bytes(), Type::DATE).unwrap(), "2000-02-01");
        assert_eq!(read(&[0], Type::INT8), None);
        assert_eq!(read(&i64::MAX.to_be_bytes(), Type::TIMESTAMP), None);
    }
}
