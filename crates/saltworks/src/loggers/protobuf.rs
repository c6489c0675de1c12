//! Messages of Protocol Buffers, as far as the loggers need them
//! (protobuf.dev/programming-guides/encoding).

/// Writes a message, field by field.
#[derive(Default)]
pub(super) struct MessageWriter(Vec<u8>);

impl MessageWriter {
    /// The bytes of the message.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }

    /// An integer or a boolean.
    pub(super) fn integer(mut self, field: u32, value: u64) -> Self {
        self.key(field, 0);
        self.varint(value);
        self
    }

    /// A `double`.
    pub(super) fn double(mut self, field: u32, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A `float`.
    pub(super) fn float(mut self, field: u32, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// `bytes` or `string`.
    pub(super) fn text(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    /// A message inside this one.
    pub(super) fn message(self, field: u32, value: Self) -> Self {
        self.text(field, value.0)
    }

    /// Several `double`s in one field.
    pub(super) fn doubles(self, field: u32, values: impl Iterator<Item = f64>) -> Self {
        self.text(field, values.flat_map(f64::to_le_bytes).collect::<Vec<_>>())
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7F {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// An integer.
    Integer(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
    /// A number of eight or four bytes.
    Fixed,
}

/// The fields of a message with their numbers. `None` for bytes that are not a message.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Field<'_>)>> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let mut take = |length: u64| {
            let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            bytes = rest;
            Some(taken)
        };
        let field = match key & 7 {
            0 => Field::Integer(varint(&mut bytes)?),
            1 => take(8).map(|_| Field::Fixed)?,
            2 => {
                let length = varint(&mut bytes)?;
                let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
                bytes = rest;
                Field::Bytes(taken)
            }
            5 => take(4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        list.push((u32::try_from(key >> 3).ok()?, field));
    }
    Some(list)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for group in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << (7 * group);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_encodings_own_examples() {
        // Test1 { a: 150 }, Test2 { b: "testing" }, Test3 { c { a: 150 } }.
        assert_eq!(MessageWriter::default().integer(1, 150).bytes(), [0x08, 0x96, 0x01]);
        let text = MessageWriter::default().text(2, "testing").bytes();
        assert_eq!(text, [&[0x12, 0x07][..], b"testing"].concat());
        let within =
            MessageWriter::default().message(3, MessageWriter::default().integer(1, 150)).bytes();
        assert_eq!(within, [0x1A, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(MessageWriter::default().float(1, 1.0).bytes(), [0x0D, 0, 0, 0x80, 0x3F]);
        let doubles = MessageWriter::default().doubles(1, [1.0].into_iter()).bytes();
        assert_eq!(doubles, [0x0A, 8, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F]);
        assert_eq!(MessageWriter::default().double(1, 1.0).bytes()[0], 0x09);
    }

    #[test]
    fn fields_are_read_as_they_were_written_and_nothing_else_is() {
        let inner = MessageWriter::default().text(1, "loss").float(2, 0.5);
        let message = MessageWriter::default().double(1, 2.0).integer(2, 1 << 40).message(5, inner);
        let bytes = message.bytes();
        let found = fields(&bytes).unwrap();
        let [(1, Field::Fixed), (2, Field::Integer(step)), (5, Field::Bytes(summary))] = found[..]
        else {
            panic!("{found:?}")
        };
        assert_eq!(step, 1 << 40);
        assert_eq!(fields(summary).unwrap()[0], (1, Field::Bytes(b"loss")));
        for cut in 1..bytes.len() {
            let read = fields(&bytes[..cut]);
            assert!(read.is_none_or(|read| read.len() < 3), "{cut}");
        }
        assert_eq!(fields(&[0xFF; 20]), None);
    }
}
