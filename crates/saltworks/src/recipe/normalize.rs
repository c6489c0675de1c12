//! `data.normalize` as written: a name or a table.

use super::Normalize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::fmt;

/// timm/data/constants.py
const PRESETS: [(&str, [f32; 3], [f32; 3]); 3] = [
    ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ("inception", [0.5; 3], [0.5; 3]),
    ("clip", [0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]),
];

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MeanStd {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Default for MeanStd {
    fn default() -> Self {
        let Normalize { mean, std } = Normalize::default();
        Self { mean, std }
    }
}

struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = Normalize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of mean and std, or a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Normalize, E> {
        const NAMES: [&str; 3] = [PRESETS[0].0, PRESETS[1].0, PRESETS[2].0];
        let preset = PRESETS.iter().find(|(known, ..)| *known == name);
        let (_, mean, std) = preset.ok_or_else(|| E::unknown_variant(name, &NAMES))?;
        // Grey images can be scaled to [-1, 1], too.
        let values =
            |list: &[f32; 3]| if name == "inception" { vec![list[0]] } else { list.to_vec() };
        Ok(Normalize { mean: values(mean), std: values(std) })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Normalize, A::Error> {
        let MeanStd { mean, std } = MeanStd::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Normalize { mean, std })
    }
}

impl<'de> Deserialize<'de> for Normalize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrTable)
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::load;

    #[test]
    fn a_name_stands_for_its_numbers_and_a_wrong_one_gets_the_nearest() {
        let normalize = |set: &str| {
            let set = [format!("data.normalize={set}"), "data.channels=3".to_owned()];
            load(None, &set).map(|recipe| recipe.data.normalize).map_err(|error| error.to_string())
        };
        assert_eq!(normalize("imagenet").unwrap().std, [0.229, 0.224, 0.225]);
        assert_eq!(normalize("inception").unwrap().mean, [0.5]);
        assert_eq!(normalize("{std=[0.25]}").unwrap().mean, [0.5]);
        let message = normalize("imagnet").unwrap_err();
        assert!(message.contains("Did you mean `imagenet`?"), "{message}");
        let message = normalize("{men=[0.5]}").unwrap_err();
        assert!(message.contains("Did you mean `mean`?"), "{message}");
        let message = normalize("3").unwrap_err();
        assert!(message.contains("a table of mean and std, or a name"), "{message}");
    }
}
