use super::*;
use crate::data::source::OpenOptions;
use crate::data::{Clip, open};
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

fn clips(name: &str, bytes: &[u8]) -> Result<std::sync::Arc<dyn Source>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::io::Write::write_all(&mut File::create(&path).unwrap(), bytes).unwrap();
    open(&path, OpenOptions { clips: true, ..OpenOptions::default() })
}

#[test]
fn every_layout_of_clips_gives_the_same_frames() {
    let bytes: Vec<u8> = (0..48).collect();
    let last = clips("a.npy", &npy("|u1", "False", "(1, 2, 2, 4, 3)", &bytes)).unwrap();
    let clip = last.read(0).unwrap().clip;
    assert_eq!((clip.frames, clip.height, clip.width, clip.channels), (2, 2, 4, 3));
    assert_eq!(clip.data, bytes);
    assert!(last.describe().ends_with("a.npy: 1 clips of 2 x 2 x 4 x 3, no labels"));
    let plane = |t: u8, c: u8| (0..8).map(move |at| 24 * t + 3 * at + c);
    let planes: Vec<u8> = (0..2).flat_map(|t| (0..3).flat_map(move |c| plane(t, c))).collect();
    let first = clips("a.npy", &npy("|u1", "False", "(1, 2, 3, 2, 4)", &planes)).unwrap();
    assert_eq!(first.read(0).unwrap().clip, clip);
    let grey = clips("a.npy", &npy("|u1", "False", "(2, 3, 2, 4)", &bytes)).unwrap();
    let second = grey.read(1).unwrap().clip;
    assert_eq!((second.frames, &second.data[..]), (3, &bytes[24..]));
    let remarks = grey.notes().remarks;
    assert!(remarks.len() == 1 && remarks[0].contains("time first"), "{remarks:?}");
    let still = clips("a.npy", &npy("|u1", "False", "(6, 2, 4)", &bytes)).unwrap();
    assert_eq!(still.read(5).unwrap().clip, Clip::image(2, 4, 1, bytes[40..].to_vec()));
}

#[test]
fn an_array_of_clips_is_refused_where_images_are_wanted_and_says_why() {
    let array = npy("|u1", "False", "(1, 2, 2, 4, 3)", &[0; 48]);
    let message = opened("a.npy", &array).err().unwrap().to_string();
    assert!(message.contains("that of clips. Set data.frames"), "{message}");
    let flat = npy("|u1", "False", "(48,)", &[0; 48]);
    let message = clips("a.npy", &flat).err().unwrap().to_string();
    assert!(message.contains("expected clips [N, T, H, W]"), "{message}");
}

/// Versions 2 and 3 have four bytes for the header's length (numpy/lib/format.py).
#[test]
fn all_versions_of_headers_are_read() {
    let bytes: Vec<u8> = (0..24).collect();
    let first = npy("|u1", "False", "(1, 2, 4, 3)", &bytes);
    for version in [2, 3] {
        let length = [&first[8..10], &[0; 2]].concat();
        let array = [b"\x93NUMPY", &[version, 0][..], &length, &first[10..]].concat();
        let source = opened("a.npy", &array).unwrap();
        assert_eq!(source.read(0).unwrap().clip.data, bytes, "version {version}");
    }
    let next = [&first[..6], &[4], &first[7..]].concat();
    let message = opened("a.npy", &next).err().unwrap().to_string();
    assert!(message.contains("a NumPy array of format 4, expected 1 to 3"), "{message}");
}

#[test]
fn unusable_arrays_are_refused_with_advice() {
    let refused = |kind: &str, order: &str, shape: &str, advice: &str| {
        let message =
            opened("a.npy", &npy(kind, order, shape, &[0; 27])).err().unwrap().to_string();
        assert!(message.contains(advice), "{message}");
    };
    refused("|b1", "False", "(3, 3, 3)", "astype(\"uint8\")");
    refused("<c8", "False", "(1, 3, 3)", "kind \"<c8\", expected whole numbers");
    refused("|u1", "True", "(3, 3, 3)", "ascontiguousarray");
    refused("|u1", "False", "(3, 3, 1, 3)", "has the shape [3, 3, 1, 3], expected [N, H, W]");
    refused("|u1", "False", "(1, 5, 9, 5)", "the smaller one of the first and the last side");
    refused("|u1", "False", "(3, 9)", "expected [N, H, W]");
    refused("|u1", "False", "(3, 3, 4)", "expected 164 for [3, 3, 4]");
    refused("|u1", "False", "(0, 3, 3)", "at least one image");
    refused("|u1", "False", "(99999999999, 99999999999, 3)", "at least one image");
    refused("|u1", "Maybe", "(3, 3, 3)", "numpy.save");
    assert!(opened("a.npy", b"\x93NUMPY").err().unwrap().to_string().contains("ends inside"));
}

