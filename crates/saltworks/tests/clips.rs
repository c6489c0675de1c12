//! Training on clips: rotary positions, patches of several frames, several masks of a clip.

mod place;

use place::{Place, assert_refused, saltworks, stderr};
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A recipe as that of SALT on video, but tiny. Two stages of many short steps.
const CLIPS: &[&str] = &[
    "data.frames=4",
    "data.channels=1",
    "data.normalize={mean=[0.2], std=[0.3]}",
    "data.augment.flip=0.5",
    "model.patch=[2,8,8]",
    "model.class_token=false",
    "model.rope=interleaved",
    "teacher.steps=12",
    "student.steps=12",
    "teacher.masks=[{kind='vjepa', blocks=2, scale=[0.2,0.3]}, {kind='causal'}]",
    "student.masks=[{kind='vjepa', blocks=2, scale=[0.2,0.3]}, {kind='vjepa', blocks=1}]",
    "student.accumulate=2",
    "student.target_layer_norm=true",
];

/// An array [24, 6, 32, 32] of a bright square that moves to the right or downwards.
fn clips(place: &Place) -> String {
    let mut header = String::from("{'descr': '|u1', 'fortran_order': False, ");
    let _ = write!(header, "'shape': (24, 6, 32, 32), }}");
    let mut header = header.into_bytes();
    header.resize((header.len() + 11).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header);
    for clip in 0..24 {
        for frame in 0..6 {
            let (right, down) = if clip % 2 == 0 { (3 * frame, 0) } else { (0, 3 * frame) };
            let is_square = |row: usize, column: usize| {
                (4 + down..12 + down).contains(&row)
                    && (clip % 5 + right..clip % 5 + right + 8).contains(&column)
            };
            let pixels = (0..32 * 32).map(|at| if is_square(at / 32, at % 32) { 220 } else { 10 });
            bytes.extend(pixels.collect::<Vec<u8>>());
        }
    }
    let path = place.path("clips.npy");
    saltworks::files::write_whole(&path, &bytes).unwrap();
    format!("data.path={}", path.display())
}

fn set<'a>(more: &[&'a str], path: &'a str) -> Vec<&'a str> {
    [CLIPS, more, &[path]].concat()
}

#[test]
fn a_run_on_clips_has_the_same_bits_on_any_threads_and_when_it_is_resumed() {
    let place = Place::empty();
    let path = clips(&place);
    let output = place.trained("whole", &set(&[], &path));
    let told = stderr(&output);
    assert!(told.contains("24 clips of 6 x 32 x 32 x 1"), "{told}");
    place.trained("three threads", &set(&["threads=3", "data.threads=3"], &path));
    place.assert_same_training("whole", "three threads");

    let mut command = place.pretrain("stopped", &set(&[], &path));
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let steps = || match std::fs::read_to_string(place.path("stopped/metrics.jsonl")) {
        Ok(log) => log
            .lines()
            .filter(|line| line.contains("\"stage\":\"student\"") && line.contains("grad_norm"))
            .count(),
        Err(_) => 0,
    };
    while steps() < 2 && begun.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let notes = stderr(&child.wait_with_output().unwrap());
    // Under load, a run may end before the signal comes.
    if notes.contains("interrupted in stage student") {
        let notes = stderr(&place.trained("stopped", &set(&[], &path)));
        assert!(notes.contains("resuming after step"), "{notes}");
    }
    place.assert_same_training("whole", "stopped");
}

