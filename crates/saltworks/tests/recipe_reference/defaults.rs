//! The values that keys have if a recipe does not give them: of recipes that give hardly any key,
//! read by the program and written back.

use saltworks::recipe;
use toml::{Table, Value};

/// One step on the way from the top of a recipe to a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Into the table, or into each table of the list, under this key.
    Key(String),
    /// Only if the table's tag has this value.
    Tagged(String, String),
}

/// What stands in a recipe's table for a key that the recipe does not give.
#[derive(Debug, PartialEq)]
pub(crate) enum Default {
    /// Nothing is right but to give it.
    Required,
    /// No value.
    NotSet,
    /// This one.
    Value(Value),
}

/// Recipes that together hold every table, with each key not given at least once if it need not be.
/// `{kind}` is each kind of masks in turn.
const SAMPLES: [&str; 2] = [
    "[[stage]]\nname = \"a\"\nsteps = 1\n\
     [[stage]]\nname = \"b\"\nmethod = \"salt\"\nteacher = \"a\"\nepochs = 1\n",
    "[data.augment]\njitter = {}\nblur = {}\nsolarize = {}\n[[data.source]]\npath = \"images\"\n\
     [[stage]]\nname = \"a\"\nsteps = 1\nmodel = {}\nmasks = { kind = \"{kind}\" }\n",
];

/// Recipes as given and as the program resolves them.
pub(crate) struct Defaults(Vec<[Value; 2]>);

impl Defaults {
    /// Of all samples, with each of these kinds of masks.
    pub(crate) fn new(kinds: &[String]) -> Self {
        let texts = SAMPLES.iter().flat_map(|text| kinds.iter().map(|k| text.replace("{kind}", k)));
        let read = |text: String| {
            let given: Table = text.parse().unwrap();
            let recipe = recipe::from_text("a sample", &text, &[]).unwrap();
            let resolved: Table = toml::to_string(&recipe).unwrap().parse().unwrap();
            [given.into(), resolved.into()]
        };
        Self(texts.map(read).collect())
    }

    /// The default of the key at the end of a path.
    pub(crate) fn of(&self, path: &[Step]) -> Default {
        let mut found = Vec::new();
        self.0.iter().for_each(|[given, all]| collect(Some(given), all, path, &mut found));
        let found: Vec<_> = found.into_iter().filter(|(is_given, _)| !is_given).collect();
        match found.iter().find_map(|(_, value)| *value) {
            Some(value) => Default::Value(value.clone()),
            None if found.is_empty() => Default::Required,
            None => Default::NotSet,
        }
    }
}

/// Adds, for each table that the path leads to, whether it gives the key, and its value.
fn collect<'a>(
    given: Option<&'a Value>,
    all: &'a Value,
    path: &[Step],
    found: &mut Vec<(bool, Option<&'a Value>)>,
) {
    if let Some(list) = all.as_array() {
        for (i, all) in list.iter().enumerate() {
            collect(given.and_then(|given| given.get(i)), all, path, found);
        }
        return;
    }
    match path {
        [Step::Key(key)] => {
            found.push((given.is_some_and(|given| given.get(key).is_some()), all.get(key)));
        }
        [Step::Key(key), rest @ ..] => {
            if let Some(all) = all.get(key) {
                collect(given.and_then(|given| given.get(key)), all, rest, found);
            }
        }
        [Step::Tagged(tag, value), rest @ ..] => {
            if all.get(tag).and_then(Value::as_str) == Some(value) {
                collect(given, all, rest, found);
            }
        }
        [] => {}
    }
}
