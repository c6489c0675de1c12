//! Weights as stable-pretraining, transformers and facebookresearch/mae leave them, and back:
//! tests/golden/dialect_*, made by make_dialects.py.

use engine::check::{assert_close, rel_l2};
use engine::ops::Images;
use engine::{Tape, Tensor};
use saltworks::mask::Grid;
use saltworks::model::{Encoder, Outputs, Patches, VitSpec};
use saltworks::weights::dialect::{self, Dialect};
use saltworks::weights::{self, Hint, ModelFile, NamedTensors};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// Two heads of 16: nothing but `config.json` tells of them.
const HINT: Hint = Hint { heads: Some((32, 2)), grid: None, eps: None, image: None };

/// The encoder's tokens [B (P + N), D] of the golden images.
fn tokens(encoder: &Encoder, features: &NamedTensors) -> Vec<f32> {
    let images = &features["images"];
    let [b, c, h, w] = images.shape() else { panic!("{:?}", images.shape()) };
    let images = Images::f32(images.to_vec(), [*b, *c, 1, *h, *w]).unwrap();
    let tape = Tape::inference();
    encoder.forward(&tape, &images, Patches::All, Outputs::All, None).unwrap().tokens.to_vec()
}

fn features() -> NamedTensors {
    weights::load(&golden("dialect_features.safetensors")).unwrap().tensors
}

#[test]
fn encoders_of_dinov2_give_the_features_that_they_give_in_timm_and_transformers() {
    let features = weights::load(&golden("dialect_dinov2_features.safetensors")).unwrap().tensors;
    for (file, part, wanted, dialect) in [
        ("dialect_dinov2.pth", None, "teacher", Dialect::Dinov2),
        ("dialect_dinov2.pth", Some("student"), "student", Dialect::Dinov2),
        ("dialect_hf_dinov2", None, "hf", Dialect::HuggingFace),
    ] {
        let model = ModelFile::open(&golden(file), part).unwrap();
        assert_eq!(model.dialect, dialect, "{file}");
        let loaded = model.load_encoder(None, HINT, None).unwrap();
        let got = tokens(&loaded.encoder, &features);
        assert_close(wanted, &got, &features[wanted].to_host(), rel_l2(1e-5), "f32, two blocks");
        let told = loaded.notes.join("; ");
        let other = "weights are those of teacher.backbone. The file also holds student.backbone";
        assert_eq!(told.contains(other), file.ends_with("pth") && part.is_none(), "{told}");
    }
}