#[test]
fn an_encoder_of_clips_is_inspected_and_its_features_are_those_of_clips() {
    let place = Place::empty();
    let path = clips(&place);
    place.trained("run", &set(&[], &path));
    let out = place.path("features.npy");
    let embedded = saltworks()
        .arg("embed")
        .arg(place.path("run/student/encoder.safetensors"))
        .arg("--data")
        .arg(place.path("clips.npy"))
        .args(["--normalize", "{mean=[0.2], std=[0.3]}", "--features", "patches", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(embedded.status.success(), "{}", stderr(&embedded));
    // 24 clips of 2 x 4 x 4 tokens, 32 wide.
    let written = std::fs::read(&out).unwrap();
    let header = String::from_utf8_lossy(&written[..128]);
    assert!(header.contains("(24,32,32,)"), "{header}");

    let mut inspect = saltworks();
    inspect.arg("inspect").arg(place.path("run/student/encoder.safetensors"));
    let told = String::from_utf8(inspect.output().unwrap().stdout).unwrap();
    for words in ["patches of 2 x 8 x 8, clips of 4 x 32 x 32", "rotary positions"] {
        assert!(told.contains(words), "{told}");
    }

    let export = |to: &str, out: &str| {
        let mut export = saltworks();
        export.arg("export").arg(place.path("run")).args(["--to", to, "--out"]);
        export.arg(place.path(out));
        export
    };
    let refused = |to: &str, out: &str| {
        let words = ["rotary positions", "--to safetensors writes all of it"];
        assert_refused(&mut export(to, out), &words);
    };
    refused("timm", "out.safetensors");
    refused("onnx", "out.onnx");
    refused("stable-pretraining", "out.ckpt");
    // Another size keeps its frames.
    let mut larger = export("safetensors", "larger.safetensors");
    let written = larger.args(["--size", "48"]).output().unwrap();
    assert!(written.status.success(), "{}", stderr(&written));
    inspect = saltworks();
    inspect.arg("inspect").arg(place.path("larger.safetensors"));
    let told = String::from_utf8(inspect.output().unwrap().stdout).unwrap();
    assert!(told.contains("clips of 4 x 48 x 48"), "{told}");
}

#[test]
fn an_export_says_what_another_program_has_no_place_for() {
    let place = Place::with_classes();
    let path = clips(&place);
    let refused = |run: &str, to: &str, words: &[&str]| {
        let mut export = saltworks();
        export.arg("export").arg(place.path(run)).args(["--to", to, "--out"]);
        assert_refused(export.arg(place.path("out.ckpt")), words);
    };
    // A table of positions over several frames, with patches of one.
    let short = ["teacher.steps=1", "student.steps=1"];
    let recipe: Vec<&str> = CLIPS.iter().filter(|set| !set.contains("rope")).copied().collect();
    let table = [&recipe[..], &short, &["model.patch=[1,8,8]", &path]].concat();
    let told = stderr(&place.trained("table", &table));
    let words = "data.frames is 4, but there are clips of 6 frames: a longer one gives 4 in a row";
    assert!(told.contains(words), "{told}");
    refused("table", "torch", &["positions of several frames"]);
    // Images, with a mask token for each of two masks.
    let two = "student.masks=[{kind='vjepa', blocks=2, scale=[0.2,0.3]}, {kind='vjepa', blocks=1}]";
    place.trained("images", &[&short[..], &[two]].concat());
    refused("images", "stable-pretraining", &["2 mask tokens", "stable-pretraining's has one"]);
}

/// The recipe of docs/video.md, shortened, on other clips.
#[test]
fn the_recipe_of_the_page_trains() {
    let place = Place::empty();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/video.md");
    let page = std::fs::read_to_string(page).unwrap();
    let recipe = page.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let recipe = place.text("clips.toml", recipe);
    let path = clips(&place);
    let mut command = saltworks();
    command.arg("pretrain").arg(recipe).arg("--out").arg(place.path("run"));
    let short =
        ["data.size=32", "data.frames=6", "model.width=48", "model.depth=1", "model.heads=2"];
    let steps = ["teacher.steps=1", "student.steps=1", "teacher.batch=4", "student.batch=4"];
    for set in short.iter().chain(&steps).chain([&path.as_str()]) {
        command.args(["--set", set]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    // The clips have as many frames, so nothing is said of them.
    assert!(!stderr(&output).contains("data.frames is"), "{}", stderr(&output));
    let plan: serde_json::Value = serde_json::from_slice(&place.bytes("run/plan.json")).unwrap();
    // 3 x 4 x 4 tokens, of which both masks together show less than twice all.
    let tokens = plan["stages"][1]["tokens_per_image"]["student"].as_f64().unwrap();
    assert!((20.0..96.0).contains(&tokens), "{tokens}");
    assert_eq!(plan["stages"][1]["tokens_per_image"]["teacher"], 48.0);
}

/// A row of probes.json without its name.
fn row(place: &Place, run: &str, name: &str) -> Option<serde_json::Value> {
    let rows = place.bytes(&format!("{run}/probes.json"));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&rows).unwrap();
    let mut row = rows.into_iter().find(|row| row["features"] == name)?;
    row.as_object_mut().unwrap().remove("features");
    Some(row)
}

#[test]
fn still_clips_look_the_same_in_any_order_and_are_drawn_as_strips() {
    let place = Place::with_classes();
    // Each image is repeated, so no order of frames is another one.
    let still = ["teacher.steps=2", "student.steps=2", "probe.every_steps=2"];
    place.trained("still", &[CLIPS, &still, &["data.channels=1"]].concat());
    let own = row(&place, "still", "student");
    assert!(own.is_some());
    for name in ["student, one frame", "student, reversed", "student, shuffled"] {
        assert_eq!(row(&place, "still", name), own, "{name}");
    }
    assert!(row(&place, "still", "frame differences").is_some());
    assert!(row(&place, "still", "teacher, reversed").is_none(), "only the last stage's");

    let pictures = place.bytes("still/pictures/teacher.json");
    let pictures: serde_json::Value = serde_json::from_slice(&pictures).unwrap();
    // Four frames in patches of two: two frames of 4 x 4 patches side by side.
    assert_eq!((&pictures["size"], &pictures["grid"]), (&[32, 64].into(), &[4, 8].into()));
    let png = |value: &serde_json::Value| {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let text = value.as_str().unwrap();
        let bytes = BASE64_STANDARD.decode(text.rsplit(',').next().unwrap()).unwrap();
        image::load_from_memory(&bytes).unwrap().into_luma8()
    };
    let shown = png(&pictures["images"][0]["png"]);
    assert_eq!(shown.dimensions(), (64, 32));
    let halves = (0..32).flat_map(|y| (0..32).map(move |x| (x, y)));
    assert!(halves.clone().all(|(x, y)| shown.get_pixel(x, y) == shown.get_pixel(x + 32, y)));
    // What is context is shown in the masked picture as it is.
    let mask = pictures["masks"][0].as_str().unwrap().as_bytes();
    let masked = png(&pictures["reconstructions"][0]["masked"]);
    for (cell, &kind) in mask.iter().enumerate() {
        let (x, y) = (cell as u32 % 8 * 8, cell as u32 / 8 * 8);
        let pixels = (0..8).flat_map(|dy| (0..8).map(move |dx| (x + dx, y + dy)));
        let same = pixels.clone().all(|(x, y)| masked.get_pixel(x, y) == shown.get_pixel(x, y));
        let grey = pixels.clone().all(|(x, y)| masked.get_pixel(x, y).0 == [128]);
        assert!(if kind == b'1' { same } else { grey }, "cell {cell}");
    }
    assert!(mask.contains(&b'1') && mask.contains(&b'2'));
}

#[test]
fn every_set_of_labels_is_probed_and_the_recipe_says_which_comes_first() {
    let place = Place::empty();
    let of = |run: &str, more: &[&str]| {
        let few = ["data.path=builtin:moving-fashion", "data.size=16", "data.holdout=1000"];
        let short = ["teacher.steps=1", "student.steps=1", "probe.most_images=60"];
        place.trained(run, &[CLIPS, &few, &short, more].concat());
        // How clips in another order are judged is asked of the first set alone.
        let other = if more.is_empty() { "what" } else { "motion" };
        assert!(row(&place, run, &format!("student, one frame, {other}")).is_some());
        assert!(row(&place, run, &format!("student, reversed, {other}")).is_none());
        ["teacher", "teacher, motion", "teacher, what"].map(|name| {
            let row = row(&place, run, name)?;
            assert_eq!((&row["images"], &row["train_images"]), (&30.into(), &30.into()));
            Some(row)
        })
    };
    let [motion, none, what] = of("motion", &[]);
    assert!(none.is_none());
    let [first, second, none] = of("what", &["data.labels=what"]);
    assert!(none.is_none());
    // The same features: only the order of the sets differs.
    assert_eq!((first, second), (what, motion));
    // Images to test that have one set of labels are judged by that alone.
    for class in ["right", "left"] {
        (0..3).for_each(|index| place.image(&format!("dirs/{class}/{index}.png"), index));
    }
    let test = format!("probe.test=[{:?}]", place.path("dirs"));
    let data = ["data.path=builtin:moving-fashion", "data.size=16", "probe.most_images=60"];
    let short = ["teacher.steps=1", "student.steps=1", &test];
    let lacking: Vec<&str> = CLIPS.iter().copied().chain(data).chain(short).collect();
    let told = stderr(&place.trained("lacking", &lacking));
    let on = format!(" on {}", place.path("dirs").display());
    assert!(told.contains(&format!("what is not judged{on}: no such labels")), "{told}");
    let judged = |name: String| row(&place, "lacking", &name).is_some();
    assert!(judged(format!("teacher{on}")) && judged("teacher, what".to_owned()));
    assert!(!judged(format!("teacher{on}, what")));
    let words = ["data.labels is \"where\"", "builtin:moving-fashion has the sets motion, what"];
    place.refused(&["data.path=builtin:moving-fashion", "data.labels=where"], &words);
    let words = ["has no sets of labels by name", "Leave out data.labels"];
    let path = clips(&place);
    place.refused(&set(&["data.labels=what"], &path), &words);
}

#[test]
fn settings_that_clips_cannot_have_are_refused() {
    let place = Place::empty();
    let path = clips(&place);
    let refused = |more: &[&str], words: &[&str]| place.refused(&set(more, &path), words);
    refused(
        &["data.frames=5"],
        &["data.frames, model.patch", "length of 5 frames", "4 or 6 frames"],
    );
    refused(&["data.frames=2"], &["masks leave no target", "a grid of 4 x 4"]);
    refused(&["model.heads=8", "model.width=32"], &["heads have 4 values", "at least 6"]);
    refused(
        &["teacher.masks=[{kind='vjepa', scale=[0.2,0.1]}]"],
        &["scale is [0.2, 0.1]", "0 < min <= max <= 1"],
    );
    refused(&["student.masks=[]"], &["student.masks is a list of 0", "1 to 8 masks"]);
    refused(&["data.frames=0"], &["data.frames is 0", "at least 1"]);
    refused(&["data.frames=100000"], &["data.frames: model number of frames is 100000"]);
    let whole = "student.masks is a list of masks. Set the whole list";
    refused(&["student.masks.blocks=3"], &[whole, "--set 'student.masks=[...]'"]);
}
