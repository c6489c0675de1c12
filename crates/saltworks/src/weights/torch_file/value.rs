//! The values of a pickle. They refer to each other by number, because they may be shared.

use crate::weights::dtype::Kind;

/// A value's number in [`Values`].
pub(super) type Id = u32;

/// All values of a pickle.
pub(super) type Values<'a> = Vec<Value<'a>>;

/// A value. Texts are slices of the pickle.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// `None`
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number of at most 64 bits.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Text(&'a str),
    /// Its items.
    Tuple(Vec<Id>),
    /// Its items.
    List(Vec<Id>),
    /// Keys and values, in the order they were set.
    Dict(Vec<(Id, Id)>),
    /// A class or function. Only its name is kept.
    Global(Global<'a>),
    /// A record of the archive.
    Storage(Storage<'a>),
    /// A tensor.
    Tensor(Box<View<'a>>),
    /// The result of a class or function that is not executed. It holds the items that were set in
    /// it as in a dictionary.
    Object(Id, Vec<(Id, Id)>),
    /// A value that no tensor needs: bytes, sets, large numbers.
    Other,
}

/// The name of a class or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Global<'a> {
    /// Its module.
    pub(super) module: &'a str,
    /// Its name there.
    pub(super) name: &'a str,
}

/// Values in a record of the archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    /// Their type. Without one they are bytes.
    pub(super) kind: Option<&'static Kind>,
    /// The record's name after `data/`.
    pub(super) key: &'a str,
    /// How many values.
    pub(super) values: u64,
}

/// A tensor: its storage, and the place of its values there. What the file states is not checked
/// yet.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct View<'a> {
    /// Type of the values.
    pub(super) kind: &'static Kind,
    /// Name of the storage's record.
    pub(super) key: &'a str,
    /// Bytes of the storage.
    pub(super) bytes: u64,
    /// The index of the first value.
    pub(super) offset: u64,
    /// Sizes, outermost first.
    pub(super) shape: Vec<u64>,
    /// The number of values from one index of an axis to the next.
    pub(super) strides: Vec<u64>,
}

impl View<'_> {
    /// Checks that the tensor lies inside its storage and is not larger. Returns its number of
    /// values.
    pub(super) fn check(&self) -> Result<u64, String> {
        let (key, shape) = (self.key, &self.shape);
        let stored = self.bytes / self.kind.size as u64;
        let too_large = || {
            format!(
                "is {shape:?}, its storage {key} has {stored} values. Save it with .clone(), or \
                 write the file again"
            )
        };
        // Computed as if no axis were empty, so that no product of sizes overflows later.
        let product = |sides: &[u64]| sides.iter().try_fold(1_u64, |n, &d| n.checked_mul(d.max(1)));
        let most = product(shape).filter(|&most| most <= i64::MAX as u64).ok_or_else(too_large)?;
        if shape.contains(&0) {
            return Ok(0);
        }
        let mut last = Some(self.offset);
        for (&size, &stride) in shape.iter().zip(&self.strides) {
            last = (size - 1).checked_mul(stride).and_then(|step| last?.checked_add(step));
        }
        let inside = most <= stored && last.is_some_and(|last| last < stored);
        if inside { Ok(most) } else { Err(too_large()) }
    }
}