#[test]
fn a_model_in_several_files_is_joined_by_its_index_alone() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden("dialect_hf_dinov2")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    // Another model beside them.
    std::fs::copy(
        golden("dialect_hf/model.safetensors"),
        folder.path().join("model-00004-of-00004.safetensors"),
    )
    .unwrap();
    let path = folder.path().join("model.safetensors.index.json");
    let of = |path: &Path| ModelFile::open(path, None).unwrap().encoder(None).unwrap();
    let [joined, wanted] = [of(folder.path()), of(&golden("dialect_hf_dinov2"))];
    assert_eq!(joined.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    assert!(joined.iter().all(|(name, tensor)| tensor.to_vec() == wanted[name].to_vec()));
    let text = std::fs::read_to_string(&path).unwrap();
    // An index under another name.
    std::fs::copy(&path, folder.path().join("again.bin")).unwrap();
    // As in transformers, older weights beside an index are not read.
    std::fs::copy(golden("dialect_facebook.pth"), folder.path().join("pytorch_model.bin")).unwrap();
    assert_eq!(ModelFile::find(folder.path()).unwrap(), path);
    for (from, to, words) in [
        ("model-00003-of-00003", "../model", "expected a file beside the index"),
        ("model-00003-of-00003", "model-00001-of-00003", "which lacks it"),
        ("model-00003-of-00003", "model-00009-of-00009", "cannot read"),
        ("model-00003-of-00003.safetensors", "model.safetensors.index.json", "files of weights"),
        ("model-00003-of-00003.safetensors", "again.bin", "files of weights"),
        ("weight_map", "weights", "no index of a model in several files"),
    ] {
        saltworks::files::write_whole(&path, text.replace(from, to).as_bytes()).unwrap();
        let message = ModelFile::open(&path, None).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn encoders_of_every_dialect_give_the_features_they_gave_at_home() {
    let features = features();
    for (file, part, wanted, dialect) in [
        ("dialect_spt_mae.ckpt", None, "spt_mae", Dialect::StablePretraining),
        ("dialect_spt_salt.ckpt", None, "spt_salt", Dialect::StablePretraining),
        ("dialect_spt_salt.ckpt", Some("teacher"), "spt_salt_teacher", Dialect::StablePretraining),
        ("dialect_facebook.pth", None, "facebook", Dialect::Facebook),
        ("dialect_hf", None, "hf", Dialect::HuggingFace),
        ("dialect_hf_mae", None, "hf_mae", Dialect::HuggingFace),
        ("dialect_hf_memory.pt", None, "hf_memory", Dialect::HuggingFace),
    ] {
        let model = ModelFile::open(&golden(file), None).unwrap();
        assert_eq!(model.dialect, dialect, "{file}");
        // A folder of transformers needs no hint.
        let hint = if model.path().ends_with("model.safetensors") { Hint::default() } else { HINT };
        let encoder = model.load_encoder(part, hint, None).unwrap().encoder;
        let got = tokens(&encoder, &features);
        assert_close(wanted, &got, &features[wanted].to_host(), rel_l2(1e-5), "f32, two blocks");
    }
}

/// What a dialect's writer gives, against the names and values of the file it was read from.
fn assert_same(wanted: &NamedTensors, written: Vec<(String, Tensor)>, without: &[&str]) {
    let written: NamedTensors = written.into_iter().collect();
    let names = |named: &NamedTensors| -> BTreeSet<String> { named.keys().cloned().collect() };
    let left: BTreeSet<String> = names(wanted)
        .into_iter()
        .filter(|name| !without.iter().any(|w| name.contains(w)))
        .collect();
    assert_eq!(names(&written), left);
    for name in left.iter().filter(|name| !name.contains("query_proj")) {
        assert_eq!(written[name].shape(), wanted[name].shape(), "{name}");
        let close = if name.ends_with("pos_embed") { 1e-6 } else { 0.0 };
        let [got, want] = [&written, wanted].map(|named| named[name].to_vec());
        assert_close(name, &got, &want, rel_l2(close), "copied; fixed tables are made again");
    }
}

/// The tensors of a file, without the words before their names.
fn at_home(file: &Path, before: &str) -> NamedTensors {
    let all = weights::load(file).unwrap().tensors.into_iter();
    all.map(|(name, tensor)| (name.strip_prefix(before).unwrap().to_owned(), tensor)).collect()
}

#[test]
fn every_dialect_is_written_as_it_was_read() {
    let grid = Grid { t: 1, h: 4, w: 4 };
    let file = golden("dialect_spt_mae.ckpt");
    let mae = ModelFile::open(&file, None).unwrap();
    let written = dialect::stable_pretraining(&mae.tensors, grid);
    assert_same(&at_home(&file, "state_dict."), written, &[]);

    let file = golden("dialect_spt_salt.ckpt");
    let salt = ModelFile::open(&file, None).unwrap();
    let written = dialect::stable_pretraining(&salt.tensors, grid);
    assert!(written.iter().any(|(name, _)| name == "predictor.query_proj.weight"));
    assert_same(&at_home(&file, "state_dict.model."), written, &[]);

    let hf = ModelFile::open(&golden("dialect_hf"), None).unwrap();
    let encoder = hf.encoder(None).unwrap();
    let at_home = weights::load(&golden("dialect_hf/model.safetensors")).unwrap().tensors;
    assert_same(&at_home, dialect::hugging_face(&encoder), &["pooler"]);
    let config = dialect::hugging_face_config(&hf.sizes(None, Hint::default()).unwrap().spec);
    let at_home = std::fs::read_to_string(golden("dialect_hf/config.json")).unwrap();
    let at_home: serde_json::Value = serde_json::from_str(&at_home).unwrap();
    for (key, value) in config.unwrap().as_object().unwrap() {
        assert_eq!(*value, at_home[key], "{key}");
    }
}

#[test]
fn what_is_missing_or_too_much_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let mut named =
        ModelFile::open(&golden("dialect_facebook.pth"), None).unwrap().encoder(None).unwrap();
    named.remove("blocks.1.attn.proj.bias");
    named.insert("blocks.0.attn.rel_pos".to_owned(), Tensor::zeros(&[3]));
    named.insert("head.weight".to_owned(), Tensor::zeros(&[5, 32]));
    let list: Vec<_> = named.into_iter().collect();
    weights::save(&path, &list, &[].into()).unwrap();
    let model = ModelFile::open(&path, None).unwrap();
    assert_eq!(model.left_out, ["head.weight"]);
    let message = model.load_encoder(None, HINT, None).err().unwrap().to_string();
    for words in ["missing blocks.1.attn.proj.bias", "unexpected blocks.0.attn.rel_pos"] {
        assert!(message.contains(words), "{message}");
    }
    let message = ModelFile::open(&golden("eval.safetensors"), None).unwrap_err().to_string();
    assert!(message.contains("holds no vision transformer"), "{message}");
    let message = model.encoder(Some("teacher")).unwrap_err().to_string();
    assert!(message.contains("holds no teacher; found encoder"), "{message}");
    // Built without some biases: the same function with zeros.
    let whole = ModelFile::open(&golden("dialect_facebook.pth"), None).unwrap();
    let mut named = whole.encoder(None).unwrap();
    named.retain(|name, _| !name.ends_with("attn.qkv.bias"));
    let list: Vec<_> = named.into_iter().collect();
    weights::save(&path, &list, &[].into()).unwrap();
    let loaded = ModelFile::open(&path, None).unwrap().load_encoder(None, HINT, None).unwrap();
    assert!(loaded.notes.join("; ").contains("values have no bias, so zeros are added"));
    // As transformers has it, by its config.json alone.
    let mut named = weights::load(&golden("dialect_hf/model.safetensors")).unwrap().tensors;
    named.retain(|name, _| {
        !name.ends_with(".bias")
            || !["query", "key", "value"].iter().any(|part| name.contains(part))
    });
    let hf = folder.path().join("hf");
    std::fs::create_dir(&hf).unwrap();
    let list: Vec<_> = named.into_iter().collect();
    weights::save(&hf.join("model.safetensors"), &list, &[].into()).unwrap();
    let config = std::fs::read_to_string(golden("dialect_hf/config.json")).unwrap();
    for (stated, ends) in [("true", false), ("false", true)] {
        let text = config.replace("\"qkv_bias\": true", &format!("\"qkv_bias\": {stated}"));
        saltworks::files::write_whole(&hf.join("config.json"), text.as_bytes()).unwrap();
        let loaded = ModelFile::open(&hf, None).unwrap().load_encoder(None, Hint::default(), None);
        assert_eq!(loaded.is_ok(), ends, "{stated}");
    }
    // Another kind of encoder, and a type of values that is not read.
    let mut named = whole.encoder(None).unwrap();
    named.retain(|name, _| !name.contains(".mlp."));
    named.insert("blocks.0.mlp.fc1_g.weight".to_owned(), Tensor::zeros(&[64, 32]));
    let list: Vec<_> = named.into_iter().collect();
    weights::save(&path, &list, &[].into()).unwrap();
    let of_file = |path: &Path| {
        let model = ModelFile::open(path, None).unwrap();
        model.load_encoder(None, HINT, None).err().unwrap().to_string()
    };
    let message = of_file(&path);
    assert!(message.contains("It has SwiGLU in place of an MLP"), "{message}");
    let header = "{\"patch_embed.proj.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,1,1,1],\
                  \"data_offsets\":[0,1]}}";
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0]].concat();
    saltworks::files::write_whole(&path, &bytes).unwrap();
    let short = ModelFile::open(&path, None).unwrap();
    let message = short.encoder(None).unwrap_err().to_string();
    assert!(message.contains("patch_embed.proj.weight is F8_E4M3, expected F32"), "{message}");
    // 32 wide: no size of timm's, and no multiple of 64.
    let message = model.load_encoder(None, Hint::default(), None).err().unwrap().to_string();
    assert!(message.contains("how many heads"), "{message}");
}

