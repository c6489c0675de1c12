//! Interprets the few classes and functions that make tensors in torch's pickles (torch/_utils.py,
//! torch/_tensor.py). All others make an object that is never read.

use super::value::{Global, Id, Storage, Value, Values, View};
use crate::weights::dtype::{KINDS, Kind};

/// The most axes of a tensor. Weights have five or fewer.
const MOST_AXES: usize = 8;

/// The result of a call.
pub(super) enum CallResult<'a> {
    /// An existing value.
    Known(Id),
    /// A new value.
    New(Value<'a>),
}

/// The result of `function(*arguments)`, given by their numbers.
pub(super) fn call<'a>(values: &Values<'a>, function: Id, arguments: Id) -> CallResult<'a> {
    known(values, function, arguments)
        .unwrap_or_else(|| CallResult::New(Value::Object(function, Vec::new())))
}

fn known<'a>(values: &Values<'a>, function: Id, arguments: Id) -> Option<CallResult<'a>> {
    let function = global(values, function)?;
    let items = tuple(values, arguments)?;
    let made = match (function.module, function.name) {
        ("collections", "OrderedDict") if items.is_empty() => Value::Dict(Vec::new()),
        ("collections", "defaultdict") => Value::Dict(Vec::new()),
        ("torch", "Size") => return items.first().copied().map(CallResult::Known),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            return items.first().copied().map(CallResult::Known);
        }
        // (function, class, arguments, state): a subclass of Tensor.
        ("torch._tensor", "_rebuild_from_type_v2") => {
            let (&inner, &arguments) = (items.first()?, items.get(2)?);
            return rebuilt(values, global(values, inner)?, tuple(values, arguments)?);
        }
        _ => return rebuilt(values, function, items),
    };
    Some(CallResult::New(made))
}

/// A tensor from one of the functions that take a storage, offset, sizes and strides.
fn rebuilt<'a>(values: &Values<'a>, function: Global<'a>, items: &[Id]) -> Option<CallResult<'a>> {
    if function.module != "torch._utils" {
        return None;
    }
    // (storage, offset, shape, strides, requires_grad, hooks, metadata). Only tensors that are
    // negated or conjugated when read have metadata.
    let (kind, metadata) = match function.name {
        "_rebuild_tensor" | "_rebuild_tensor_v2" => (None, items.get(6)),
        // (.., requires_grad, hooks, dtype, metadata) over a storage of bytes.
        "_rebuild_tensor_v3" => (Some(kind(values, *items.get(6)?)?), items.get(7)),
        _ => return None,
    };
    if !metadata.is_none_or(|&id| is_empty(&values[id as usize])) {
        return None;
    }
    let [storage, offset, shape, strides, ..] = items else { return None };
    let Value::Storage(storage) = &values[*storage as usize] else { return None };
    let size = storage.kind.map_or(1, |kind| kind.size);
    let view = View {
        kind: kind.or(storage.kind)?,
        key: storage.key,
        bytes: storage.values.checked_mul(size as u64)?,
        offset: number(values, *offset)?,
        shape: numbers(values, *shape)?,
        strides: numbers(values, *strides)?,
    };
    let paired = view.shape.len() == view.strides.len();
    paired.then(|| CallResult::New(Value::Tensor(Box::new(view))))
}

fn is_empty(metadata: &Value<'_>) -> bool {
    match metadata {
        Value::Dict(entries) => entries.is_empty(),
        other => matches!(other, Value::None),
    }
}

/// The storage of a persistent id ("storage", class, key, device, values).
pub(super) fn storage<'a>(values: &Values<'a>, id: Id) -> Option<Value<'a>> {
    let [what, class, key, _, len, ..] = tuple(values, id)? else { return None };
    let (Value::Text("storage"), Value::Text(key)) =
        (&values[*what as usize], &values[*key as usize])
    else {
        return None;
    };
    let class = global(values, *class)?;
    let kind = match (class.module, class.name) {
        ("torch.storage", "UntypedStorage") => None,
        (_, name) => Some(KINDS.iter().find(|kind| kind.storage == name)?),
    };
    Some(Value::Storage(Storage { kind, key, values: number(values, *len)? }))
}

/// A type, such as torch.float32.
fn kind(values: &Values<'_>, id: Id) -> Option<&'static Kind> {
    let Global { module: "torch", name } = global(values, id)? else { return None };
    KINDS.iter().find(|kind| kind.torch == name)
}

fn global<'a>(values: &Values<'a>, id: Id) -> Option<Global<'a>> {
    match &values[id as usize] {
        Value::Global(global) => Some(*global),
        _ => None,
    }
}

fn tuple<'v>(values: &'v Values<'_>, id: Id) -> Option<&'v [Id]> {
    match &values[id as usize] {
        Value::Tuple(items) => Some(items),
        _ => None,
    }
}

fn number(values: &Values<'_>, id: Id) -> Option<u64> {
    match values[id as usize] {
        Value::Integer(number) => u64::try_from(number).ok(),
        _ => None,
    }
}

fn numbers(values: &Values<'_>, id: Id) -> Option<Vec<u64>> {
    let items = tuple(values, id).filter(|items| items.len() <= MOST_AXES)?;
    items.iter().map(|&id| number(values, id)).collect()
}
