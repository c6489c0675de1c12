//! The tensors of a pickle by name: a state dictionary, by itself or under a key of another one.

use super::pickle;
use super::value::{Id, Value, Values, View};
use serde_json::{Map, Number, Value as Json};
use std::collections::HashSet;

/// The deepest nesting of dictionaries.
const MOST_DEPTH: usize = 32;

/// The most bytes that all names may take together: each takes [`ENTRY_COST`] and its length.
const MOST_NAMES: usize = 1 << 26;

/// Bytes that an entry takes besides its name, roughly.
const ENTRY_COST: usize = 64;

/// A pickle's tensors: those of all its dictionaries, with the keys joined by dots.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    values: Values<'a>,
    /// Names and tensors, in the file's order. A tensor that cannot be read has its problem.
    named: Vec<(String, Id, Option<String>)>,
    /// Texts, numbers and truth values besides the tensors.
    pub(super) metadata: Map<String, Json>,
}

impl<'a> Contents<'a> {
    /// Finds the tensors of a pickle and checks each against its storage.
    pub(super) fn of(pickle: &'a [u8]) -> Result<Self, String> {
        let (values, top) = pickle::read(pickle)?;
        let Some(entries) = entries(&values[top as usize]) else {
            return Err(no_dictionary(&values, top));
        };
        let metadata = metadata(&values, entries);
        let found = Names::under(&values, top)?;
        if found.is_empty() {
            return Err(format!("holds no tensors by name. {STATE_DICT}"));
        }
        let (mut seen, mut named) = (HashSet::new(), Vec::with_capacity(found.len()));
        for (name, id) in found {
            let problem = match &values[id as usize] {
                _ if !seen.insert(name.clone()) => {
                    Some(format!("names two tensors {name}. Save them under different names"))
                }
                Value::Tensor(view) => {
                    view.check().err().map(|problem| format!("tensor {name} {problem}"))
                }
                _ => Some(unknown_tensor(&values, &name, id)),
            };
            named.push((name, id, problem));
        }
        Ok(Self { metadata, named, values })
    }

    /// The tensors that can be read with their names, in the file's order.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &View<'a>)> {
        self.all().filter_map(|(name, view)| Some((name, view.ok()?)))
    }

    /// All tensors with their names, in the file's order, and why some cannot be read.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, Result<&View<'a>, &str>)> {
        self.named.iter().map(|(name, id, problem)| {
            let found = match (&self.values[*id as usize], problem) {
                (Value::Tensor(view), None) => Ok(&**view),
                (_, problem) => Err(problem.as_deref().unwrap_or_default()),
            };
            (name.as_str(), found)
        })
    }
}

/// What to do about files that are not a state dictionary.
const STATE_DICT: &str = "In Python: torch.save(model.state_dict(), FILE)";

fn no_dictionary(values: &Values<'_>, top: Id) -> String {
    let what = match &values[top as usize] {
        Value::Object(class, _) => match &values[*class as usize] {
            Value::Global(class) => format!("an object of {}.{}", class.module, class.name),
            _ => "an object".to_owned(),
        },
        Value::Tensor(_) => "one tensor without a name".to_owned(),
        Value::Tuple(_) | Value::List(_) => "a list".to_owned(),
        _ => "no dictionary".to_owned(),
    };
    format!(
        "holds {what}, expected a dictionary of tensors. Objects are not built, since that would \
         run code of the file. {STATE_DICT}"
    )
}

fn unknown_tensor(values: &Values<'_>, name: &str, id: Id) -> String {
    let made = match &values[id as usize] {
        Value::Object(class, _) => match &values[*class as usize] {
            Value::Global(class) => class.name,
            _ => "",
        },
        _ => "",
    };
    format!(
        "tensor {name} is made by {made} from a storage or arguments that are not supported: it \
         may be sparse, quantised, negated or without values. Save it as a dense tensor of \
         floats. For negated tensors use .resolve_neg()"
    )
}

