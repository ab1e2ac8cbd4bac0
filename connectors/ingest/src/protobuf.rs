//! Reading protobuf's wire format in place: a message is bytes, its fields come one by one, and nothing is allocated for what a
//! sender merely claims. <https://protobuf.dev/programming-guides/encoding/>

use crate::{IngestError, NUMBERS};

/// A message, and where in the body it begins.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    base: usize,
}

/// A field's value by its wire type.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Integers, bools and enums.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// Texts, messages, and packed numbers.
    Bytes(Message<'a>),
}

impl<'a> Message<'a> {
    /// A whole body.
    pub fn new(bytes: &'a [u8]) -> Self {
        Message { bytes, base: 0 }
    }

    /// The fields in their order.
    pub fn fields(self) -> Fields<'a> {
        Fields { message: self, at: 0 }
    }

    /// As text.
    ///
    /// # Errors
    /// Not UTF-8.
    pub fn text(self) -> Result<&'a str, IngestError> {
        std::str::from_utf8(self.bytes).map_err(|_| wrong(self.base, "expected UTF-8"))
    }

    /// As bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }
}

fn wrong(at: usize, problem: &str) -> IngestError {
    IngestError::Malformed(format!("not the protobuf message that was expected: byte {at}: {problem}"))
}

fn too_many() -> IngestError {
    IngestError::TooLarge(format!("more than {NUMBERS} numbers in one list"))
}

/// The fields of a message.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: Message<'a>,
    at: usize,
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, IngestError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.message.bytes.get(self.at) else { break };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(wrong(self.message.base + self.at, "a number does not end"))
    }

    fn taken(&mut self, length: u64) -> Result<Message<'a>, IngestError> {
        let rest = &self.message.bytes[self.at..];
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let Some(length) = length else {
            return Err(wrong(self.message.base + self.at, "a field is longer than its message"));
        };
        let taken = Message { bytes: &rest[..length], base: self.message.base + self.at };
        self.at += length;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), IngestError> {
        let key = self.varint()?;
        let little = |part: Message<'a>| part.bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(little(self.taken(8)?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.taken(length)?)
            }
            5 => Value::Fixed32(little(self.taken(4)?) as u32),
            _ => return Err(wrong(self.message.base + self.at, "an unknown wire type")),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), IngestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.message.bytes.len();
        }
        Some(field)
    }
}

/// The signed number of a zigzag-encoded one.
pub fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

impl<'a> Value<'a> {
    /// A message, a text or packed numbers.
    ///
    /// # Errors
    /// A plain number.
    pub fn message(self) -> Result<Message<'a>, IngestError> {
        match self {
            Value::Bytes(message) => Ok(message),
            _ => Err(IngestError::Malformed(
                "not the protobuf message that was expected: a number where a text or a message was expected"
                    .to_string(),
            )),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// Something else, or not UTF-8.
    pub fn text(self) -> Result<&'a str, IngestError> {
        self.message()?.text()
    }

    /// A plain number of any width.
    ///
    /// # Errors
    /// A text or a message.
    pub fn number(self) -> Result<u64, IngestError> {
        match self {
            Value::Varint(value) | Value::Fixed64(value) => Ok(value),
            Value::Fixed32(value) => Ok(u64::from(value)),
            Value::Bytes(message) => Err(wrong(message.base, "expected a number")),
        }
    }

    /// A double.
    ///
    /// # Errors
    /// A text or a message.
    pub fn double(self) -> Result<f64, IngestError> {
        self.number().map(f64::from_bits)
    }

    /// A number of a list that is not packed.
    fn alone(self, into: &mut Vec<u64>) -> Result<(), IngestError> {
        if into.len() >= NUMBERS {
            return Err(too_many());
        }
        into.push(self.number()?);
        Ok(())
    }

    /// Numbers of eight bytes each, packed or alone.
    ///
    /// # Errors
    /// Not so many whole ones.
    pub fn fixed64s(self, into: &mut Vec<u64>) -> Result<(), IngestError> {
        let Value::Bytes(message) = self else { return self.alone(into) };
        if message.bytes.len() / 8 + into.len() > NUMBERS {
            return Err(too_many());
        }
        let chunks = message.bytes.chunks_exact(8);
        if !chunks.remainder().is_empty() {
            return Err(wrong(message.base, "expected numbers of eight bytes"));
        }
        into.extend(chunks.map(|chunk| chunk.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))));
        Ok(())
    }

    /// Varints, packed or alone.
    ///
    /// # Errors
    /// One that does not end.
    pub fn varints(self, into: &mut Vec<u64>) -> Result<(), IngestError> {
        let Value::Bytes(message) = self else { return self.alone(into) };
        let mut fields = message.fields();
        while fields.at < message.bytes.len() {
            if into.len() >= NUMBERS {
                return Err(too_many());
            }
            into.push(fields.varint()?);
        }
        Ok(())
    }
}

/// Messages for tests, written as they are read.
#[cfg(test)]
pub mod write {
    /// A varint.
    pub fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// A field of a number.
    pub fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    /// A field of eight bytes.
    pub fn fixed(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3 | 1), value.to_le_bytes().to_vec()].concat()
    }

    /// A field of a double.
    pub fn double(field: u64, value: f64) -> Vec<u8> {
        fixed(field, value.to_bits())
    }

    /// A field of a text or a message.
    pub fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
        let value = value.as_ref();
        [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
    }

    /// A number as zigzag has it.
    pub fn zig(value: i64) -> u64 {
        (value << 1 ^ value >> 63) as u64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_come_in_order_and_faults_say_where() {
        let body = [write::number(1, 300), write::bytes(2, "é"), write::double(3, -0.5), write::bytes(4, [1, 0xac, 2])]
            .concat();
        let fields: Vec<_> = Message::new(&body).fields().collect::<Result<_, _>>().unwrap();
        assert_eq!(fields.iter().map(|(field, _)| *field).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(fields[0].1.number().unwrap(), 300);
        assert_eq!(fields[1].1.text().unwrap(), "é");
        assert_eq!(fields[2].1.double().unwrap(), -0.5);
        let mut packed = vec![];
        fields[3].1.varints(&mut packed).unwrap();
        assert_eq!(packed, [1, 300]);
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(zigzag(write::zig(value)), value);
        }
        let said = |body: &[u8]| Message::new(body).fields().find_map(Result::err).unwrap().to_string();
        assert!(said(&[0x0a, 5, 1]).ends_with("byte 2: a field is longer than its message"), "{}", said(&[0x0a, 5, 1]));
        assert!(said(&[0x80]).ends_with("byte 1: a number does not end"));
        assert!(said(&[0x0b]).ends_with("byte 1: an unknown wire type"));
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut stack = vec![Message::new(&body)];
            while let Some(message) = stack.pop() {
                for (_, value) in message.fields().filter_map(Result::ok) {
                    let mut numbers = vec![];
                    drop(value.varints(&mut numbers));
                    drop(value.fixed64s(&mut numbers));
                    if let Ok(part) = value.message() {
                        prop_assert!(part.bytes().len() < message.bytes().len());
                        stack.push(part);
                    }
                }
            }
        }
    }
}
