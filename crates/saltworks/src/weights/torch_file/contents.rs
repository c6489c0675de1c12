//! The tensors of a pickle by name: a state dictionary, by itself or under a key of another one.

use super::pickle;
use super::value::{Id, Value, Values, View};
use serde_json::{Map, Number, Value as Json};
use std::collections::HashSet;

/// Keys under which training scripts store a state dictionary. The first that holds tensors is
/// used. Sources: Lightning and many others; MAE, DeiT, timm; PyTorch's tutorials; DeepSpeed.
const CONTAINERS: [&str; 4] = ["state_dict", "model", "model_state_dict", "module"];

/// The most other keys that are reported.
const MOST_BESIDE: usize = 8;

/// The deepest nesting of dictionaries.
const MOST_DEPTH: usize = 32;

/// The most bytes that all names may take together: each takes [`ENTRY_COST`] and its length.
const MOST_NAMES: usize = 1 << 26;

/// Bytes that an entry takes besides its name, roughly.
const ENTRY_COST: usize = 64;

/// A pickle's tensors.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    values: Values<'a>,
    /// Names and tensors, in the file's order.
    named: Vec<(String, Id)>,
    /// The key under which they were found.
    pub(super) container: Option<&'static str>,
    /// Other keys that hold tensors, too.
    pub(super) beside: Vec<String>,
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
        let mut found = None;
        for key in CONTAINERS {
            let is_key = |(id, _): &&(Id, Id)| text(&values, *id) == Some(key);
            let Some(&(_, inside)) = entries.iter().rev().find(is_key) else { continue };
            let named = Names::under(&values, inside)?;
            if !named.is_empty() {
                found = Some((Some(key), named));
                break;
            }
        }
        let (container, named) = match found {
            Some(found) => found,
            None => (None, Names::under(&values, top)?),
        };
        let metadata = metadata(&values, entries);
        let beside = container.map_or(Vec::new(), |taken| beside(&values, entries, taken));
        let contents = Self { container, metadata, named, beside, values };
        contents.check()?;
        Ok(contents)
    }

    /// The tensors with their names, in the file's order.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &View<'a>)> {
        self.named.iter().filter_map(|(name, id)| match &self.values[*id as usize] {
            Value::Tensor(view) => Some((name.as_str(), &**view)),
            _ => None,
        })
    }

    fn check(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for (name, id) in &self.named {
            if !names.insert(name) {
                return Err(format!("names two tensors {name}. Save them under different names"));
            }
            match &self.values[*id as usize] {
                Value::Tensor(view) => {
                    view.check().map_err(|problem| format!("tensor {name} {problem}"))?;
                }
                _ => return Err(unknown_tensor(&self.values, name, *id)),
            }
        }
        if self.named.is_empty() {
            return Err(format!("holds no tensors by name. {STATE_DICT}"));
        }
        Ok(())
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

/// Other keys whose values are tensors, or dictionaries with tensors in them. Examples are averages
/// of weights, or weights without a dictionary of their own. Optimizers keep their tensors deeper.
fn beside(values: &Values<'_>, all: &[(Id, Id)], taken: &str) -> Vec<String> {
    let holds = |id: Id| {
        let inside = entries(&values[id as usize]).unwrap_or_default();
        is_tensor(values, id) || inside.iter().any(|&(_, value)| is_tensor(values, value))
    };
    let keys =
        all.iter().filter(|&&(_, value)| holds(value)).filter_map(|&(key, _)| text(values, key));
    keys.filter(|key| *key != taken).take(MOST_BESIDE).map(str::to_owned).collect()
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
            match is_tensor(self.values, value) {
                true => self.found.push((name, value)),
                false => self.visit(&name, value)?,
            }
        }
        self.path.pop();
        Ok(())
    }
}
