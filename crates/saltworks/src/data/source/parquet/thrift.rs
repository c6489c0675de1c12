//! Thrift's compact protocol, as far as parquet's footer and page headers need it
//! (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md). The parquet crate reads both,
//! too. This walk comes first: it sees what they claim before memory is taken for it.

/// The deepest nesting of values. Parquet's own is 7.
const MOST_DEPTH: usize = 32;

/// Why bytes are no Thrift structure.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ThriftError {
    /// They end too early.
    Short,
    /// They cannot be one, whatever follows.
    Damaged,
}

/// What a walk meets.
pub(super) enum ThriftEvent {
    /// A structure begins.
    Structure,
    /// A whole number.
    Integer(i64),
}

/// Walks the structure that `bytes` begin with, and returns its length. `visit` gets the numbers of
/// the fields from the top to each value. An element of a list has the numbers of the list.
pub(super) fn walk(
    bytes: &[u8],
    visit: &mut dyn FnMut(&[i16], ThriftEvent),
) -> Result<usize, ThriftError> {
    let mut walk = Walk { rest: bytes, fields: Vec::new(), visit };
    walk.structure(0)?;
    Ok(bytes.len() - walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
    fields: Vec<i16>,
    visit: &'a mut dyn FnMut(&[i16], ThriftEvent),
}

impl Walk<'_> {
    fn structure(&mut self, depth: usize) -> Result<(), ThriftError> {
        if depth > MOST_DEPTH {
            return Err(ThriftError::Damaged);
        }
        (self.visit)(&self.fields, ThriftEvent::Structure);
        let mut last = 0_i16;
        loop {
            let head = self.byte()?;
            if head & 15 == 0 {
                return Ok(());
            }
            let id = match i16::from(head >> 4) {
                0 => i16::try_from(self.zigzag()?).ok(),
                more => last.checked_add(more),
            };
            // Each field once: of two, the crate might take the other one.
            let id = id.filter(|&id| id > last).ok_or(ThriftError::Damaged)?;
            last = id;
            self.fields.push(id);
            // A truth value is in the type itself.
            if head & 15 > 2 {
                self.value(head & 15, depth + 1)?;
            }
            self.fields.pop();
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<(), ThriftError> {
        match kind {
            1..=3 => self.skip(1),
            4..=6 => {
                let value = self.zigzag()?;
                (self.visit)(&self.fields, ThriftEvent::Integer(value));
                Ok(())
            }
            7 => self.skip(8),
            8 => {
                let len = self.varint()?;
                self.skip(len)
            }
            9 | 10 => self.list(depth),
            11 => self.map(depth),
            12 => self.structure(depth),
            13 => self.skip(16),
            _ => Err(ThriftError::Damaged),
        }
    }

    fn list(&mut self, depth: usize) -> Result<(), ThriftError> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        self.several(count, &[head & 15], depth)
    }

    fn map(&mut self, depth: usize) -> Result<(), ThriftError> {
        match self.varint()? {
            0 => Ok(()),
            count => {
                let kinds = self.byte()?;
                self.several(count, &[kinds >> 4, kinds & 15], depth)
            }
        }
    }

    /// Values of these kinds, `count` times.
    fn several(&mut self, count: u64, kinds: &[u8], depth: usize) -> Result<(), ThriftError> {
        if depth > MOST_DEPTH {
            return Err(ThriftError::Damaged);
        }
        // Each value takes a byte at least.
        if count > self.rest.len() as u64 {
            return Err(ThriftError::Short);
        }
        (0..count).try_for_each(|_| kinds.iter().try_for_each(|&kind| self.value(kind, depth + 1)))
    }

    fn byte(&mut self) -> Result<u8, ThriftError> {
        let (&first, rest) = self.rest.split_first().ok_or(ThriftError::Short)?;
        self.rest = rest;
        Ok(first)
    }

    fn skip(&mut self, count: u64) -> Result<(), ThriftError> {
        let count = usize::try_from(count).map_err(|_| ThriftError::Damaged)?;
        self.rest = self.rest.get(count..).ok_or(ThriftError::Short)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, ThriftError> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        match self.byte()? {
            last @ 0..=1 => Ok(value | u64::from(last) << 63),
            _ => Err(ThriftError::Damaged),
        }
    }

    fn zigzag(&mut self) -> Result<i64, ThriftError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Integers with their fields.
    type Integers = Vec<(Vec<i16>, i64)>;

    /// The integers of a structure, and its length.
    fn integers(bytes: &[u8]) -> Result<(Integers, usize), ThriftError> {
        let mut found = Vec::new();
        let len = walk(bytes, &mut |fields, event| {
            if let ThriftEvent::Integer(value) = event {
                found.push((fields.to_vec(), value));
            }
        })?;
        Ok((found, len))
    }

    #[test]
    fn integers_are_found_by_their_fields_within_lists_and_structures() {
        // 1: i32 -3, 2: a list of two structures {1: i64 300}, 4: a text, 5: a truth value.
        let bytes = [
            0x15, 0x05, 0x19, 0x2C, 0x16, 0xD8, 0x04, 0x00, 0x16, 0x02, 0x00, 0x28, 0x02, b'a',
            b'b', 0x11, 0x00, 0xFF,
        ];
        let want = vec![(vec![1], -3), (vec![2, 1], 300), (vec![2, 1], 1)];
        assert_eq!(integers(&bytes), Ok((want, bytes.len() - 1)));
        for cut in 0..bytes.len() - 1 {
            assert_eq!(integers(&bytes[..cut]), Err(ThriftError::Short), "{cut}");
        }
    }

    #[test]
    fn absurd_lengths_depths_and_repeated_fields_are_refused() {
        let long_list = [0x19, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
        assert_eq!(integers(&long_list), Err(ThriftError::Short));
        assert_eq!(integers(&[0x1C; 1000]), Err(ThriftError::Damaged));
        assert_eq!(integers(&[0x15, 0x02, 0x05, 0x02, 0x04, 0x00]), Err(ThriftError::Damaged));
        assert_eq!(integers(&[0x16; 12]).err(), Some(ThriftError::Short));
        let long_number = [[0x16].as_slice(), &[0xFF; 11]].concat();
        assert_eq!(integers(&long_number), Err(ThriftError::Damaged));
    }
}
