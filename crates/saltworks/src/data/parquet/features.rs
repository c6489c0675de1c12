//! What Hugging Face `datasets` says of the columns, as JSON in the file's metadata.

use parquet::file::metadata::KeyValue;
use serde_json::Value;

/// Names found under `info.features`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    /// The first column of type `Image`.
    pub(super) image: Option<String>,
    /// The first column of type `ClassLabel`.
    pub(super) label: Option<String>,
    /// Its classes.
    pub(super) classes: Vec<String>,
}

impl Features {
    /// From the key `huggingface`, or from Arrow's schema in `ARROW:schema`. That one is a flatbuffer
    /// in base64; the JSON stands in it as one string, so it is searched for instead of walked to.
    pub(super) fn find(metadata: Option<&Vec<KeyValue>>) -> Self {
        let value = |key: &str| {
            let pair = metadata.into_iter().flatten().find(|pair| pair.key == key)?;
            pair.value.as_deref()
        };
        let plain = value("huggingface").and_then(|text| serde_json::from_str(text).ok());
        let json = plain.or_else(|| json_within(&base64(value("ARROW:schema")?)));
        json.map_or_else(Self::default, |json| Self::from_json(&json))
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn from_json(json: &Value) -> Self {
        let Some(features) = json.pointer("/info/features").and_then(Value::as_object) else {
            return Self::default();
        };
        let of_type = |wanted: &str| {
            let is_wanted = |value: &Value| value.get("_type").is_some_and(|kind| kind == wanted);
            features.iter().find(|(_, value)| is_wanted(value))
        };
        let label = of_type("ClassLabel");
        let names = label.and_then(|(_, value)| value.get("names")?.as_array());
        let text = |name: &Value| name.as_str().unwrap_or_default().to_owned();
        Self {
            image: of_type("Image").map(|(name, _)| name.clone()),
            label: label.map(|(name, _)| name.clone()),
            classes: names.into_iter().flatten().map(text).collect(),
        }
    }
}

/// The first JSON object in some bytes that begins with `{"info"`.
fn json_within(bytes: &[u8]) -> Option<Value> {
    const START: &[u8] = b"{\"info\"";
    let start = bytes.windows(START.len()).position(|part| part == START)?;
    serde_json::Deserializer::from_slice(&bytes[start..]).into_iter().next()?.ok()
}

/// RFC 4648; what is no digit ends it.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().map_while(digit).map(u32::from).collect();
    let bytes = |four: &[u32]| {
        let bits = four.iter().enumerate().map(|(at, digit)| digit << (18 - 6 * at)).sum::<u32>();
        let [_, bytes @ ..] = bits.to_be_bytes();
        bytes.into_iter().take(four.len().saturating_sub(1))
    };
    digits.chunks(4).flat_map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE=", "fooba")]
        {
            assert_eq!(base64(text), bytes.as_bytes());
        }
        assert_eq!(base64("+/+/"), [0xFB, 0xFF, 0xBF]);
    }

    #[test]
    fn names_come_from_a_plain_key_and_from_within_a_schema() {
        let json = r#"{"info": {"features": {"picture": {"_type": "Image"},
                      "kind": {"names": ["a", "b"], "_type": "ClassLabel"}}}}"#;
        let pair = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
        let plain = Features::find(Some(&vec![pair("huggingface", json)]));
        assert_eq!(plain.image.as_deref(), Some("picture"));
        assert_eq!((plain.label.as_deref(), plain.classes.len()), (Some("kind"), 2));
        let within = [b"\x01\x02huggingface\0\0", json.as_bytes(), b"\0\0more"].concat();
        assert_eq!(Features::from_json(&json_within(&within).unwrap()), plain);
        assert!(Features::find(Some(&vec![pair("ARROW:schema", "Zm9v")])).is_empty());
        assert!(Features::find(None).is_empty());
    }

    #[test]
    fn no_metadata_makes_the_search_panic() {
        let seed =
            br#"junk{"info": {"features": {"x": {"names": ["a"], "_type": "ClassLabel"}}}} junk"#;
        fuzz::mutate("features", seed, |bytes| {
            json_within(bytes).map(|json| Features::from_json(&json));
            base64(&String::from_utf8_lossy(bytes));
        });
    }
}
