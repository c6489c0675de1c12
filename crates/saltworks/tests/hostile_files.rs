//! Files of weights made to harm: each is refused with what is wrong, nothing in it is carried out,
//! and no more memory is taken than files of its length may take.

use saltworks::files::write_whole;
use saltworks::weights::dialect::stable_pretraining_renamed;
use saltworks::weights::{File, Hint, Listing, ModelFile, load};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Memory that this whole process may ever take; tests here hold up to 300 MB themselves.
const MOST_MEMORY_KIB: u64 = 700_000;

/// One file at a time, so that what is measured is one file's.
static TURN: Mutex<()> = Mutex::new(());

/// What `load` says of a file; `inspect` must not fare worse.
fn read(bytes: &[u8]) -> Result<File, String> {
    // A test that failed has said so.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    write_whole(&path, bytes).unwrap();
    let _ = Listing::read(&path);
    let read = load(&path).map_err(|error| error.to_string());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        let peak: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < MOST_MEMORY_KIB, "{peak} KiB of memory were taken");
    }
    read
}

#[track_caller]
fn refused(bytes: &[u8], words: &str) {
    let message = read(bytes).expect_err("a hostile file is refused");
    assert!(message.contains("a.pt") && message.contains(words), "{message}");
}

/// An archive of stored records.
fn archive(records: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut all, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in records {
        let mut common = vec![0; 12];
        common.extend([0; 4]); // torch's "no checksum"
        common.extend([bytes.len() as u32, bytes.len() as u32].map(u32::to_le_bytes).concat());
        common.extend((name.len() as u32).to_le_bytes());
        let header = (all.len() as u32).to_le_bytes();
        // Version, flags, method, time and date are 0 in both headers; the directory's has two
        // bytes more before them.
        let local = [b"PK\x03\x04", &common[2..], name.as_bytes(), bytes].concat();
        directory.extend([b"PK\x01\x02", &common[..], &[0; 10], &header, name.as_bytes()].concat());
        all.extend(local);
    }
    let numbers = [directory.len() as u32, all.len() as u32].map(u32::to_le_bytes).concat();
    let count = (records.len() as u16).to_le_bytes();
    all.extend(directory);
    all.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &numbers, &[0, 0]].concat());
    all
}

/// A file of torch's with this pickle and one storage `0` of so many bytes.
fn torch(pickle: &[u8], storage_bytes: usize) -> Vec<u8> {
    archive(&[("x/data.pkl", pickle), ("x/data/0", &vec![0; storage_bytes])])
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn number(number: u64) -> Vec<u8> {
    [b"\x8A\x08", &number.to_le_bytes()[..]].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", items.concat().as_slice(), b"t"].concat()
}

fn numbers(list: &[u64]) -> Vec<u8> {
    tuple(&list.iter().map(|&item| number(item)).collect::<Vec<_>>())
}

fn call(function: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    [b"c", function.as_bytes(), b"\n", &tuple(arguments), b"R"].concat()
}

/// A tensor over the storage `key` of `values` values.
fn tensor(class: &str, key: &str, values: u64, view: (u64, &[u64], &[u64])) -> Vec<u8> {
    let class = [b"c", class.as_bytes(), b"\n"].concat();
    let id = [text("storage"), class, text(key), text("cpu"), number(values)];
    let storage = [tuple(&id), b"Q".to_vec()].concat();
    let (offset, shape, strides) = view;
    let arguments = [storage, number(offset), numbers(shape), numbers(strides)];
    call("torch._utils\n_rebuild_tensor_v2", &arguments)
}

fn floats(values: u64, view: (u64, &[u64], &[u64])) -> Vec<u8> {
    tensor("torch\nFloatStorage", "0", values, view)
}

/// A dictionary of values under names.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> =
        entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"}(", entries.as_slice(), b"u"].concat()
}

fn whole(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

/// A file of the tensor `w`, which is this.
fn with(w: Vec<u8>, storage_bytes: usize) -> Vec<u8> {
    torch(&whole(&dict(&[("w", w)])), storage_bytes)
}

#[test]
fn nothing_is_ever_called() {
    let folder = tempfile::tempdir().unwrap();
    let proof = folder.path().join("called");
    let shell = || text(&format!("touch {}", proof.display()));
    let system = || call("posix\nsystem", &[shell()]);
    refused(&torch(&whole(&system()), 4), "an object of posix.system, expected a dictionary");
    let from_type = call(
        "torch._tensor\n_rebuild_from_type_v2",
        &[b"cposix\nsystem\n".to_vec(), b"N".to_vec(), tuple(&[shell()]), b"N".to_vec()],
    );
    refused(&with(from_type, 4), "tensor w is made by _rebuild_from_type_v2");
    let id = [text("storage"), b"cposix\nsystem\n".to_vec(), text("0"), shell(), number(1)];
    let storage = [tuple(&id), b"Q".to_vec()].concat();
    let arguments = [storage, number(0), numbers(&[1]), numbers(&[1])];
    let of_system = call("torch._utils\n_rebuild_tensor_v2", &arguments);
    refused(&with(of_system, 4), "tensor w is made by _rebuild_tensor_v2");
    // Beside tensors such objects are left out.
    let weight = floats(1, (0, &[1], &[1]));
    let beside = dict(&[("evil", system()), ("w", weight)]);
    let file = read(&torch(&whole(&beside), 4)).unwrap();
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["w"]);
    assert!(!proof.exists());
}

