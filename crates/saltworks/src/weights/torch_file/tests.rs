use super::*;
use crate::files::write_whole;
use crate::fuzz;
use crate::weights::{Dtype, File, Listing, load, save_torch};
use std::io::Cursor;
use std::path::PathBuf;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// Checks that a file holds the golden values whose names begin with `prefix`, and no others but
/// settings.
fn assert_values(file: &File, prefix: &str, rename: impl Fn(&str) -> String) {
    let values = load(&golden("torch_values.safetensors")).unwrap().tensors;
    let wanted =
        values.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
    let wanted: Vec<_> = wanted.map(|(name, value)| (rename(name), value)).collect();
    let found = file.tensors.keys().filter(|name| !name.starts_with("hyper_parameters."));
    assert_eq!(wanted.len(), found.count(), "{:?}", file.tensors.keys());
    for (name, value) in wanted {
        let found = &file.tensors[&name];
        assert_eq!(found.shape(), value.shape(), "{name}");
        assert_eq!(found.to_vec(), value.to_vec(), "{name}");
    }
}

#[test]
fn a_state_dictionary_is_read_in_every_protocol_and_container() {
    let cases = [
        ("torch_plain.pt", ""),
        ("torch_protocol_5.pt", ""),
        ("torch_model.pth", "model."),
        ("torch_lightning.ckpt", "state_dict.model."),
    ];
    for (name, prefix) in cases {
        let file = load(&golden(name)).unwrap();
        assert_values(&file, "plain.", |name| format!("{prefix}{name}"));
        let counter = format!("{prefix}norm.num_batches_tracked");
        assert_eq!(file.others, [(counter, "I64".to_owned())].into());
    }
}

#[test]
fn every_float_is_read_as_f32_and_other_types_are_named() {
    let file = load(&golden("torch_types.pt")).unwrap();
    assert_values(&file, "types.", str::to_owned);
    let others: Vec<(&str, &str)> =
        file.others.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    let wanted = [("bool", "BOOL"), ("c64", "C64"), ("i64", "I64"), ("u16", "U16"), ("u8", "U8")];
    assert_eq!(others, wanted);
}

#[test]
fn views_and_shared_storages_give_their_own_values() {
    let file = load(&golden("torch_views.pt")).unwrap();
    assert_values(&file, "views.", str::to_owned);
    let place = |name: &str| file.tensors[name].to_host().as_ptr();
    assert_eq!(place("tied.a"), place("tied.b"), "tied tensors take their memory once");
}

#[test]
fn nested_dictionaries_are_joined_by_dots() {
    let file = load(&golden("torch_nested.pt")).unwrap();
    let shapes: Vec<_> =
        file.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape())).collect();
    assert_eq!(shapes, [("student.a", &[2][..]), ("teacher.b.c", &[3])]);
}

#[test]
fn a_listing_names_tensors_in_the_files_order_with_metadata() {
    let listing = Listing::read(&golden("torch_lightning.ckpt")).unwrap();
    assert_eq!((listing.metadata["epoch"].as_u64(), listing.metadata.len()), (Some(3), 4));
    let first = &listing.tensors[0];
    assert_eq!(
        (first.name.as_str(), first.dtype.as_str()),
        ("state_dict.model.embed.weight", "F32")
    );
    assert_eq!(
        (first.shape.as_slice(), listing.tensors.len()),
        (&[8, 3, 2, 2][..], 10),
        "with a setting"
    );
}

#[test]
fn a_listing_reads_no_values() {
    let mut bytes = std::fs::read(golden("torch_plain.pt")).unwrap();
    let weight = load(&golden("torch_plain.pt")).unwrap().tensors["embed.weight"].clone();
    let first = weight.to_host()[0].to_le_bytes();
    let at = bytes.windows(4).position(|bytes| bytes == first).unwrap();
    bytes[at] ^= 1;
    let open = || Archive::open(Cursor::new(&bytes), bytes.len() as u64).unwrap();
    assert_eq!(open().list().unwrap().tensors.len(), 9);
    assert!(open().load(&|_| true).unwrap_err().contains("archive/data/0: is damaged"));
}

