//! Encoders that have more than timm's plain ones give the features that they give at home:
//! tests/golden/timm_*, made by make_timm.py.

mod place;

use engine::Tape;
use engine::check::{assert_close, rel_l2};
use engine::ops::Images;
use place::{Place, assert_refused, saltworks, stderr};
use saltworks::mask::Grid;
use saltworks::method::embed;
use saltworks::model::{Encoder, Outputs, Patches};
use saltworks::weights::dialect::{self, Dialect};
use saltworks::weights::{self, Hint, ModelFile, NamedTensors};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// Two heads of 16, which no tensor shows.
const HINT: Hint = Hint { heads: Some((32, 2)), grid: None, eps: None, image: None };

fn features() -> NamedTensors {
    weights::load(&golden("timm_features.safetensors")).unwrap().tensors
}

/// Compares the tokens of the golden images, and what goes into the head.
fn compare(name: &str, encoder: &Encoder, images: &str) {
    let features = features();
    let images = &features[images];
    let [b, c, h, w] = images.shape() else { panic!("{:?}", images.shape()) };
    let images = Images::f32(images.to_vec(), [*b, *c, 1, *h, *w]).unwrap();
    let close = |what: &str, got: &[f32]| {
        let wanted = features[what].to_host();
        assert_close(what, got, &wanted, rel_l2(1e-5), "f32, two blocks");
    };
    let tape = Tape::inference();
    let all = encoder.forward(&tape, &images, Patches::All, Outputs::All, None).unwrap();
    close(&format!("{name}.tokens"), &all.tokens.to_vec());
    let embedding = embed(encoder, &images).unwrap();
    let pooled = if encoder.spec().fc_norm { embedding.mean } else { embedding.cls.unwrap() };
    // Models of transformers have no head.
    if features.contains_key(&format!("{name}.pooled")) {
        close(&format!("{name}.pooled"), &pooled.to_vec());
    }
}

/// facebookresearch/mae, models_vit.py with `global_pool`.
#[test]
fn a_fine_tuned_classifier_gives_timms_mean_behind_its_norm() {
    let model = ModelFile::open(&golden("timm_fine_tuned.pth"), None).unwrap();
    assert_eq!(model.left_out, ["model.head.weight", "model.head.bias"]);
    let loaded = model.load_encoder(None, HINT, None).unwrap();
    assert!(loaded.notes.join("; ").contains("its last norm comes behind the mean"));
    compare("fine_tuned", &loaded.encoder, "images");
    // The last of several layers is the same.
    let features = features();
    let images = Images::f32(features["images"].to_vec(), [2, 3, 1, 32, 32]).unwrap();
    let last = loaded.encoder.last_layers(&images, 1).unwrap();
    let mean = last[0].mean(&Tape::inference()).unwrap().to_vec();
    assert_eq!(mean, embed(&loaded.encoder, &images).unwrap().mean.to_vec());
}

#[test]
fn norms_before_the_first_block_and_of_another_eps_give_the_features_of_home() {
    let load = |name: &str, hint: Hint| {
        let model = ModelFile::open(&golden(name), None).unwrap();
        model.load_encoder(None, hint, None).unwrap()
    };
    let clip = load("timm_pre_norm.safetensors", HINT);
    compare("pre_norm", &clip.encoder, "images");
    let notes = clip.notes.join("; ");
    for words in ["norms with an ε of 1e-5", "its patches have no bias"] {
        assert!(notes.contains(words), "{notes}");
    }
    let stated = load("timm_eps.safetensors", Hint { eps: Some(1e-3), ..HINT });
    compare("eps", &stated.encoder, "images");
    // Its config.json counts.
    let hugging = load("timm_hf_eps", Hint { eps: Some(1e-6), ..HINT });
    compare("hf_eps", &hugging.encoder, "images");
    assert!(hugging.notes.is_empty(), "{:?}", hugging.notes);
}