#[test]
fn a_tensor_never_reaches_beyond_its_storage_nor_grows() {
    let cases: [(u64, &[u64], &[u64]); 10] = [
        (1, &[4], &[1]),
        (0, &[5], &[1]),
        (0, &[2, 2], &[3, 1]),
        (u64::MAX >> 1, &[1], &[1]),
        (0, &[2], &[u64::MAX >> 1]),
        (0, &[3, 3], &[u64::MAX >> 1, u64::MAX >> 1]),
        // A terabyte of one value.
        (0, &[1 << 20, 1 << 20], &[0, 0]),
        (0, &[8], &[0]),
        (0, &[1 << 62, 1 << 62], &[1, 1]),
        (0, &[0, 1 << 62, 1 << 62], &[1, 1, 1]),
    ];
    for view in cases {
        refused(&with(floats(4, view), 16), "tensor w is [");
    }
    refused(&with(floats(4, (0, &[2, 2], &[1])), 16), "tensor w is made by _rebuild_tensor_v2");
    let axes = vec![1; 100];
    refused(&with(floats(4, (0, &axes, &axes)), 16), "tensor w is made by _rebuild_tensor_v2");
    assert!(read(&with(floats(4, (1, &[1, 3], &[9, 1])), 16)).is_ok());
}

#[test]
fn a_storage_must_be_as_long_as_stated_and_of_a_known_type() {
    let view = (0, &[4][..], &[1][..]);
    refused(&with(floats(4, view), 15), "x/data/0 has 15 bytes, expected 16");
    refused(&with(floats(1 << 62, view), 16), "tensor w is made by");
    refused(&with(floats(1 << 40, view), 16), "x/data/0 has 16 bytes, expected 4398046511104");
    let elsewhere = tensor("torch\nFloatStorage", "../../1", 4, view);
    refused(&with(elsewhere, 16), "lacks x/data/../../1");
    let quantised = tensor("torch\nQInt8Storage", "0", 4, view);
    refused(&with(quantised, 4), "tensor w is made by _rebuild_tensor_v2 from a storage");
}

#[test]
fn tensors_that_share_a_storage_take_no_more_than_four_times_the_file() {
    let values = 1 << 18;
    let many = |view: fn(u64) -> (u64, u64)| {
        let named = (0..3000_u64).map(|i| {
            let (offset, len) = view(i);
            (format!("w{i}"), floats(values, (offset, &[len], &[1])))
        });
        let named: Vec<_> = named.collect();
        let entries: Vec<_> = named.iter().map(|(n, value)| (n.as_str(), value.clone())).collect();
        torch(&whole(&dict(&entries)), 4 << 18)
    };
    refused(&many(|i| (i, (1 << 18) - i)), "share storages in a file of");
    // The same tensor under many names is one.
    assert_eq!(read(&many(|_| (0, 1 << 18))).unwrap().tensors.len(), 3000);
}

#[test]
fn values_that_hold_each_other_are_walked_to_a_limit() {
    // Each dictionary holds the one before twice: 2^25 paths.
    let mut doubling = b"\x80\x02}".to_vec();
    for _ in 0..25 {
        let entries = [text("a"), b"h\0".to_vec(), text("b"), b"h\0".to_vec()].concat();
        doubling.extend([b"q\x000}(", entries.as_slice(), b"u"].concat());
    }
    doubling.push(b'.');
    refused(&torch(&doubling, 4), "has more names than any model");
    let inside_itself = [b"\x80\x02}q\0", &text("a")[..], b"h\0s."].concat();
    refused(&torch(&inside_itself, 4), "holds no tensors by name");
    let mut deep = floats(1, (0, &[1], &[1]));
    (0..40).for_each(|_| deep = dict(&[("a", deep.clone())]));
    refused(&torch(&whole(&deep), 4), "nests dictionaries deeper than 32");
    let twice = dict(&[
        ("a.b", floats(1, (0, &[1], &[1]))),
        ("a", dict(&[("b", floats(1, (0, &[1], &[1])))])),
    ]);
    refused(&torch(&whole(&twice), 4), "names two tensors a.b");
}

