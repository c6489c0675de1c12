use super::*;
use crate::data::open;
use crate::fuzz;
use crate::zip::tests::archive;

/// As numpy.save writes it.
fn npy(kind: &str, order: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}").into_bytes();
    header.resize((header.len() + 11).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\0", &length[..], &header, bytes].concat()
}

fn opened(name: &str, bytes: &[u8]) -> Result<std::sync::Arc<dyn Source>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::io::Write::write_all(&mut File::create(&path).unwrap(), bytes).unwrap();
    open(&path, [0; 3])
}

#[test]
fn every_layout_gives_the_same_pixels() {
    let bytes: Vec<u8> = (0..24).collect();
    let last = opened("a.npy", &npy("|u1", "False", "(1, 2, 4, 3)", &bytes)).unwrap();
    assert_eq!(last.read(0).unwrap().clip.data, bytes);
    let planes: Vec<u8> = (0..3).flat_map(|c| (0..8).map(move |at| at * 3 + c)).collect();
    let first = opened("a.npy", &npy("|u1", "False", "(1, 3, 2, 4)", &planes)).unwrap();
    assert_eq!(first.read(0).unwrap().clip, last.read(0).unwrap().clip);
    let grey = opened("a.npy", &npy("|u1", "False", "(3, 2, 4)", &bytes)).unwrap();
    assert_eq!(grey.read(2).unwrap().clip.data, bytes[16..]);
    assert!(grey.describe().ends_with("a.npy: 3 images of 2 x 4 x 1, no labels"));
}

#[test]
fn unusable_arrays_are_refused_with_advice() {
    let refused = |kind: &str, order: &str, shape: &str, advice: &str| {
        let message =
            opened("a.npy", &npy(kind, order, shape, &[0; 27])).err().unwrap().to_string();
        assert!(message.contains(advice), "{message}");
    };
    refused("<f4", "False", "(1, 3, 3)", "astype(\"uint8\")");
    refused("|u1", "True", "(3, 3, 3)", "ascontiguousarray");
    refused("|u1", "False", "(3, 3, 1, 3)", "channels may come first or last");
    refused("|u1", "False", "(3, 9)", "expected [N, H, W]");
    refused("|u1", "False", "(3, 3, 4)", "expected 164 for [3, 3, 4]");
    refused("|u1", "False", "(0, 3, 3)", "at least one image");
    refused("|u1", "False", "(99999999999, 99999999999, 3)", "at least one image");
    refused("|u1", "Maybe", "(3, 3, 3)", "numpy.save");
    assert!(opened("a.npy", b"\x93NUMPY").err().unwrap().to_string().contains("ends inside"));
}

#[test]
fn an_archive_holds_images_and_labels() {
    let images = npy("|u1", "False", "(2, 1, 2)", &[1, 2, 3, 4]);
    let labels = |kind, bytes: &[u8]| npy(kind, "False", "(2,)", bytes);
    let long: Vec<u8> = [5_i64, -1].iter().flat_map(|label| label.to_le_bytes()).collect();
    let with = |labels: &[u8]| opened("a.npz", &archive(&[("y.npy", labels), ("x.npy", &images)]));
    let source = with(&labels("<i8", &long)).unwrap();
    assert_eq!(
        (source.read(1).unwrap().clip.data, source.label(0), source.label(1)),
        (vec![3, 4], 5, -1)
    );
    assert_eq!(with(&labels("|u1", &[0, 200])).unwrap().label(1), 200);
    let message = with(&labels("<f8", &long)).err().unwrap().to_string();
    assert!(message.contains("a.npz/y.npy: holds labels \"<f8\" [2], expected whole"), "{message}");
    let message = with(&npy("|u1", "False", "(3,)", &[1; 3])).err().unwrap().to_string();
    assert!(message.contains("one for each of the 2 images"), "{message}");
    let message = opened("a.npz", &archive(&[("faces.npy", &images)])).err().unwrap().to_string();
    assert!(message.contains("looked for images, x, x_train, train_images, arr_0, found faces"));
}

#[test]
fn no_header_makes_the_reader_panic() {
    let seed = npy("|u1", "False", "(2, 1, 2)", &[1, 2, 3, 4]);
    fuzz::mutate("npy", &seed, |bytes| {
        if let Ok((layout, images)) = whole_images(bytes, Path::new("a.npy")) {
            assert_eq!(layout.len * layout.size(), images.len());
        }
        let _ = whole_labels(bytes, 2, Path::new("a.npy"));
    });
}