#[test]
fn a_pickled_module_is_refused_with_what_to_save_instead() {
    let message = load(&golden("torch_module.pt")).unwrap_err().to_string();
    for part in ["torch_module.pt: holds an object of torch.nn", "model.state_dict()"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_is_saved_is_read_and_the_same_tensors_are_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..15).map(|value| value as f32 / 7.0 - 1.0).collect();
    let tensors = [
        ("a.weight".to_owned(), Tensor::from_vec(&values, &[3, 5])),
        ("scalar".to_owned(), Tensor::from_vec([2.5], &[])),
        ("empty".to_owned(), Tensor::from_vec([], &[0, 2])),
        ("größe".to_owned(), Tensor::from_vec(&values[..4], &[4])),
    ];
    for (dtype, error) in
        [(Dtype::F32, 0.0), (Dtype::F16, 1.0 / 2048.0), (Dtype::Bf16, 1.0 / 256.0)]
    {
        for container in [None, Some("state_dict"), Some("model")] {
            let save = |name: &str| {
                let path = folder.path().join(name);
                save_torch(&path, &tensors, container, &[].into(), dtype).unwrap();
                path
            };
            let path = save("a.pt");
            let bytes = |path| std::fs::read(path).unwrap();
            assert_eq!(bytes(save("b.pt")), bytes(path.clone()));
            let file = load(&path).unwrap();
            for (name, tensor) in &tensors {
                let name =
                    container.map_or(name.clone(), |container| format!("{container}.{name}"));
                assert_eq!(file.tensors[&name].shape(), tensor.shape());
                for (found, &wanted) in
                    file.tensors[&name].to_vec().iter().zip(tensor.to_host().iter())
                {
                    // Half a step between neighbours, relative to the value.
                    assert!((found - wanted).abs() <= error * wanted.abs(), "{found} {wanted}");
                }
            }
            let listing = Listing::read(&path).unwrap();
            assert_eq!(listing.tensors[0].dtype, dtype.kind().name);
        }
    }
}

#[test]
fn every_record_begins_at_a_multiple_of_64_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    let tensors =
        [1.25, 2.5].map(|value| (format!("x{value}"), Tensor::from_vec([value; 3], &[3])));
    save_torch(&path, &tensors, None, &[].into(), Dtype::F32).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for (_, tensor) in &tensors {
        let stored: Vec<u8> = tensor.to_host().iter().flat_map(|v| v.to_le_bytes()).collect();
        let at = bytes.windows(12).position(|bytes| bytes == stored).unwrap();
        assert_eq!(at % 64, 0);
    }
}

#[test]
fn a_value_beyond_the_type_is_refused_and_no_file_appears() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    let tensors = [("a.bias".to_owned(), Tensor::from_vec([1.0, 1e6], &[2]))];
    let message =
        save_torch(&path, &tensors, None, &[].into(), Dtype::F16).unwrap_err().to_string();
    assert!(
        message.ends_with("a.bias holds 1000000, which F16 cannot hold. Write it as F32 or BF16")
    );
    assert!(!path.exists());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = std::fs::read(golden("torch_types.pt")).unwrap();
    for cut in 0..whole.len() {
        let read = Archive::open(Cursor::new(&whole[..cut]), cut as u64);
        assert!(read.is_err(), "cut at {cut}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    write_whole(&path, &whole[..whole.len() / 2]).unwrap();
    let message = load(&path).unwrap_err().to_string();
    assert!(
        message.contains("a.pt: is not a whole zip archive. Save or fetch it again"),
        "{message}"
    );
}

/// A golden file's bytes without checksums, so that damage reaches the readers behind.
fn unchecked(name: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(golden(name)).unwrap();
    for at in 0..bytes.len() - 20 {
        if bytes[at..].starts_with(b"PK\x01\x02") {
            bytes[at + 16..at + 20].fill(0);
        }
    }
    bytes
}

#[test]
fn no_bytes_make_the_torch_reader_panic_or_return_more_than_the_file_has() {
    for (purpose, name) in [
        ("torch types", "torch_types.pt"),
        ("torch views", "torch_views.pt"),
        ("torch nested", "torch_nested.pt"),
    ] {
        fuzz::mutate(purpose, &unchecked(name), |bytes| {
            let len = bytes.len() as u64;
            let read = || Archive::open(Cursor::new(bytes), len);
            let _ = read().and_then(Archive::list);
            if let Ok(file) = read().and_then(|archive| archive.load(&|_| true)) {
                let values = file.tensors.values().map(Tensor::len);
                assert!(values.max().unwrap_or(0) as u64 <= len);
            }
        });
    }
}

#[test]
fn no_bytes_make_the_pickle_reader_panic() {
    for (purpose, name) in [
        ("pickle 2", "torch_lightning.ckpt"),
        ("pickle 4", "torch_nested.pt"),
        ("pickle module", "torch_module.pt"),
    ] {
        let file = std::fs::File::open(golden(name)).unwrap();
        let pickle = Archive::open(file, u64::MAX).unwrap().pickle().unwrap();
        fuzz::mutate(purpose, &pickle, |bytes| {
            if let Ok(contents) = Contents::of(bytes) {
                assert!(contents.tensors().all(|(_, view)| view.check().is_ok()));
            }
        });
    }
}