#[test]
fn a_pickle_has_limits() {
    let of = |body: Vec<u8>| torch(&whole(&body), 4);
    refused(&of(vec![b'('; 5_000]), "nests deeper than 4096");
    refused(&of(vec![b'N'; 5_000_000]), "has more than 4194304 instructions");
    refused(&of(b"N\x85".repeat(2_500_000)), "instructions");
    refused(&of(b")\x94".repeat(2_500_000)), "instructions");
    let kept: Vec<u8> =
        (0..2_500_000_u32).flat_map(|i| [b"]r", &i.to_le_bytes()[..]].concat()).collect();
    refused(&of(kept), "instructions");
    // A list in a list in a list, without brackets.
    refused(&of([vec![b']'; 1_000_000], vec![b'a'; 999_999]].concat()), "holds a list");
    refused(&of(b"X\xFF\xFF\xFF\xFFabc".to_vec()), "ends early");
    refused(&of(b"\x8D\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFFabc".to_vec()), "ends early");
    refused(&of(b"Nr\xFF\xFF\xFF\xFF0j\x01\0\0\0".to_vec()), "recalls value 1");
    for body in [&b"0"[..], b"t", b"R", b"(R", b"s", b"}Na", b"\x93", b"q\0", b"b", b"Q", b"N(0"] {
        refused(&of(body.to_vec()), "its pickle, at byte");
    }
    refused(&of(b"cos\nsystem\nI1\n".to_vec()), "the instruction 0x49, which torch never writes");
    refused(&torch(b"\x80\x07N.", 4), "has protocol 7, expected 2 to 5");
    refused(&torch(&whole(&vec![0; 70 << 20]), 4), "at most 67108864 are read");
}

#[test]
fn archives_that_are_not_as_torch_writes_them_are_refused() {
    let good = with(floats(1, (0, &[1], &[1])), 4);
    assert!(read(&good).is_ok());
    let directory = good.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    let mut deflated = good.clone();
    deflated[directory + 10] = 8;
    refused(&deflated, "x/data.pkl is compressed, which torch.save never does");
    let mut beyond = good.clone();
    beyond[directory + 42..directory + 46].fill(0x7F);
    refused(&beyond, "x/data.pkl: lies outside the archive or overlaps another member");
    let pickle = whole(&dict(&[]));
    refused(
        &archive(&[("a/data.pkl", &pickle), ("b/data.pkl", &pickle)]),
        "several files data.pkl",
    );
    refused(&archive(&[("a/x.npy", b"x")]), "without data.pkl");
    let big = [("a/data.pkl", &pickle[..]), ("a/byteorder", b"big")];
    refused(&archive(&big), "not written on a little-endian machine");
    let script = [("a/data.pkl", &pickle[..]), ("a/constants.pkl", b"")];
    refused(&archive(&script), "is a TorchScript archive, which holds code");
    refused(&archive(&[("a/data.pkl", &pickle)]), "holds no tensors by name");
    refused(b"PK\x03\x04", "is not a whole zip archive");
}

fn safetensors(header: &str, bytes: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes]].concat()
}

#[test]
fn safetensors_headers_have_limits() {
    let one = |shape: &str, place: &str| {
        format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{place}}}}}")
    };
    assert!(read(&safetensors(&one("[2]", "[0,8]"), 8)).is_ok());
    for header in [
        one("[2]", "[0,18446744073709551615]"),
        one("[4611686018427387904,4]", "[0,0]"),
        one("[2]", "[8,0]"),
        one("[1]", "[0,8]"),
        one("[2]", "[4,12]"),
        "{\"a\":".to_owned() + &"[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        "{\"a\":1}".to_owned(),
    ] {
        refused(&safetensors(&header, 8), "is not a whole safetensors file");
    }
    let two = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\
               \"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    refused(&safetensors(two, 8), "is not a whole safetensors file");
    // Sixteen million numbers, and a header that is longer than any.
    let long = one(&format!("[{}1]", "1,".repeat(7 << 20)), "[0,8]");
    refused(&safetensors(&long, 8), "is not a whole safetensors file");
    refused(&safetensors(&" ".repeat(70 << 20), 8), "expected at most 16777216");
    refused(&[0xFF; 64], "expected at most 16777216");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let message = load(Path::new("no/such.pt")).unwrap_err().to_string();
    assert!(message.contains("cannot read no/such.pt"), "{message}");
}