/// The entries of a dictionary, or of an object that was filled like one.
fn entries<'v>(value: &'v Value<'_>) -> Option<&'v [(Id, Id)]> {
    match value {
        Value::Dict(entries) => Some(entries),
        Value::Object(_, entries) if !entries.is_empty() => Some(entries),
        _ => None,
    }
}

fn text<'a>(values: &Values<'a>, id: Id) -> Option<&'a str> {
    match values[id as usize] {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Whether a value is a tensor, or an unread result of a function that makes tensors.
fn is_tensor(values: &Values<'_>, id: Id) -> bool {
    match &values[id as usize] {
        Value::Tensor(_) => true,
        Value::Object(class, _) => matches!(
            &values[*class as usize],
            Value::Global(class)
                if matches!(class.module, "torch._utils" | "torch._tensor")
                    && class.name.starts_with("_rebuild")
        ),
        _ => false,
    }
}

fn metadata(values: &Values<'_>, entries: &[(Id, Id)]) -> Map<String, Json> {
    let scalar = |id: Id| match values[id as usize] {
        Value::Bool(value) => Some(Json::Bool(value)),
        Value::Integer(value) => Some(Json::Number(value.into())),
        Value::Float(value) => Number::from_f64(value).map(Json::Number),
        Value::Text(value) => Some(Json::String(value.to_owned())),
        _ => None,
    };
    let entry = |&(key, value): &(Id, Id)| Some((text(values, key)?.to_owned(), scalar(value)?));
    // Texts may be shared, so a small file could refer to terabytes of them.
    let mut budget = MOST_NAMES;
    let cost =
        |(key, value): &(String, Json)| ENTRY_COST + key.len() + value.as_str().map_or(0, str::len);
    entries
        .iter()
        .map_while(|pair| {
            let entry = entry(pair);
            budget = budget.checked_sub(entry.as_ref().map_or(0, cost))?;
            Some(entry)
        })
        .flatten()
        .collect()
}

/// Walks dictionaries and joins their keys by dots.
struct Names<'v, 'a> {
    values: &'v Values<'a>,
    found: Vec<(String, Id)>,
    /// The dictionaries from the top to the current one.
    path: Vec<Id>,
    budget: usize,
}

impl<'v, 'a> Names<'v, 'a> {
    /// The tensors under a value.
    fn under(values: &'v Values<'a>, id: Id) -> Result<Vec<(String, Id)>, String> {
        let mut walk = Self { values, found: Vec::new(), path: Vec::new(), budget: MOST_NAMES };
        walk.visit("", id)?;
        Ok(walk.found)
    }

    fn visit(&mut self, prefix: &str, id: Id) -> Result<(), String> {
        // Objects may refer to the objects that hold them.
        let Some(entries) = entries(&self.values[id as usize]).filter(|_| !self.path.contains(&id))
        else {
            return Ok(());
        };
        if self.path.len() == MOST_DEPTH {
            return Err(format!("nests dictionaries deeper than {MOST_DEPTH}. {STATE_DICT}"));
        }
        self.path.push(id);
        for &(key, value) in entries {
            let name = match &self.values[key as usize] {
                Value::Text(key) => (*key).to_owned(),
                Value::Integer(key) => key.to_string(),
                _ => continue,
            };
            let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            self.budget = self
                .budget
                .checked_sub(ENTRY_COST + name.len())
                .ok_or_else(|| format!("has more names than any model. {STATE_DICT}"))?;
            // An array of another library in place of a weight: told, not taken for missing.
            let is_weight = name.ends_with(".weight") || name.ends_with(".bias");
            let found = &self.values[value as usize];
            let is_object = matches!(found, Value::Object(_, inside) if inside.is_empty());
            match is_tensor(self.values, value) || (is_weight && is_object) {
                true => self.found.push((name, value)),
                false => self.visit(&name, value)?,
            }
        }
        self.path.pop();
        Ok(())
    }
}
