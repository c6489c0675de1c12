//! A machine for Python's pickles that builds values and executes no code. Classes and functions
//! stay names. [`rebuild`] replaces those that torch needs. Opcodes: CPython's Lib/pickletools.py,
//! protocols 2 to 5 without out-of-band buffers and the copyreg registry.

use super::rebuild::{self, CallResult};
use super::value::{Global, Id, Value, Values};
use std::collections::HashMap;

/// The most bytes of a pickle, enough for a million tensors.
pub(super) const MOST_BYTES: u64 = 64 << 20;

/// The most opcodes. Each makes at most one value of 40 bytes.
const MOST_STEPS: usize = 1 << 22;

/// The most tensors. Each takes some hundred bytes. The largest models have some thousand.
const MOST_TENSORS: usize = 1 << 18;

/// The most open brackets. Python itself stops near a thousand.
const MOST_MARKS: usize = 4096;

/// Reads a pickle. Returns all its values, and the id of the one that it describes.
pub(super) fn read(pickle: &[u8]) -> Result<(Values<'_>, Id), String> {
    let mut machine = Machine {
        pickle,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        tensors: 0,
    };
    for _ in 0..MOST_STEPS {
        match machine.byte()? {
            b'.' => {
                let top = machine.pop()?;
                return Ok((machine.values, top));
            }
            opcode => machine.step(opcode)?,
        }
    }
    Err(machine.fail(&format!("has more than {MOST_STEPS} instructions")))
}

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    values: Values<'a>,
    stack: Vec<Id>,
    /// Heights of the stack at its open brackets.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    tensors: usize,
}

impl<'a> Machine<'a> {
    fn fail(&self, problem: &str) -> String {
        format!("its pickle, at byte {}, {problem}", self.at)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], String> {
        let rest = &self.pickle[self.at..];
        if len > rest.len() as u64 {
            return Err(self.fail("ends early"));
        }
        self.at += len as usize;
        Ok(&rest[..len as usize])
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of up to eight bytes.
    fn number(&mut self, len: u64) -> Result<u64, String> {
        let bytes = self.take(len)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.pickle[self.at..];
        let len = memchr::memchr(b'\n', rest).ok_or_else(|| self.fail("ends early"))?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| self.fail("has a name that is not UTF-8"))
    }

    fn push(&mut self, value: Value<'a>) {
        // Fewer than 2³², by MOST_STEPS.
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
    }

    /// Pops the top value, which must be above the last open bracket.
    fn pop(&mut self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => Err(self.fail("takes a value that does not exist")),
        }
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| self.fail("takes a value that does not exist"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark =
            self.marks.pop().ok_or_else(|| self.fail("closes a bracket that is not open"))?;
        // Values below a bracket are never popped while it is open.
        Ok(self.stack.split_off(mark))
    }

