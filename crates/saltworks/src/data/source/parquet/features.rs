//! What Hugging Face `datasets` states about the columns, as JSON in the file's metadata.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::collections::BTreeMap;

use parquet::file::metadata::KeyValue;
use serde_json::Value;

/// Some writers leave out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Names found under `info.features`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HubFeatures {
    /// The columns of type `Image`, sorted by name.
    pub(super) images: Vec<String>,
    /// The columns of type `ClassLabel` with their classes, by name.
    pub(super) labels: BTreeMap<String, Vec<String>>,
}

impl HubFeatures {
    /// From the key `huggingface`, or from Arrow's schema in `ARROW:schema`. The schema is a
    /// flatbuffer in base64. It holds the JSON as one string, which is searched for.
    pub(super) fn find(metadata: Option<&Vec<KeyValue>>) -> Self {
        let value = |key: &str| {
            let pair = metadata.into_iter().flatten().find(|pair| pair.key == key)?;
            pair.value.as_deref()
        };
        let plain = value("huggingface").and_then(|text| serde_json::from_str(text).ok());
        let json = plain.or_else(|| json_within(&BASE64.decode(value("ARROW:schema")?).ok()?));
        json.map_or_else(Self::default, |json| Self::from_json(&json))
    }

    fn from_json(json: &Value) -> Self {
        let Some(features) = json.pointer("/info/features").and_then(Value::as_object) else {
            return Self::default();
        };
        let is_type =
            |value: &Value, wanted: &str| value.get("_type").is_some_and(|kind| kind == wanted);
        let text = |name: &Value| name.as_str().unwrap_or_default().to_owned();
        let classes = |value: &Value| {
            let names = value.get("names").and_then(Value::as_array);
            names.into_iter().flatten().map(text).collect()
        };
        let images = features.iter().filter(|(_, value)| is_type(value, "Image"));
        let labels = features.iter().map(|(name, value)| (name, element(value)));
        let labels = labels.filter(|(_, value)| is_type(value, "ClassLabel"));
        Self {
            images: images.map(|(name, _)| name.clone()).collect(),
            labels: labels.map(|(name, value)| (name.clone(), classes(value))).collect(),
        }
    }
}

/// The feature of a list's elements, or of the column itself.
fn element(feature: &Value) -> &Value {
    feature.get("feature").or_else(|| feature.get(0)).unwrap_or(feature)
}

/// The first JSON object in some bytes that begins with `{"info"`.
fn json_within(bytes: &[u8]) -> Option<Value> {
    const START: &[u8] = b"{\"info\"";
    let start = bytes.windows(START.len()).position(|part| part == START)?;
    serde_json::Deserializer::from_slice(&bytes[start..]).into_iter().next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;

    #[test]
    fn names_come_from_a_plain_key_and_from_within_a_schema() {
        let json = r#"{"info": {"features": {"picture": {"_type": "Image"},
                      "kind": {"names": ["a", "b"], "_type": "ClassLabel"}}}}"#;
        let pair = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
        let plain = HubFeatures::find(Some(&vec![pair("huggingface", json)]));
        assert_eq!(plain.images, ["picture"]);
        assert_eq!(plain.labels["kind"], ["a", "b"]);
        let within = [b"\x01\x02huggingface\0\0", json.as_bytes(), b"\0\0more"].concat();
        assert_eq!(HubFeatures::from_json(&json_within(&within).unwrap()), plain);
        for text in [BASE64.encode(&within), BASE64.encode(&within).replace('=', "")] {
            assert_eq!(HubFeatures::find(Some(&vec![pair("ARROW:schema", &text)])), plain);
        }
        let nothing = HubFeatures::default();
        assert_eq!(HubFeatures::find(Some(&vec![pair("ARROW:schema", "Zm9v")])), nothing);
        assert_eq!(HubFeatures::find(None), nothing);
    }

    #[test]
    fn no_metadata_makes_the_search_panic() {
        let seed =
            br#"junk{"info": {"features": {"x": {"names": ["a"], "_type": "ClassLabel"}}}} junk"#;
        fuzz::mutate("features", seed, |bytes| {
            json_within(bytes).map(|json| HubFeatures::from_json(&json));
        });
    }
}