#[test]
fn twelve_bands_are_read_in_either_order() {
    let bytes: Vec<u8> = (0..12 * 16).collect();
    let first = opened("a.npy", &npy("|u1", "False", "(1, 12, 1, 16)", &bytes)).unwrap();
    let clip = first.read(0).unwrap().clip;
    assert_eq!((clip.height, clip.width, clip.channels), (1, 16, 12));
    assert_eq!(clip.data[..13], [0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 1]);
    let last = opened("a.npy", &npy("|u1", "False", "(1, 16, 1, 12)", &clip.data)).unwrap();
    assert_eq!(last.read(0).unwrap().clip.data, clip.data);
    // Hyperspectral patches, and the same with channels first.
    let shape = |shape: &str| {
        let file = npy("|u1", "False", shape, &[7; 5 * 5 * 20]);
        let clip = opened("a.npy", &file).unwrap().read(0).unwrap().clip;
        [clip.height, clip.width, clip.channels]
    };
    assert_eq!((shape("(1, 5, 5, 20)"), shape("(1, 20, 5, 5)")), ([5, 5, 20], [5, 5, 20]));
    assert_eq!((last.info(0).unwrap().channels, last.info(0).unwrap().is_deep), (12, false));
}

#[test]
fn deep_arrays_are_read_with_a_stated_range() {
    let numbers = [0_u16, 2048, 4095, 65_535];
    let bytes: Vec<u8> = numbers.iter().flat_map(|value| value.to_be_bytes()).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let write = |bytes: &[u8]| {
        std::io::Write::write_all(&mut File::create(&path).unwrap(), bytes).unwrap();
    };
    let shown = |range: Option<[f64; 2]>| {
        let decoding = Decoding { depth: range.map(Into::into), ..Decoding::default() };
        open(&path, decoding).unwrap().read(0).map(|sample| sample.clip.data)
    };
    write(&npy(">u2", "False", "(1, 2, 2)", &bytes));
    assert_eq!(shown(Some([0.0, 4095.0])).unwrap(), [0, 128, 255, 255]);
    assert_eq!(shown(None).unwrap(), [0, 8, 16, 255]);
    let floats: Vec<u8> = [-1_f32, 0.0, 1.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    write(&npy("<f4", "False", "(1, 2, 2)", &floats));
    assert_eq!(shown(Some([-1.0, 1.0])).unwrap(), [0, 128, 255, 255]);
    assert!(shown(None).unwrap_err().to_string().contains("data.depth = [black, white]"));
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
    assert_eq!(source.notes().left_alone, [""; 0]);
    assert_eq!(with(&labels("|u1", &[0, 200])).unwrap().label(1), 200);
    // As Keras' sets have them.
    let members = ["x_train.npy", "x_test.npy", "y_test.npy"].map(|name| (name, &*images));
    let parts = opened("a.npz", &archive(&members)).unwrap();
    assert_eq!(parts.notes().left_alone, ["other arrays: x_test.npy, y_test.npy"]);
    let message = with(&labels("<f8", &long)).err().unwrap().to_string();
    assert!(message.contains("a.npz/y.npy: holds labels \"<f8\" [2], expected whole"), "{message}");
    let message = with(&npy("|u1", "False", "(3,)", &[1; 3])).err().unwrap().to_string();
    assert!(message.contains("one for each of the 2 images"), "{message}");
    let message = opened("a.npz", &archive(&[("faces.npy", &images)])).err().unwrap().to_string();
    assert!(
        message.contains("looked for images, clips, x, x_train, train_images, arr_0, found faces")
    );
}

#[test]
fn no_header_makes_the_reader_panic() {
    let seed = npy("|u1", "False", "(2, 1, 2)", &[1, 2, 3, 4]);
    fuzz::mutate("npy", &seed, |bytes| {
        if let Ok((layout, images)) = whole_images(bytes.to_vec(), Path::new("a.npy"), false) {
            assert!(matches!(images, Bytes::Memory(all, offset)
                if layout.len * layout.size() == all.len() - offset));
        }
        let _ = whole_labels(bytes, 2, Path::new("a.npy"));
    });
}