    fn pops(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let mut ids = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        ids.reverse();
        Ok(ids)
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        if let Some(value) = self.literal(opcode)? {
            self.push(value);
            return Ok(());
        }
        match opcode {
            // PROTO, FRAME
            0x80 => self.protocol()?,
            0x95 => drop(self.take(8)?),
            // MARK, POP, POP_MARK, DUP
            b'(' if self.marks.len() == MOST_MARKS => {
                return Err(self.fail(&format!("nests deeper than {MOST_MARKS}")));
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            // BINGET, LONG_BINGET, BINPUT, LONG_BINPUT, MEMOIZE
            b'h' | b'j' => self.recall(opcode)?,
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => drop(self.memo.insert(self.memo.len() as u32, self.top()?)),
            // TUPLE, LIST, DICT, FROZENSET
            b't' | b'l' | b'd' | 0x91 => self.close(opcode)?,
            // TUPLE1, TUPLE2, TUPLE3
            0x85..=0x87 => {
                let items = self.pops(usize::from(opcode - 0x84))?;
                self.push(Value::Tuple(items));
            }
            // APPEND, APPENDS, SETITEM, SETITEMS, ADDITEMS
            b'a' | b'e' | b's' | b'u' | 0x90 => self.add(opcode)?,
            _ => self.construct(opcode)?,
        }
        Ok(())
    }

    fn protocol(&mut self) -> Result<(), String> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(self.fail(&format!("has protocol {other}, expected 2 to 5"))),
        }
    }

    /// The value that an opcode states by itself, if it states one.
    fn literal(&mut self, opcode: u8) -> Result<Option<Value<'a>>, String> {
        Ok(Some(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            // BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
            b'J' => Value::Integer(i64::from(self.number(4)? as u32 as i32)),
            b'K' => Value::Integer(self.number(1)? as i64),
            b'M' => Value::Integer(self.number(2)? as i64),
            0x8A => self.long(1)?,
            0x8B => self.long(4)?,
            b'G' => Value::Float(f64::from_bits(self.number(8)?.swap_bytes())),
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, SHORT_BINSTRING, BINSTRING
            b'X' => self.text(4)?,
            0x8C => self.text(1)?,
            0x8D => self.text(8)?,
            b'U' => self.text(1)?,
            b'T' => self.text(4)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.bytes(1)?,
            b'B' => self.bytes(4)?,
            0x8E | 0x96 => self.bytes(8)?,
            // EMPTY_LIST, EMPTY_TUPLE, EMPTY_DICT, EMPTY_SET
            b']' => Value::List(Vec::new()),
            b')' => Value::Tuple(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            0x8F => Value::Other,
            _ => return Ok(None),
        }))
    }

    /// A two's complement number. The next `len` bytes state how many bytes it has.
    fn long(&mut self, len: u64) -> Result<Value<'a>, String> {
        let len = self.number(len)?;
        if len > 8 {
            self.take(len)?;
            return Ok(Value::Other);
        }
        let unused = 64 - 8 * len as u32;
        let number = self.number(len)?;
        Ok(Value::Integer(if len == 0 { 0 } else { (number << unused) as i64 >> unused }))
    }

    fn text(&mut self, len: u64) -> Result<Value<'a>, String> {
        let len = self.number(len)?;
        // Python's surrogates are not UTF-8. No tensor has such a name.
        Ok(std::str::from_utf8(self.take(len)?).map_or(Value::Other, Value::Text))
    }

    fn bytes(&mut self, len: u64) -> Result<Value<'a>, String> {
        let len = self.number(len)?;
        self.take(len)?;
        Ok(Value::Other)
    }

    fn recall(&mut self, opcode: u8) -> Result<(), String> {
        let key = self.number(if opcode == b'h' { 1 } else { 4 })? as u32;
        let id = self.memo.get(&key).copied();
        let id =
            id.ok_or_else(|| self.fail(&format!("recalls value {key}, which was never stored")))?;
        self.stack.push(id);
        Ok(())
    }

    fn remember(&mut self, len: u64) -> Result<(), String> {
        let (key, id) = (self.number(len)? as u32, self.top()?);
        self.memo.insert(key, id);
        Ok(())
    }

    /// Builds a value from the values above the last bracket.
    fn close(&mut self, opcode: u8) -> Result<(), String> {
        let items = self.pop_mark()?;
        let value = match opcode {
            b't' => Value::Tuple(items),
            b'l' => Value::List(items),
            b'd' => {
                Value::Dict(pairs(&items).ok_or_else(|| self.fail("has a key without a value"))?)
            }
            _ => Value::Other,
        };
        self.push(value);
        Ok(())
    }

    /// Adds items to the value below them.
    fn add(&mut self, opcode: u8) -> Result<(), String> {
        let items = match opcode {
            b'a' => self.pops(1)?,
            b's' => self.pops(2)?,
            _ => self.pop_mark()?,
        };
        let keyed = matches!(opcode, b's' | b'u');
        let pairs = if keyed { pairs(&items) } else { Some(Vec::new()) };
        let pairs = pairs.ok_or_else(|| self.fail("has a key without a value"))?;
        let target = self.top()? as usize;
        match (&mut self.values[target], keyed) {
            (Value::Dict(known) | Value::Object(_, known), true) => known.extend(pairs),
            (Value::List(known), false) => known.extend(items),
            (Value::Object(..) | Value::Other, false) => {}
            _ => return Err(self.fail("adds items to a value that cannot hold them")),
        }
        Ok(())
    }

    /// Opcodes that name, call or fill something. Calls are only recorded.
    fn construct(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(Global { module, name }));
            }
            0x93 => {
                let ids = self.pops(2)?;
                let texts = [ids[0], ids[1]].map(|id| &self.values[id as usize]);
                let [Value::Text(module), Value::Text(name)] = texts else {
                    return Err(self.fail("has a name that is not text"));
                };
                let global = Global { module, name };
                self.push(Value::Global(global));
            }
            // REDUCE, NEWOBJ, NEWOBJ_EX. The named arguments of NEWOBJ_EX are not used.
            b'R' | 0x81 => self.called()?,
            0x92 => {
                self.pop()?;
                self.called()?;
            }
            // BUILD: the state is not used.
            b'b' => drop(self.pop()?),
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                let storage = rebuild::storage(&self.values, id);
                self.push(storage.unwrap_or(Value::Other));
            }
            _ => {
                let problem =
                    format!("has the instruction {opcode:#04x}, which torch never writes");
                return Err(self.fail(&problem));
            }
        }
        Ok(())
    }

    fn called(&mut self) -> Result<(), String> {
        let ids = self.pops(2)?;
        match rebuild::call(&self.values, ids[0], ids[1]) {
            CallResult::Known(id) => self.stack.push(id),
            CallResult::New(value) => {
                self.tensors += usize::from(matches!(value, Value::Tensor(_)));
                if self.tensors > MOST_TENSORS {
                    return Err(self.fail(&format!("has more than {MOST_TENSORS} tensors")));
                }
                self.push(value);
            }
        }
        Ok(())
    }
}

/// Pairs of keys and values. None if a key has no value.
fn pairs(items: &[Id]) -> Option<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks();
    rest.is_empty().then(|| pairs.iter().map(|&[key, value]| (key, value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_is_a_twos_complement_number_of_any_length() {
        // As Python's pickle.dumps(number, 2) writes it: LONG1, or LONG4.
        let cases: [(&[u8], i64); 7] = [
            (b"\x80\x02\x8a\x00.", 0),
            (b"\x80\x02\x8a\x01\xff.", -1),
            (b"\x80\x02\x8a\x02\xff\x00.", 255),
            (b"\x80\x02\x8a\x05\xff\xff\xff\x7f\xff.", -2_147_483_649),
            (b"\x80\x02\x8a\x05\x00\x00\x00\x80\x00.", 2_147_483_648),
            (b"\x80\x02\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.", i64::MIN),
            (b"\x80\x02\x8b\x02\x00\x00\x00\x00\x80.", -32_768),
        ];
        for (pickle, wanted) in cases {
            let (values, id) = read(pickle).unwrap();
            let Value::Integer(found) = values[id as usize] else { panic!("{pickle:?}") };
            assert_eq!(found, wanted, "{pickle:?}");
        }
    }
}
