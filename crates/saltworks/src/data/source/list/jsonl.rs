//! Lists in JSON Lines, as Hugging Face's ImageFolder has them: an object for each image.

use serde_json::{Map, Value};

use super::{Fault, LABEL_NAMES, ListRow, ListTable, PATH_NAMES, is_part_name, no_path_column};

/// Rows of a text with an object on each line.
pub(super) fn rows(text: &str) -> Result<ListTable, Fault> {
    let mut table = ListTable::default();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let fail = |problem: String| Fault { line, problem };
        let object: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| fail(format!("is not a JSON object ({error})")))?;
        let keys = || object.keys().map(String::as_str);
        let [path, label] = [&PATH_NAMES, &LABEL_NAMES]
            .map(|names| names.find(keys()).and_then(|at| object.iter().nth(at)));
        let mut parts = Vec::new();
        for key in object.keys() {
            let at = table.columns.iter().position(|column| column == key);
            let at = at.unwrap_or_else(|| {
                table.columns.push(key.clone());
                table.columns.len() - 1
            });
            let is_used = [path, label].into_iter().flatten().any(|(used, _)| used == key);
            if is_used && !table.used.contains(&at) {
                table.used.push(at);
            }
            let text = match &object[key] {
                Value::String(text) => Some(text.clone()),
                value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
                _ => None,
            };
            parts.extend(text.filter(|_| is_part_name(key)).map(|text| (at, text)));
        }
        let names = || object.keys().cloned().collect::<Vec<_>>();
        let path = path.ok_or_else(|| fail(no_path_column(&names())))?;
        let Some(file) = path.1.as_str().filter(|file| !file.trim().is_empty()) else {
            return Err(fail(format!("has the {} {}, expected a path", path.0, path.1)));
        };
        let label = match label {
            None | Some((_, Value::Null)) => None,
            Some((_, Value::String(text))) => Some(text.clone()),
            Some((_, value @ (Value::Number(_) | Value::Bool(_)))) => Some(value.to_string()),
            Some((key, value)) => {
                let problem = format!("has the {key} {value}, expected a text or a number");
                return Err(fail(problem));
            }
        };
        table.rows.push(ListRow { line, path: file.to_owned(), label, parts });
    }
    Ok(table)
}
