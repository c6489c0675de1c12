use super::*;
use crate::fuzz;
use crate::weights::{Listing, load};

fn tensors() -> [(String, Tensor); 2] {
    let values = [1.0, -2.5, 1.0 / 3.0, 65_000.0];
    [("a".to_owned(), Tensor::from_vec(values, &[2, 2])), ("b".to_owned(), Tensor::zeros(&[3]))]
}

/// A file of these tensors: type, shape and bytes.
fn file(tensors: &[(&str, &str, &[usize], &[u8])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut values = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let place = [values.len(), values.len() + bytes.len()];
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": place});
        header.insert((*name).to_owned(), entry);
        values.extend_from_slice(bytes);
    }
    let header = Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat()
}

#[test]
fn every_type_that_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    for (dtype, third) in
        [(Dtype::F32, 1.0 / 3.0), (Dtype::F16, 0.33325195), (Dtype::Bf16, 0.33398438)]
    {
        save_as(&path, &tensors(), &HashMap::new(), dtype).unwrap();
        let found = load(&path).unwrap().tensors["a"].to_vec();
        assert_eq!(found[..3], [1.0, -2.5, third], "{dtype:?}");
        assert!((found[3] - 65_000.0).abs() < 256.0);
        assert_eq!(Listing::read(&path).unwrap().tensors[0].dtype, dtype.kind().name);
    }
}

#[test]
fn doubles_are_read_and_integers_are_named() {
    let doubles = [0.1_f64, -1e300].map(f64::to_le_bytes).concat();
    let bytes =
        file(&[("a", "F64", &[2], &doubles), ("n", "I64", &[1], &[1, 0, 0, 0, 0, 0, 0, 0])]);
    let file = parse(Path::new("f"), &bytes).unwrap();
    assert_eq!(file.tensors["a"].to_vec(), [0.1, f32::NEG_INFINITY]);
    assert_eq!(file.others, [("n".to_owned(), "I64".to_owned())].into());
}

#[test]
fn sizes_that_do_not_match_the_bytes_are_refused() {
    let refused = |dtype, shape: &[usize], bytes: &[u8]| {
        let bytes = file(&[("a", dtype, shape, bytes)]);
        parse(Path::new("f"), &bytes).unwrap_err().to_string()
    };
    for (dtype, shape) in [("F32", &[2][..]), ("F16", &[4]), ("F32", &[usize::MAX, usize::MAX])] {
        let message = refused(dtype, shape, &[0; 4]);
        assert!(message.contains("f is not a whole safetensors file"), "{message}");
    }
}

#[test]
fn a_header_that_claims_to_be_huge_is_refused() {
    let mut bytes = (1_u64 << 30).to_le_bytes().to_vec();
    bytes.extend(b"{\"a\":1}");
    let message = parse(Path::new("f"), &bytes).unwrap_err().to_string();
    assert!(message.contains("header of 1073741824 bytes, expected at most"), "{message}");
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let seed = file(&[("a", "F32", &[1, 2], &[1; 8]), ("b", "F16", &[3], &[2; 6])]);
    fuzz::mutate("safetensors", &seed, |bytes| {
        if let Ok(file) = parse(Path::new("f"), bytes) {
            let values = file.tensors.values().map(Tensor::len);
            assert!(values.sum::<usize>() <= bytes.len());
        }
    });
}