#[test]
fn an_export_of_a_norm_before_the_first_block_has_the_tensors_of_timms_model() {
    let place = Place::empty();
    let export = |source: &str, to: &str, out: &str, more: &[&str]| {
        let mut command = saltworks();
        command.arg("export").arg(golden(source)).args(["--to", to, "--heads", "2"]).args(more);
        command.arg("--out").arg(place.path(out));
        command
    };
    let exported = |source: &str, to: &str, out: &str, more: &[&str]| {
        let output = export(source, to, out, more).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let told = exported("timm_pre_norm.safetensors", "timm", "a.safetensors", &[]);
    let call = "pre_norm=True, norm_layer=functools.partial(timm.layers.LayerNorm, eps=1e-5)";
    assert!(told.contains(call), "{told}");
    let [written, home] = [place.path("a.safetensors"), golden("timm_pre_norm.safetensors")]
        .map(|path| weights::load(&path).unwrap().tensors);
    assert_eq!(written.keys().collect::<Vec<_>>(), home.keys().collect::<Vec<_>>());
    // A bias of patches moves into their positions, and the features stay.
    let biased = ModelFile::open(&golden("timm_pre_norm.safetensors"), None).unwrap();
    let mut tensors = biased.encoder(None).unwrap();
    let bias: Vec<f32> = (0..32).map(|at| at as f32 / 16.0 - 1.0).collect();
    tensors.insert("patch_embed.proj.bias".into(), engine::Tensor::from_vec(bias, &[32]));
    let of = |tensors: NamedTensors| {
        let list: Vec<_> = tensors.into_iter().collect();
        weights::save(&place.path("b.safetensors"), &list, &[].into()).unwrap();
        let model = ModelFile::open(&place.path("b.safetensors"), None).unwrap();
        let loaded = model.load_encoder(None, HINT, None).unwrap();
        let images = Images::f32(features()["images"].to_vec(), [2, 3, 1, 32, 32]).unwrap();
        (loaded.encoder.spec().clone(), embed(&loaded.encoder, &images).unwrap().mean.to_vec())
    };
    let (spec, wanted) = of(tensors.clone());
    let moved = dialect::timm(&spec, tensors);
    assert!(!moved.contains_key("patch_embed.proj.bias"));
    assert_close("moved", &of(moved).1, &wanted, rel_l2(1e-5), "sums in another order");

    // What no tensor states is told, and kept where it can be.
    let eps = ["--eps", "1e-3"];
    let told = exported("timm_eps.safetensors", "torch", "a.pt", &eps);
    assert!(told.contains("does not state its 2 heads, its norms' ε of 1e-3"), "{told}");
    exported("timm_eps.safetensors", "hf", "hf", &eps);
    let hugging = ModelFile::open(&place.path("hf"), None).unwrap();
    compare("eps", &hugging.load_encoder(None, HINT, None).unwrap().encoder, "images");
    let refused = ["no norms with another ε than 1e-6", "Export to timm or onnx"];
    assert_refused(&mut export("timm_eps.safetensors", "facebook", "a.pth", &eps), &refused);
    // An ε beside the one in config.json, and in our own metadata.
    let other = ["has norms with an ε of 1e-3, but --eps is 1e-4", "Leave out --eps"];
    let told = ["--eps", "1e-4"];
    assert_refused(&mut export("timm_hf_eps", "timm", "c.safetensors", &told), &other);
}

#[test]
fn swiglu_gives_the_features_of_timm_dinov2_and_transformers() {
    for (file, name, dialect) in [
        ("timm_swiglu.safetensors", "swiglu", Dialect::Timm),
        ("timm_dinov2_swiglu.pth", "swiglu", Dialect::Dinov2),
        ("timm_hf_swiglu", "hf_swiglu", Dialect::HuggingFace),
    ] {
        let model = ModelFile::open(&golden(file), None).unwrap();
        assert_eq!(model.dialect, dialect, "{file}");
        let encoder = model.load_encoder(None, HINT, None).unwrap().encoder;
        assert!(encoder.spec().swiglu && encoder.spec().hidden < 100, "{:?}", encoder.spec());
        compare(name, &encoder, "images");
    }
    let place = Place::empty();
    let mut export = saltworks();
    export.arg("export").arg(golden("timm_dinov2_swiglu.pth"));
    export.args(["--to", "timm", "--heads", "2", "--out"]).arg(place.path("a.safetensors"));
    let output = export.output().unwrap();
    let call = "mlp_ratio=5.3125, init_values=1e-5, \
                mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU";
    assert!(stderr(&output).contains(call), "{}", stderr(&output));
    let [written, home] = [place.path("a.safetensors"), golden("timm_swiglu.safetensors")]
        .map(|path| weights::load(&path).unwrap().tensors);
    assert_eq!(written.keys().collect::<Vec<_>>(), home.keys().collect::<Vec<_>>());
}

/// 4 x 8 patches are no square. 2 x 8 are as many as 4 x 4.
#[test]
fn patches_that_are_no_square_are_those_of_the_stated_grid() {
    let place = Place::empty();
    for (name, stated, grid) in
        [("wide", "4x8", Grid::image(4, 8)), ("flat", "2x8", Grid::image(2, 8))]
    {
        let file = format!("timm_{name}.safetensors");
        let model = ModelFile::open(&golden(&file), None).unwrap();
        let loaded = model.load_encoder(None, Hint { grid: Some(grid), ..HINT }, None).unwrap();
        compare(name, &loaded.encoder, name);
        assert!(!loaded.notes.join("; ").contains("images of"), "{:?}", loaded.notes);
        // The commands take it, too. Their exports state it.
        let run = |arguments: &[&str]| {
            let mut command = saltworks();
            command.args(arguments).arg(golden(&file));
            command
        };
        let out = place.path(&format!("{name}.safetensors"));
        let export = |more: &[&str]| {
            let mut command = run(&["export", "--to", "timm", "--heads", "2"]);
            command.args(more).arg("--out").arg(&out);
            command
        };
        let refused = match name {
            "wide" => "neither a grid of 3 x 5 nor a square of patches",
            _ => "a grid of 3 x 5 is stated, 15 in all",
        };
        assert_refused(&mut export(&["--grid", "3x5"]), &[refused]);
        assert_refused(&mut export(&["--grid", "8"]), &["expected ROWSxCOLUMNS, such as 8x16"]);
        let output = export(&["--grid", stated]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let again = ModelFile::open(&out, None).unwrap().load_encoder(None, Hint::default(), None);
        compare(name, &again.unwrap().encoder, name);
        let output = run(&["inspect", "--grid", stated]).output().unwrap();
        let sides = format!("images of {} x 64 with", 8 * grid.h);
        assert!(String::from_utf8_lossy(&output.stdout).contains(&sides), "{output:?}");
    }
    let model = ModelFile::open(&golden("timm_wide.safetensors"), None).unwrap();
    let message = model.load_encoder(None, HINT, None).err().unwrap().to_string();
    assert!(message.contains("state the patches with --grid ROWSxCOLUMNS"), "{message}");
}

#[test]
fn an_export_keeps_the_norm_behind_the_mean_and_transformers_has_none() {
    let place = Place::empty();
    let export = |to: &str, out: &str| {
        let mut command = saltworks();
        command.arg("export").arg(golden("timm_fine_tuned.pth")).args(["--to", to, "--heads", "2"]);
        command.arg("--out").arg(place.path(out));
        command
    };
    let wanted = ModelFile::open(&golden("timm_fine_tuned.pth"), None).unwrap();
    let wanted = wanted.encoder(None).unwrap();
    for (to, out) in [("timm", "a.safetensors"), ("torch", "a.pt"), ("facebook", "a.pth")] {
        let output = export(to, out).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let call = "global_pool=\"avg\", fc_norm=True, num_classes=0";
        assert_eq!(stderr(&output).contains(call), to != "facebook", "{}", stderr(&output));
        let written = ModelFile::open(&place.path(out), None).unwrap();
        let loaded = written.load_encoder(None, HINT, None).unwrap();
        compare("fine_tuned", &loaded.encoder, "images");
        for (name, tensor) in written.encoder(None).unwrap() {
            assert_eq!(tensor.to_vec(), wanted[&name].to_vec(), "{to}: {name}");
        }
    }
    let output = export("onnx", "a.onnx").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_refused(&mut export("hf", "hf"), &["ViTModel has no norm behind the mean"]);
}

/// float8, and integers in place of a weight. Tables of integers beside the weights do not matter.
#[test]
fn inspect_says_of_types_that_are_not_read_what_reading_says() {
    let place = Place::empty();
    let bytes = std::fs::read(golden("timm_eps.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    // The same bytes as values of another type: four times as many, in rows that are as long.
    let renamed = |name: &str, dtype: &str| {
        let mut header = header.clone();
        let shape = header[name]["shape"].as_array_mut().unwrap();
        shape[0] = (4 * shape[0].as_u64().unwrap()).into();
        header[name]["dtype"] = dtype.into();
        let mut text = header.to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let whole = [&(text.len() as u64).to_le_bytes()[..], &text, &bytes[8 + length..]].concat();
        saltworks::files::write_whole(&place.path("a.safetensors"), &whole).unwrap();
    };
    for (name, dtype) in [("blocks.1.attn.proj.weight", "F8_E4M3"), ("norm.bias", "I8")] {
        renamed(name, dtype);
        let why = format!("tensor {name} is {dtype}, expected F32, F16, BF16 or F64");
        let output = saltworks().arg("inspect").arg(place.path("a.safetensors")).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains(&format!("cannot be read, because {why}")), "{told}");
        let model = ModelFile::open(&place.path("a.safetensors"), None).unwrap();
        let message = model.load_encoder(None, HINT, None).err().unwrap().to_string();
        assert!(message.contains(&why), "{message}");
    }
}

#[test]
fn a_part_of_a_file_with_several_models_is_a_teacher_or_an_init() {
    let place = Place::with_classes();
    let (file, photos) = (golden("dialect_dinov2.pth"), place.photos());
    let recipe = place.text(
        "r.toml",
        "[data]\nsize = 32\nnormalize = \"imagenet\"\n[model]\npatch = 8\nwidth = 32\ndepth = 2\n\
         heads = 2\nregisters = 3\nno_embed_class = true\nlayer_scale = 1e-5\n[probe]\n\
         online = false\n[[stage]]\nname = \"student\"\nmethod = \"salt\"\nteacher = \"a\"\n\
         steps = 2\nbatch = 4\npredictor = {width = 16, depth = 1, heads = 2}\n",
    );
    let run = |verb: &str, more: &[&str]| {
        let mut command = saltworks();
        command.arg(verb).arg(&recipe).args(["--set", &photos, "--teacher"]).arg(&file).args(more);
        command
    };
    let init = format!("student.init={}", toml::Value::from(file.display().to_string()));
    for (more, words) in [
        (&["--part", "student"][..], "weights are those of student.backbone"),
        (&[], "weights are those of teacher.backbone. The file also holds student.backbone"),
        (
            &["--set", &init, "--set", "student.init_part=student"],
            "dialect_dinov2.pth: weights are those of student.backbone",
        ),
    ] {
        let output = run("plan", more).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let out = place.path("run").display().to_string();
    let output = run("pretrain", &["--part", "student", "--out", &out]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let kept = std::fs::read_to_string(place.path("run/recipe.toml")).unwrap();
    assert!(kept.contains("teacher_part = \"student\""), "{kept}");
    assert_refused(&mut run("plan", &["--part", "ema"]), &["holds no ema"]);
    let without = "student.init_part is \"ema\", expected none without a file of weights";
    assert_refused(&mut run("plan", &["--set", "student.init_part=ema"]), &[without]);
}