/// Everything that is done with a model's file, none of which may panic or take memory for claims.
fn used(path: &Path) -> Result<(), String> {
    let text = |error: saltworks::weights::Error| error.to_string();
    if let Ok(listing) = Listing::read(path) {
        let _ = listing.contents(path, None, None);
    }
    let model = ModelFile::open(path, None).map_err(text)?;
    let hint = Hint { heads: Some((32, 2)), grid: None, eps: None, image: None };
    let _ = stable_pretraining_renamed(&model.tensors);
    let whole = model.check_whole(hint);
    for part in [None, Some("teacher")] {
        let _ = (model.width(part), model.sizes(part, hint), model.normalize(3));
        let loaded = model.load_encoder(part, hint, None);
        if part.is_none() {
            loaded.map_err(text)?;
        }
    }
    whole.map_err(text)
}

#[test]
fn claims_of_a_small_file_take_no_memory() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let of = ModelFile::open(&golden.join("dialect_facebook.pth"), None).unwrap();
    let tensors: Vec<_> = of.encoder(None).unwrap().into_iter().collect();
    let hint = Hint { heads: Some((32, 2)), grid: None, eps: None, image: None };
    let spec = of.sizes(None, hint).unwrap().spec;
    let sizes = |image: usize, depth: usize, registers: usize| {
        let image = [1, image, image];
        let claimed = saltworks::model::VitSpec { image, depth, registers, ..spec.clone() };
        serde_json::to_string(&claimed).unwrap()
    };
    let side = spec.image[1];
    for (text, words) in [
        (sizes(side, spec.depth, 0), ""),
        (sizes(1 << 16, spec.depth, 0), "pos_embed is"),
        (sizes(side, 1024, 0), "missing blocks."),
        (sizes(side, spec.depth, 1024), "missing reg_token"),
        (sizes(1 << 40, spec.depth, 0), "image size"),
    ] {
        let metadata = [("model".to_owned(), text)].into();
        saltworks::weights::save(&path, &tensors, &metadata).unwrap();
        match used(&path) {
            Ok(()) => assert_eq!(words, ""),
            Err(message) => assert!(!words.is_empty() && message.contains(words), "{message}"),
        }
    }
}

#[test]
fn no_shape_of_any_tensor_makes_a_model_panic() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let shapes: [&[usize]; 7] =
        [&[], &[0], &[1], &[1 << 50, 0], &[0, 1 << 50, 1 << 13, 1], &[1, 0, 32], &[1; 8]];
    for file in ["dialect_facebook.pth", "dialect_spt_salt.ckpt", "dialect_hf/model.safetensors"] {
        let whole = load(&golden.join(file)).unwrap().tensors;
        for name in whole.keys() {
            for shape in shapes {
                let mut tensors = whole.clone();
                let changed = engine::Tensor::zeros(shape);
                let before = tensors.insert(name.clone(), changed).unwrap();
                let list: Vec<_> = tensors.into_iter().collect();
                saltworks::weights::save(&path, &list, &[].into()).unwrap();
                let used = used(&path);
                let same = before.shape() == shape;
                let elsewhere = ["decoder", "pooler", "mask_token", "query_proj", "predictor.pos"];
                let left_out = elsewhere.iter().any(|part| name.contains(part))
                    || name.contains("encoder.patch_embed")
                    || name.contains("student.patch_embed")
                    || name.contains("backbone.patch_embed");
                assert!(used.is_err() || same || left_out, "{file}: {name} as {shape:?} is taken");
            }
        }
    }
}

#[test]
fn many_views_of_one_storage_take_little_memory() {
    let keep = |value: &[u8], key: u8| [value, &[b'q', key]].concat();
    let class = keep(b"ctorch._utils\n_rebuild_tensor_v2\n", 0);
    let id = tuple(&[
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        number(1),
    ]);
    let storage = [id, b"Q".to_vec()].concat();
    let view = tuple(&[storage, number(0), numbers(&[1; 8]), numbers(&[1; 8])]);
    let body = [class, keep(&view, 1), b"h\0h\x01R".repeat(1 << 20)].concat();
    refused(&torch(&whole(&body), 4), "has more than 262144 tensors");
}

#[test]
fn negated_views_are_refused() {
    let negated = |metadata: Vec<u8>| {
        let storage = [
            tuple(&[
                text("storage"),
                b"ctorch\nFloatStorage\n".to_vec(),
                text("0"),
                text("cpu"),
                number(1),
            ]),
            b"Q".to_vec(),
        ]
        .concat();
        let rest = [b"\x89".to_vec(), b"}".to_vec(), metadata];
        let view = [storage, number(0), numbers(&[1]), numbers(&[1])];
        call("torch._utils\n_rebuild_tensor_v2", &[&view[..], &rest[..]].concat())
    };
    assert!(read(&with(negated(b"}".to_vec()), 4)).is_ok());
    let neg = [b"}(".to_vec(), text("neg"), b"\x88u".to_vec()].concat();
    refused(&with(negated(neg), 4), ".resolve_neg()");
}
