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
        Type::NUMERIC => numeric_text(bytes)?,
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

/// What `numeric_recv` reads: how many digits of base 10,000, the weight of the first, the sign, how many decimals are shown, the digits.
fn numeric_text(bytes: &[u8]) -> Option<String> {
    let words: Vec<u16> =
        bytes.chunks(2).map(|two| Some(u16::from_be_bytes(two.try_into().ok()?))).collect::<Option<_>>()?;
    let [count, weight, sign, scale, digits @ ..] = words.as_slice() else { return None };
    if digits.len() != usize::from(*count) || digits.iter().any(|digit| *digit > 9_999) || !matches!(sign, 0 | 0x4000) {
        return None;
    }
    let weight = i32::from(*weight as i16);
    let at =
        |place: i32| usize::try_from(weight - place).ok().and_then(|index| digits.get(index)).copied().unwrap_or(0);
    let whole: String = (0..=weight.max(0)).rev().map(|place| format!("{:04}", at(place))).collect();
    let places = i32::from(scale.div_ceil(4));
    let fraction: String = (1..=places).map(|place| format!("{:04}", at(-place))).collect();
    let whole = whole.trim_start_matches('0');
    let minus = if *sign == 0 { "" } else { "-" };
    let fraction = fraction.get(..usize::from(*scale))?;
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{minus}{}{point}{fraction}", if whole.is_empty() { "0" } else { whole }))
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
        let numeric = |words: &[u16]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            read(&bytes, Type::NUMERIC)
        };
        assert_eq!(numeric(&[3, 1, 0, 2, 1, 2345, 6700]).unwrap(), "12345.67");
        assert_eq!(numeric(&[1, 0xffff, 0x4000, 4, 1]).unwrap(), "-0.0001");
        assert_eq!(numeric(&[1, 2, 0, 0, 1]).unwrap(), "100000000");
        assert_eq!(numeric(&[0, 0, 0, 2]).unwrap(), "0.00");
        assert_eq!(numeric(&[0, 0, 0xc000, 0]), None, "NaN");
        assert_eq!(numeric(&[2, 0, 0, 0, 1]), None);
        assert_eq!(read(&[0], Type::INT8), None);
        assert_eq!(read(&i64::MAX.to_be_bytes(), Type::TIMESTAMP), None);
    }
}
