//! The normalisation that an encoder expects, as stated beside its tensors.

use super::Error;
use crate::recipe::{Depth, Normalize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// The key of a file's metadata that holds the [`Normalize`] of training as JSON.
pub const NORMALIZE_KEY: &str = "normalize";

/// The key of a file's metadata that holds the order of channels: `RGB`, `grey` or `bands`.
pub const CHANNELS_KEY: &str = "channels";

/// The key of a file's metadata that holds the values of images of more than eight bits that become
/// black and white, as JSON: `[black, white]`.
pub const DEPTH_KEY: &str = "bit_depth";

/// The file of transformers' image processors beside a model.
pub const PREPROCESSOR: &str = "preprocessor_config.json";

/// Metadata that state this normalisation of images of `channels` channels, and their depth.
pub fn pixel_metadata(
    normalize: &Normalize,
    channels: usize,
    depth: Option<Depth>,
) -> Vec<(String, String)> {
    // JSON can hold all of these numbers.
    let numbers = serde_json::to_string(normalize).expect("numbers as JSON");
    let order = match channels {
        1 => "grey",
        3 => "RGB",
        _ => "bands",
    };
    let depth = depth.map(|depth| serde_json::to_string(&depth).expect("numbers as JSON"));
    let all = [
        (NORMALIZE_KEY, Some(numbers)),
        (CHANNELS_KEY, Some(order.to_owned())),
        (DEPTH_KEY, depth),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// The depth in a file's metadata.
pub(super) fn depth(
    path: &Path,
    metadata: &HashMap<String, String>,
) -> Result<Option<Depth>, Error> {
    let Some(text) = metadata.get(DEPTH_KEY) else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(|error| {
        let problem = format!("its metadata `{DEPTH_KEY}` is {text:?}: {error}");
        Error::model(path, format!("{problem}. Save it again, or remove the metadata"))
    })
}

/// The normalisation in a file's metadata, otherwise in transformers' `processor`, for an encoder
/// of `channels` channels.
pub(super) fn normalize(
    path: &Path,
    metadata: &HashMap<String, String>,
    processor: Option<&Value>,
    channels: usize,
) -> Result<Option<Normalize>, Error> {
    let stated = match (metadata.get(NORMALIZE_KEY), processor) {
        (Some(text), _) => serde_json::from_str(text).map(Some),
        (None, Some(processor)) => Ok(of_processor(processor)),
        (None, None) => Ok(None),
    };
    let fail = |problem: String| {
        let advice = "Save it again, or remove the metadata";
        Error::model(path, format!("its metadata `{NORMALIZE_KEY}` {problem}. {advice}"))
    };
    let stated = stated.map_err(|error| fail(format!("is not readable: {error}")))?;
    let Some(Normalize { mean, std }) = stated else { return Ok(None) };
    let counted = |list: &[f32]| [1, channels].contains(&list.len());
    let finite = mean.iter().chain(&std).all(|value| value.is_finite());
    if !(counted(&mean) && counted(&std) && finite && std.iter().all(|&std| std > 0.0)) {
        return Err(fail(format!(
            "is mean {mean:?}, std {std:?}, expected one number or {channels} each, std above 0"
        )));
    }
    Ok(Some(Normalize { mean, std }))
}

/// The normalisation of transformers' ViTImageProcessor: bytes times `rescale_factor`, minus the
/// mean, divided by the deviation.
fn of_processor(processor: &Value) -> Option<Normalize> {
    let numbers = |key: &str| -> Option<Vec<f32>> {
        let list = processor.get(key)?.as_array()?.iter();
        list.map(|number| number.as_f64().map(|number| number as f32)).collect()
    };
    let factor = processor.get("rescale_factor").map_or(Some(1.0 / 255.0), Value::as_f64)?;
    let does = |key: &str| processor.get(key).is_none_or(|value| value.as_bool() == Some(true));
    if !does("do_rescale") || (factor * 255.0 - 1.0).abs() > 1e-6 {
        return None;
    }
    if !does("do_normalize") {
        return Some(Normalize { mean: vec![0.0], std: vec![1.0] });
    }
    Some(Normalize { mean: numbers("image_mean")?, std: numbers("image_std")? })
}

/// transformers' image processor for images of [height, width] pixels with this normalisation.
pub fn processor(
    normalize: &Normalize,
    [height, width]: [usize; 2],
    channels: usize,
) -> serde_json::Value {
    let each = |list: &[f32]| -> Vec<f32> { (0..channels).map(|c| list[c % list.len()]).collect() };
    json!({
        "do_normalize": true,
        "do_rescale": true,
        "do_resize": true,
        "image_mean": each(&normalize.mean),
        "image_processor_type": "ViTImageProcessor",
        "image_std": each(&normalize.std),
        "resample": 3,
        "rescale_factor": 1.0 / 255.0,
        "size": {"height": height, "width": width},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Normalize>, Error> {
        let metadata = [(NORMALIZE_KEY.to_owned(), text.to_owned())].into();
        normalize(Path::new("f"), &metadata, None, 3)
    }

    #[test]
    fn what_is_written_is_read() {
        let normalize = Normalize { mean: vec![0.485, 0.456, 0.406], std: vec![0.25] };
        let depth = Depth::of_bits(12);
        let metadata: HashMap<_, _> =
            pixel_metadata(&normalize, 3, Some(depth)).into_iter().collect();
        assert_eq!((&*metadata["channels"], &*metadata["bit_depth"]), ("RGB", "[0.0,4095.0]"));
        assert_eq!(metadata["normalize"], r#"{"mean":[0.485,0.456,0.406],"std":[0.25]}"#);
        assert_eq!(read(&metadata["normalize"]).unwrap(), Some(normalize.clone()));
        assert_eq!(super::depth(Path::new("f"), &metadata).unwrap(), Some(depth));
        assert!(!pixel_metadata(&normalize, 3, None).iter().any(|(key, _)| key == DEPTH_KEY));
        let theirs = processor(&normalize, [32, 32], 3);
        let read = super::normalize(Path::new("f"), &[].into(), Some(&theirs), 3).unwrap();
        assert_eq!(read.unwrap().std, [0.25; 3]);
    }

    #[test]
    fn numbers_that_are_no_normalisation_are_refused() {
        for text in ["", "3", r#"{"mean":[0.5,0.5],"std":[1]}"#, r#"{"mean":[0],"std":[0]}"#] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains("its metadata `normalize`"), "{message}");
        }
        let none = normalize(Path::new("f"), &[].into(), None, 3);
        assert_eq!(none.unwrap(), None);
        for text in ["", "deep", "[0]", "[1, 0]", "[0, 1e999]"] {
            let metadata = [(DEPTH_KEY.to_owned(), text.to_owned())].into();
            let message = depth(Path::new("f"), &metadata).unwrap_err().to_string();
            assert!(message.contains("its metadata `bit_depth`"), "{message}");
        }
    }

    /// As in transformers, what a processor does not state it does.
    #[test]
    fn a_processor_that_states_only_mean_and_deviation_rescales_and_normalises() {
        let read =
            |processor: Value| normalize(Path::new("f"), &[].into(), Some(&processor), 3).unwrap();
        let (mean, std) = (vec![0.5, 0.25, 0.125], vec![0.5; 3]);
        let stated = json!({"image_mean": mean, "image_std": std});
        assert_eq!(read(stated.clone()), Some(Normalize { mean, std }));
        let with = |key: &str, value: bool| {
            let mut changed = stated.clone();
            changed[key] = value.into();
            changed
        };
        assert_eq!(read(with("do_rescale", false)), None, "pixels from 0 to 255");
        let same = Normalize { mean: vec![0.0], std: vec![1.0] };
        assert_eq!(read(with("do_normalize", false)), Some(same));
    }
}
