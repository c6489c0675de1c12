//! Messages of Protocol Buffers, as far as loggers need them
//! (protobuf.dev/programming-guides/encoding).

/// A message that is being written, field by field.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Its bytes.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }

    /// An integer, or a boolean. Negative ones would take ten bytes; there are none here.
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

    /// `bytes`, or a text.
    pub(super) fn text(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    /// A message within.
    pub(super) fn message(self, field: u32, value: Self) -> Self {
        self.text(field, value.0)
    }

    /// Several `double` in one field.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_encodings_own_examples() {
        // Test1 { a: 150 }, Test2 { b: "testing" }, Test3 { c { a: 150 } }.
        assert_eq!(Message::default().integer(1, 150).bytes(), [0x08, 0x96, 0x01]);
        let text = Message::default().text(2, "testing").bytes();
        assert_eq!(text, [&[0x12, 0x07][..], b"testing"].concat());
        let within = Message::default().message(3, Message::default().integer(1, 150)).bytes();
        assert_eq!(within, [0x1A, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::default().float(1, 1.0).bytes(), [0x0D, 0, 0, 0x80, 0x3F]);
        let doubles = Message::default().doubles(1, [1.0].into_iter()).bytes();
        assert_eq!(doubles, [0x0A, 8, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F]);
        assert_eq!(Message::default().double(1, 1.0).bytes()[0], 0x09);
    }
}