#[test]
fn a_position_table_is_brought_to_images_of_another_size() {
    let model = ModelFile::open(&golden("dialect_hf"), None).unwrap();
    let loaded = model.load_encoder(None, Hint::default(), Some([1, 48, 24])).unwrap();
    let [from, to] = loaded.resized.unwrap();
    assert_eq!((from, to), (Grid { t: 1, h: 4, w: 4 }, Grid { t: 1, h: 6, w: 3 }));
    assert_eq!(loaded.encoder.spec().image, [1, 48, 24]);
    // The table's values are held against timm's in golden.rs; here it must be the one that is
    // used.
    let table = &model.encoder(None).unwrap()["pos_embed"];
    let want = saltworks::model::position::resample(&table.to_host(), 32, 1, from, to);
    let got = engine::Module::parameters(&loaded.encoder);
    let got = got.iter().find(|(name, _)| name == "pos_embed").unwrap().1.value().to_vec();
    assert_eq!(got, want);
}

/// A file of tensors under these names, and of metadata.
fn saved(folder: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, &str)]) -> PathBuf {
    let path = folder.join("w.safetensors");
    let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    weights::save(&path, tensors, &metadata.collect()).unwrap();
    path
}

/// timm's names and values of a small encoder of this width.
fn timm(width: usize) -> Vec<(String, Tensor)> {
    let spec = VitSpec {
        patch: [1, 8, 8],
        width,
        depth: 1,
        heads: 1,
        hidden: 2 * width,
        ..VitSpec::from_name("vit_tiny_patch16_32").unwrap()
    };
    let parameters = engine::Module::parameters(&Encoder::new(&spec, 0)).into_iter();
    parameters.map(|(name, parameter)| (name, parameter.value())).collect()
}

