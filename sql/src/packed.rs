//! States in few bytes: panes of long windows wait in this form until they are needed again.

/// Appends a number: one byte for its length and its zeros at the end, then the bytes in between, the sign in the highest.
pub fn put(out: &mut Vec<u8>, value: i128) {
    let zeros = if value == 0 { 0 } else { (value.trailing_zeros() / 8).min(7) as usize };
    let value = value >> (8 * zeros);
    // Bytes from which the rest follows by the sign.
    let bits = 129 - if value < 0 { value.leading_ones() } else { value.leading_zeros() };
    let length = if value == 0 { 0 } else { bits.div_ceil(8) as usize };
    out.push((zeros << 5 | length) as u8);
    out.extend_from_slice(&value.to_le_bytes()[..length]);
}

/// No value: a head that [`put`] does not write.
const NOTHING: u8 = 0xFF;

/// Appends a value that begins with what [`put`] writes, or that there is none.
pub fn put_option<V>(out: &mut Vec<u8>, value: Option<&V>, put: impl Fn(&V, &mut Vec<u8>)) {
    match value {
        Some(value) => put(value, out),
        None => out.push(NOTHING),
    }
}

/// Takes what [`put_option`] appended.
pub fn take_option<V>(bytes: &mut &[u8], take: impl Fn(&mut &[u8]) -> Option<V>) -> Option<Option<V>> {
    match bytes.split_first()? {
        (&NOTHING, rest) => {
            *bytes = rest;
            Some(None)
        }
        _ => take(bytes).map(Some),
    }
}

/// Takes what [`put`] appended.
pub fn take(bytes: &mut &[u8]) -> Option<i128> {
    let (head, rest) = bytes.split_first()?;
    let (zeros, length) = ((head >> 5) as usize, (head & 31) as usize);
    let (digits, rest) = rest.split_at_checked(length)?;
    let sign = if digits.last().is_some_and(|byte| byte >> 7 == 1) { 0xFF } else { 0 };
    let mut whole = [sign; 16];
    whole.get_mut(..length)?.copy_from_slice(digits);
    *bytes = rest;
    Some(i128::from_le_bytes(whole) << (8 * zeros))
}

/// Appends a count, seven bits a byte (LEB128).
pub fn put_count(out: &mut Vec<u8>, mut count: u64) {
    while count >= 128 {
        out.push(count as u8 | 128);
        count >>= 7;
    }
    out.push(count as u8);
}

/// Takes what [`put_count`] appended.
pub fn take_count(bytes: &mut &[u8]) -> Option<u64> {
    let (mut count, mut shift) = (0u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        count |= u64::from(byte & 127).checked_shl(shift)?;
        if byte < &128 {
            return Some(count);
        }
        shift += 7;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(values in prop::collection::vec((any::<i128>(), 0u32..128), 1..20), counts in prop::collection::vec(any::<u64>(), 1..20)) {
            let values: Vec<i128> = values.into_iter().map(|(value, shift)| value >> shift).chain([0, 1, -1, i128::MIN, i128::MAX, 1 << 64]).collect();
            let mut bytes = vec![];
            values.iter().for_each(|value| put(&mut bytes, *value));
            counts.iter().for_each(|count| put_count(&mut bytes, *count));
            let mut left = bytes.as_slice();
            for value in &values {
                prop_assert_eq!(take(&mut left), Some(*value));
            }
            for count in &counts {
                prop_assert_eq!(take_count(&mut left), Some(*count));
            }
            prop_assert!(left.is_empty());
        }
    }
}