#[test]
fn sizes_that_no_file_tells_are_asked_for_or_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::open(&saved(folder.path(), &timm(192), &[]), None).unwrap();
    let notes = model.load_encoder(None, Hint::default(), None).unwrap().notes.join("; ");
    assert!(notes.contains("3 heads, images of 32 x 32 pixels"), "{notes}");
    // A multiple of 64, but no width of timm's.
    let model = ModelFile::open(&saved(folder.path(), &timm(128), &[]), None).unwrap();
    let message = model.load_encoder(None, Hint::default(), None).err().unwrap().to_string();
    assert!(message.contains("how many heads the width 128"), "{message}");
    let sizes =
        ModelFile::open(&golden("dialect_hf"), None).unwrap().sizes(None, Hint::default()).unwrap();
    assert_eq!(sizes.guessed, None, "config.json tells all");
}

#[test]
fn a_config_of_another_model_is_refused_and_its_pixels_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        std::fs::copy(golden("dialect_hf").join(name), folder.path().join(name)).unwrap();
    };
    copy("model.safetensors");
    let text = std::fs::read_to_string(golden("dialect_hf/config.json")).unwrap();
    let write = |name: &str, text: &str| {
        saltworks::files::write_whole(&folder.path().join(name), text.as_bytes()).unwrap();
    };
    for (key, value) in [
        ("hidden_act", serde_json::json!("relu")),
        ("layer_norm_eps", serde_json::json!(-0.01)),
        ("model_type", serde_json::json!("deit")),
    ] {
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config[key] = value;
        write("config.json", &config.to_string());
        let message = ModelFile::open(folder.path(), None).unwrap_err().to_string();
        assert!(message.contains(&format!("its config.json has {key}")), "{message}");
    }
    // Of another model of the same kind.
    for (key, value) in [("hidden_size", 768), ("num_hidden_layers", 1), ("patch_size", 4)] {
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config[key] = value.into();
        write("config.json", &config.to_string());
        let model = ModelFile::open(folder.path(), None).unwrap();
        let message = model.sizes(None, Hint::default()).unwrap_err().to_string();
        assert!(message.contains(&format!("a config.json with {key} {value}, but")), "{message}");
    }
    // The default of transformers.
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config.as_object_mut().unwrap().remove("layer_norm_eps");
    write("config.json", &config.to_string());
    let model = ModelFile::open(folder.path(), None).unwrap();
    assert_eq!(model.sizes(None, Hint::default()).unwrap().spec.eps, 1e-12);
    write("config.json", &text);
    assert_eq!(ModelFile::open(folder.path(), None).unwrap().normalize(3).unwrap(), None);
    let processor = r#"{"image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3]}"#;
    write("preprocessor_config.json", processor);
    let loaded = ModelFile::open(folder.path(), None).unwrap();
    let loaded = loaded.load_encoder(None, Hint::default(), None).unwrap();
    assert_eq!(loaded.normalize.unwrap().mean, [0.4, 0.5, 0.6]);
}

#[test]
fn two_tensors_for_one_place_are_refused_unless_they_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = weights::load(&golden("dialect_hf/model.safetensors")).unwrap().tensors;
    let renamed = |factor: f32| -> Vec<(String, Tensor)> {
        let times = |tensor: &Tensor| {
            let values: Vec<f32> = tensor.to_host().iter().map(|x| factor * x).collect();
            Tensor::from_vec(values, tensor.shape())
        };
        let again = file.iter().map(|(name, tensor)| (format!("_orig_mod.{name}"), times(tensor)));
        file.clone().into_iter().chain(again).collect()
    };
    ModelFile::open(&saved(folder.path(), &renamed(1.0), &[]), None).unwrap();
    let message =
        ModelFile::open(&saved(folder.path(), &renamed(2.0), &[]), None).unwrap_err().to_string();
    assert!(message.contains("has two tensors for encoder."), "{message}");
}

#[test]
fn a_model_is_found_beside_other_names_and_two_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let under = |word: &'static str| {
        timm(192).into_iter().map(move |(name, tensor)| (format!("{word}{name}"), tensor))
    };
    let loss = ("loss.weight".to_owned(), Tensor::zeros(&[2]));
    let beside: Vec<_> = under("model.").chain([loss]).collect();
    let path = saved(folder.path(), &beside, &[]);
    let model = ModelFile::open(&path, None).unwrap();
    assert_eq!(model.left_out, ["loss.weight"]);
    model.load_encoder(None, Hint::default(), None).unwrap();
    let two: Vec<_> = under("model.").chain(under("module.")).collect();
    let path = saved(folder.path(), &two, &[]);
    let message = ModelFile::open(&path, None).unwrap_err().to_string();
    let words = "holds 2 models: the names without a word before them, model. Name one with --part";
    assert!(message.contains(words), "{message}");
    assert_eq!(ModelFile::open(&path, Some("model")).unwrap().left_out.len(), under("").count());
}

#[test]
fn a_whole_stage_is_held_against_what_its_models_have() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["dialect_spt_mae.ckpt", "dialect_spt_salt.ckpt"] {
        let whole = ModelFile::open(&golden(file), None).unwrap();
        whole.check_whole(HINT).unwrap();
        let changed = |change: &dyn Fn(&mut NamedTensors)| {
            let mut tensors = whole.tensors.clone();
            change(&mut tensors);
            let list: Vec<_> = tensors.into_iter().collect();
            let path = saved(folder.path(), &list, &[]);
            ModelFile::open(&path, None).unwrap().check_whole(HINT).unwrap_err().to_string()
        };
        let inner = |tensors: &NamedTensors| {
            tensors.keys().find(|name| name.ends_with("context_proj.weight")).unwrap().clone()
        };
        for (words, change) in [
            (
                "missing ",
                &(|all: &mut NamedTensors| drop(all.remove(&inner(all))))
                    as &dyn Fn(&mut NamedTensors),
            ),
            ("is [4194304, 0]", &|all| {
                drop(all.insert(inner(all), Tensor::zeros(&[4_194_304, 0])));
            }),
            ("unexpected other.more", &|all| {
                drop(all.insert("other.more".to_owned(), Tensor::zeros(&[1])));
            }),
            ("not finite", &|all| {
                let shape = all[&inner(all)].shape().to_vec();
                let values = vec![f32::NAN; shape.iter().product()];
                drop(all.insert(inner(all), Tensor::from_vec(values, &shape)));
            }),
        ] {
            let message = changed(change);
            assert!(message.contains(words), "{file}: {message}");
        }
    }
}

#[test]
fn what_is_written_for_stable_pretraining_tells_its_sizes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    let model = ModelFile::open(&golden("dialect_spt_mae.ckpt"), None).unwrap();
    let spec = model.sizes(None, HINT).unwrap().spec;
    let all = dialect::stable_pretraining(&model.tensors, spec.grid());
    let sizes = serde_json::to_string(&spec).unwrap();
    let metadata = [(weights::MODEL_KEY.to_owned(), sizes)].into();
    weights::save_torch(&path, &all, Some("state_dict"), &metadata, weights::Dtype::F32).unwrap();
    let again = ModelFile::open(&path, None).unwrap().sizes(None, Hint::default()).unwrap();
    assert_eq!((again.spec, again.guessed), (spec, None));
}
