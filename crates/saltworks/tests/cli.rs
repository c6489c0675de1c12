//! The program as its user meets it: real files in, exit codes, messages and run folders out.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The quickstart's recipe, with a model and stages that take a second.
const TINY: &[&str] = &[
    "data.size=32",
    "data.channels=3",
    "data.holdout=8",
    "model.patch=8",
    "model.width=32",
    "model.depth=2",
    "model.heads=2",
    "teacher.steps=3",
    "teacher.batch=8",
    "student.steps=3",
    "student.batch=8",
    "threads=2",
];

/// A folder of its own with images in `photos`.
struct Place {
    folder: TempDir,
}

impl Place {
    /// Twelve PNG files of class `discs` and twelve JPEG files of class `stripes`.
    fn with_classes() -> Self {
        let place = Self::empty();
        for index in 0..12 {
            place.image(&format!("photos/discs/{index}.png"), index);
            place.image(&format!("photos/stripes/{index}.jpg"), index);
        }
        place
    }

    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn photos(&self) -> String {
        format!("data.path={}", self.path("photos").display())
    }

    /// A colour image of 40 x 36 pixels: a disc (PNG) or stripes (JPEG), moved by `index`.
    fn image(&self, name: &str, index: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let disc = name.ends_with("png");
        let picture = image::RgbImage::from_fn(40, 36, |x, y| {
            let (dx, dy) = (x.abs_diff(12 + index), y.abs_diff(18));
            let inside = if disc { dx * dx + dy * dy < 100 } else { (x + index) % 12 < 6 };
            let shade = if inside { 200 } else { 40 };
            image::Rgb([shade, (10 * index + y) as u8, (5 * x) as u8])
        });
        picture.save(&path).unwrap();
    }

    fn text(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        saltworks::files::write_whole(&path, text.as_bytes()).unwrap();
        path
    }

    /// Cuts a file in the middle.
    fn cut(&self, name: &str) {
        let file = fs::OpenOptions::new().write(true).open(self.path(name)).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }

    /// `saltworks pretrain` of the tiny recipe on `photos` into the folder `out`, with more `--set`.
    fn pretrain(&self, out: &str, set: &[&str]) -> Command {
        let mut command = saltworks();
        command.arg("pretrain").arg("--out").arg(self.path(out));
        let photos = self.photos();
        for given in TINY.iter().chain([&photos.as_str()]).chain(set) {
            command.args(["--set", given]);
        }
        command
    }

    /// Runs the tiny recipe to its end.
    fn trained(&self, out: &str, set: &[&str]) -> Output {
        let output = self.pretrain(out, set).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output
    }

    /// Runs the tiny recipe, which must be refused with these words and leave no run.
    fn refused(&self, set: &[&str], words: &[&str]) {
        assert_refused(&mut self.pretrain("run", set), words);
        assert!(!self.path("run").exists(), "a refused run left its folder");
    }

    /// Runs into a broken image; returns the steps made before, whose weights must be there.
    fn cut_short(&self, set: &[&str], seed: u32) -> usize {
        let run = format!("run{seed}");
        let output = self.pretrain(&run, set).args(["--set", &format!("seed={seed}")]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let steps = if self.path(&run).exists() { self.metrics(&run).len() } else { 0 };
        let weights = self.path(&format!("{run}/teacher/encoder.safetensors"));
        assert_eq!(is_loadable(&weights), steps > 0);
        steps
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The lines of a run's metrics.jsonl.
    fn metrics(&self, run: &str) -> Vec<Value> {
        let text = String::from_utf8(self.bytes(&format!("{run}/metrics.jsonl"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Metrics without the clock's.
    fn curve(&self, run: &str) -> Vec<Value> {
        let mut lines = self.metrics(run);
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            assert!(line.remove("images_per_second").is_some());
            assert!(line.remove("data_wait_share").is_some());
        }
        lines
    }

    fn assert_same_run(&self, one: &str, other: &str) {
        assert_eq!(self.curve(one), self.curve(other), "{one} and {other}");
        for stage in ["teacher", "student"] {
            for file in ["encoder", "model"] {
                let [a, b] = [one, other]
                    .map(|run| self.bytes(&format!("{run}/{stage}/{file}.safetensors")));
                assert!(a == b, "{stage}/{file}.safetensors of {one} and {other} differ");
            }
        }
        assert_eq!(
            self.bytes(&format!("{one}/probes.json")),
            self.bytes(&format!("{other}/probes.json"))
        );
    }
}

fn saltworks() -> Command {
    Command::new(env!("CARGO_BIN_EXE_saltworks"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Exit code 2, nothing on stdout, and one message on stderr that holds all the words.
fn assert_refused(command: &mut Command, words: &[&str]) {
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(output.stdout.is_empty());
    let messages = text.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(messages, 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    let message = &text[text.find("error: ").unwrap()..];
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

// ---- wrong input

#[test]
fn a_folder_that_does_not_exist_is_named() {
    Place::empty().refused(&[], &["/photos: no such file or folder", "data.path"]);
}

#[test]
fn a_folder_without_images_says_what_it_holds() {
    let place = Place::empty();
    fs::create_dir(place.path("photos")).unwrap();
    place.refused(&[], &["/photos: 0 images", "found no file"]);
    place.text("photos/a.tif", "x");
    place.text("photos/b.tif", "x");
    place.refused(&[], &["/photos: 0 images", "found 2 .tif", "PNG or JPEG"]);
}

#[test]
fn a_truncated_jpeg_is_named() {
    let place = Place::with_classes();
    place.cut("photos/stripes/7.jpg");
    place.refused(&[], &["photos/stripes/7.jpg: JPEG is cut off after", "Replace or remove"]);
}

#[test]
fn a_truncated_png_met_while_training_is_named_too() {
    let place = Place::empty();
    (0..8).for_each(|index| place.image(&format!("photos/{index}.png"), index));
    place.cut("photos/3.png");
    let words = ["photos/3.png: cannot be decoded", "Replace or remove"];
    place.refused(&["data.holdout=0"], &words); // the first batch is all eight
}

#[test]
fn an_image_met_late_that_is_cut_keeps_the_weights() {
    let place = Place::empty();
    (0..9).for_each(|index| place.image(&format!("photos/{index}.png"), index));
    let set = ["data.holdout=0", "teacher.batch=1", "teacher.steps=9"];
    // Where the order of a seed places the image.
    place.cut("photos/3.png");
    let steps: Vec<usize> = (0..3).map(|seed| place.cut_short(&set, seed)).collect();
    assert!(steps.iter().any(|&steps| steps > 0), "{steps:?}");
}

#[test]
fn a_wrong_key_gets_its_line_and_the_nearest_known_key() {
    let place = Place::with_classes();
    let pretrain = |text: &str, words: &[&str]| {
        let recipe = place.text("recipe.toml", text);
        let mut command = saltworks();
        command.arg("pretrain").arg(&recipe).arg("--out").arg(place.path("run"));
        assert_refused(&mut command, words);
        assert!(!place.path("run").exists());
    };
    let stage = "[[stage]]\nname = \"a\"\n";
    pretrain(
        &format!("seed = 1\n{stage}wieght_decay = 0.1\n"),
        &["recipe.toml, line 4", "unknown key `wieght_decay`. Did you mean `weight_decay`?"],
    );
    pretrain(
        &format!("[data]\nsiz = 32\n{stage}"),
        &["recipe.toml, line 2", "unknown key `siz`. Did you mean `size`?"],
    );
    pretrain(
        &format!("[model]\nwidth = 32\n{stage}masks = {{ kind = \"random\", ration = 0.5 }}\n"),
        &["recipe.toml, line 5", "unknown key `ration`. Did you mean `ratio`?"],
    );
    pretrain(
        &format!("{stage}method = \"mea\"\n"),
        &["recipe.toml, line 3", "unknown value `mea`. Did you mean `mae`?"],
    );
    pretrain(
        &format!("[data]\nsize = \"big\"\n{stage}"),
        &["recipe.toml, line 2", "string \"big\""],
    );
    pretrain(&format!("{stage}lr = [1]\n"), &["recipe.toml, line 3"]);
    pretrain("[data\n", &["recipe.toml, line 1"]);
    pretrain("", &["[[stage]]"]);
    let mut missing = saltworks();
    missing.args(["pretrain", "no/such.toml"]);
    assert_refused(&mut missing, &["cannot read recipe no/such.toml"]);
}

#[test]
fn a_wrong_override_is_named_with_its_remedy() {
    let place = Place::with_classes();
    place.refused(&["teachr.lr=1"], &["--set teachr.lr=1", "Did you mean \"teacher\"?"]);
    place.refused(&["teacher.lrr=1"], &["--set teacher.lrr=1", "Did you mean `lr`?"]);
    place.refused(&["data.size=big"], &["--set data.size=big", "string \"big\""]);
    place.refused(&["seed=-1"], &["--set seed=-1"]);
    place.refused(&["seed"], &["--set seed", "key=value"]);
    place.refused(&["seed.x=1"], &["--set seed.x=1"]);
    place.refused(&["teacher.masks.ration=0.5"], &["Did you mean `ratio`?"]);
}

#[test]
fn sizes_that_do_not_fit_say_what_would() {
    let place = Place::with_classes();
    place.refused(&["model.heads=3"], &["width 32 is not divisible by 3 heads"]);
    place.refused(&["student.predictor.heads=7"], &["predictor width 64", "7 heads"]);
    place.refused(&["model.patch=64"], &["smaller than a patch of 64"]);
    place.refused(&["model.patch=7"], &["28 or 35"]);
    place.refused(&["model.patch=0"], &["patch"]);
    place.refused(&["model.name=resnet50"], &["resnet50", "vit_"]);
    place.refused(&["data.channels=2"], &["data.channels is 2", "1 (grey) or 3 (colour)"]);
    place.refused(&["data.holdout=24"], &["data.holdout is 24", "0 to 23", "24 images"]);
}

#[test]
fn numbers_that_make_no_sense_are_refused_by_key() {
    let place = Place::with_classes();
    place.refused(&["data.threads=0"], &["threads is 0"]);
    place.refused(&["teacher.steps=0"], &["steps of stage \"teacher\" is 0"]);
    place.refused(&["teacher.epochs=-1"], &["epochs of stage \"teacher\" is -1"]);
    place.refused(&["teacher.epochs=nan"], &["epochs of stage \"teacher\" is NaN"]);
    place.refused(&["teacher.lr=nan"], &["lr of stage \"teacher\" is NaN"]);
    place.refused(&["student.eps=-1.0"], &["eps of stage \"student\" is -1"]);
    place.refused(&["teacher.loss={smooth_l1=nan}"], &["loss of stage \"teacher\""]);
    place.refused(&["teacher.warmup={percent=-50.0}"], &["warmup of stage \"teacher\" is -50"]);
    place.refused(&["student.batch=70000"], &["batch of stage \"student\" is 70000"]);
    place.refused(&["probe.temperature=nan"], &["temperature NaN"]);
    place.refused(&["data.normalize.mean=[nan]"], &["data.normalize.mean is [NaN]"]);
    place.refused(&["model.layer_scale=nan"], &["layer_scale is NaN"]);
    place.refused(&["model.mlp_ratio=1e300"], &["hidden width", "at most"]);
    place.refused(&["teacher.decoder={width=64,depth=1000000,heads=4}"], &["decoder depth"]);
    place.refused(&["threads=100000"], &["threads is 100000", "eight for each core"]);
    place.refused(&["student.clip=nan"], &["clip of stage \"student\" is NaN"]);
    place.refused(&["student.betas=[0.9, 1.0]"], &["betas of stage \"student\""]);
    place.refused(&["student.batch=0"], &["batch of stage \"student\" is 0"]);
    place.refused(&["student.accumulate=3"], &["accumulate of stage \"student\" is 3"]);
    place.refused(&["data.augment.flip=2"], &["flip is 2"]);
    place.refused(&["data.normalize.std=[0.0]"], &["data.normalize.std"]);
}

#[test]
fn masks_that_leave_no_context_are_refused_with_the_grid() {
    let place = Place::with_classes();
    let everything = "student.masks={kind=\"multi_block\", context={count=1, scale=[0.1, 0.1], \
                      aspect_ratio=[1.0, 1.0]}, targets={count=30, scale=[0.9, 0.9], \
                      aspect_ratio=[1.0, 1.0]}}";
    place.refused(&[everything], &["masks leave no context", "4 x 4"]);
    place.refused(&["teacher.masks={kind=\"random\", ratio=1.0}"], &["masks: ratio is 1"]);
    place.refused(&["model.patch=32"], &["masks leave no", "1 x 1"]);
}

#[test]
fn an_output_folder_that_cannot_be_made_is_refused() {
    let place = Place::with_classes();
    place.text("file", "x");
    let mut command = place.pretrain("file/run", &[]);
    assert_refused(&mut command, &["cannot write", "file/run", "--out"]);
    assert_eq!(place.bytes("file"), b"x");
    assert_refused(&mut place.pretrain("file", &[]), &["cannot write", "file", "--out"]);
}

#[test]
fn a_teacher_that_cannot_teach_is_refused_before_any_training() {
    let place = Place::with_classes();
    place.refused(&["student.teacher=no/such.safetensors"], &["no/such.safetensors", "teacher"]);
    place.refused(&["student.model.patch=16"], &["teacher teacher", "4 x 4", "2 x 2"]);
    let file = place.text("not.safetensors", "not a weight file");
    let given = format!("student.teacher={}", file.display());
    place.refused(&[&given], &["not.safetensors is no whole safetensors file"]);

    place.trained("small", &[]);
    let file = place.path("small/teacher/encoder.safetensors");
    let given = format!("student.teacher={}", file.display());
    let words = ["encoder.safetensors", "4 x 4 patches of 32 x 32 images", "64 x 64"];
    place.refused(&[&given, "data.size=64"], &words);
    place.refused(&[&given, "data.channels=1"], &["3 channels", "1 channels"]);

    // Without its metadata a file has the student's sizes, or is refused.
    let bare = saltworks::weights::load(&file).unwrap().tensors.into_iter().collect::<Vec<_>>();
    let bare_file = place.path("bare.safetensors");
    saltworks::weights::save(&bare_file, &bare, &[].into()).unwrap();
    let given = format!("student.teacher={}", bare_file.display());
    let words =
        ["bare.safetensors does not fit the model", "[1, 1, 32], the model needs [1, 1, 64]"];
    place.refused(&[&given, "model.width=64"], &words);
    place.trained("again", &[&given]);
}

#[test]
fn a_folder_that_holds_a_run_is_kept_unless_told() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let before = place.bytes("run/metrics.jsonl");
    assert_refused(
        &mut place.pretrain("run", &["seed=1"]),
        &["holds a run already", "--overwrite"],
    );
    assert_eq!(place.bytes("run/metrics.jsonl"), before);
    let again = place.pretrain("run", &["seed=1"]).arg("--overwrite").output().unwrap();
    assert!(again.status.success(), "{}", stderr(&again));
    assert_ne!(place.bytes("run/metrics.jsonl"), before);
}

#[test]
fn wrong_arguments_end_with_two() {
    for arguments in [&["pretrian"][..], &["pretrain", "--ot", "x"], &["bench", "--batch", "0"]] {
        assert_refused(saltworks().args(arguments), &[]);
    }
}

// ---- runs

#[test]
fn both_stages_train_on_a_folder_and_leave_a_whole_run() {
    let place = Place::with_classes();
    let output = place.trained("run", &["student.accumulate=2"]);
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    let rows = ["raw pixels", "random encoder", "teacher", "student"];
    for row in rows.iter().chain(&["kNN mean", "linear CLS", "8 held-out images"]) {
        assert!(table.contains(row), "{row:?} is not in:\n{table}");
    }
    let recipe: toml::Table =
        String::from_utf8(place.bytes("run/recipe.toml")).unwrap().parse().unwrap();
    assert_eq!(recipe["data"]["size"].as_integer(), Some(32));
    let environment: Value = serde_json::from_slice(&place.bytes("run/environment.json")).unwrap();
    assert_eq!(environment["threads"], 2);
    for key in ["saltworks", "os", "architecture", "cpu", "started_unix_seconds", "command"] {
        assert!(environment.get(key).is_some(), "{key}");
    }
    let probes: Vec<Value> = serde_json::from_slice(&place.bytes("run/probes.json")).unwrap();
    assert!(probes.iter().map(|row| &row["features"]).eq(rows));
    for name in ["knn_mean", "knn_cls", "linear_mean", "linear_cls"] {
        let accuracy = probes[3][name].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&accuracy), "{name}: {accuracy}");
    }
    for stage in ["teacher", "student"] {
        let file = format!("run/{stage}/encoder.safetensors");
        let weights = saltworks::weights::load(&place.path(&file)).unwrap().tensors;
        assert_eq!(weights["patch_embed.proj.weight"].shape(), [32, 3, 8, 8]);
        assert!(weights.values().all(|tensor| tensor.as_slice().iter().all(|x| x.is_finite())));
    }
}

#[test]
fn readers_that_go_away_do_not_end_a_run() {
    use std::process::Stdio;
    let place = Place::with_classes();
    let mut command = place.pretrain("run", &[]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert!(child.wait().unwrap().success());
    assert!(place.path("run/probes.json").is_file());
}

#[test]
fn each_step_is_a_line_of_metrics() {
    let place = Place::with_classes();
    place.trained("run", &["student.accumulate=2", "student.steps=5"]);
    let lines = place.metrics("run");
    let steps = lines.iter().map(|line| (line["stage"].as_str(), line["step"].as_u64()));
    let expected = (1..=3).map(|step| (Some("teacher"), Some(step)));
    assert!(steps.eq(expected.chain((1..=5).map(|step| (Some("student"), Some(step))))));
    let mut expected = vec!["stage", "step", "loss", "lr", "weight_decay", "grad_norm"];
    expected.extend(["images_per_second", "data_wait_share", "context_tokens", "target_tokens"]);
    expected.sort_unstable();
    for line in &lines {
        let mut found = keys(line);
        found.sort_unstable();
        assert_eq!(found, expected);
        for key in ["loss", "grad_norm", "images_per_second"] {
            assert!(line[key].as_f64().is_some_and(|x| x > 0.0 && x.is_finite()), "{key}: {line}");
        }
        let share = line["data_wait_share"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{share}");
        // 8 images of 16 tokens, of which a random quarter is seen.
        assert_eq!((&line["context_tokens"], &line["target_tokens"]), (&32.into(), &96.into()));
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
    let place = Place::with_classes();
    place.trained("first", &[]);
    place.trained("second", &[]);
    place.assert_same_run("first", "second");
    place.trained("one thread", &["threads=1"]);
    place.assert_same_run("first", "one thread");
    place.trained("three threads", &["threads=3", "data.threads=3"]);
    place.assert_same_run("first", "three threads");
    place.trained("other seed", &["seed=1"]);
    assert_ne!(place.curve("first")[0]["loss"], place.curve("other seed")[0]["loss"]);
}

#[test]
fn a_batch_in_two_parts_has_the_loss_of_the_whole() {
    let place = Place::with_classes();
    // Ragged masks, so that parts have different numbers of targets, and stochastic depth.
    let masks = |stage| format!("{stage}.masks={{kind=\"multi_block\", per_sample=true}}");
    let (teacher, student) = (masks("teacher"), masks("student"));
    let set = [&teacher[..], &student, "data.size=64", "model.drop_path=0.3"];
    place.trained("whole", &set);
    let parts = ["teacher.accumulate=4", "student.accumulate=2"];
    place.trained("parts", &[&set[..], &parts].concat());
    // The first step of each stage; after it f32 sums in another order grow apart.
    for (step, bound) in [(0, 1e-6), (3, 1e-3)] {
        for key in ["loss", "grad_norm"] {
            let value = |run| place.curve(run)[step][key].as_f64().unwrap();
            let (whole, parts) = (value("whole"), value("parts"));
            assert!((whole - parts).abs() < bound * whole, "{key}: {whole} {parts}");
        }
    }
}

#[test]
fn replacing_a_run_leaves_nothing_of_it_and_a_refusal_all() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    place.text("run/notes.txt", "mine");
    let before = place.bytes("run/metrics.jsonl");
    let refused = |set: &str, words: &[&str]| {
        assert_refused(place.pretrain("run", &[set]).arg("--overwrite"), words);
        assert_eq!(place.bytes("run/metrics.jsonl"), before);
        assert!(is_loadable(&place.path("run/student/encoder.safetensors")));
    };
    refused("data.augment.flip=2", &["flip is 2"]);
    let teacher = place.path("run/teacher/encoder.safetensors");
    refused(&format!("student.teacher={}", teacher.display()), &["lies in the folder of the run"]);
    let mut again = place.pretrain("run", &["student.name=pupil", "data.holdout=0"]);
    assert!(again.arg("--overwrite").status().unwrap().success());
    assert!(place.path("run/pupil/encoder.safetensors").is_file());
    for gone in ["run/student", "run/probes.json"] {
        assert!(!place.path(gone).exists(), "{gone} is of the old run");
    }
    assert_eq!(place.bytes("run/notes.txt"), b"mine");
}

#[cfg(unix)]
#[test]
fn a_log_that_cannot_be_written_stops_the_run_and_keeps_the_weights() {
    let place = Place::with_classes();
    let small = ["model.width=8", "teacher.decoder={width=8, depth=1, heads=2}"];
    let run = place.pretrain("run", &[&small[..], &["teacher.steps=100000"]].concat());
    // Files of at most 64 blocks: less than the log of these steps, more than the weights.
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "bash"]);
    let output = command.arg(run.get_program()).args(run.get_args()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("metrics.jsonl"), "{}", stderr(&output));
    assert!(is_loadable(&place.path("run/teacher/encoder.safetensors")));
}

#[test]
fn a_flat_folder_trains_without_probes_and_says_so() {
    let place = Place::empty();
    (0..6).for_each(|index| place.image(&format!("photos/{index}.png"), index));
    (6..12).for_each(|index| place.image(&format!("photos/{index}.jpg"), index));
    // Nothing is held out where nothing can be probed, not even by the default of 1,000.
    for holdout in ["data.holdout=0", "data.holdout=2", "data.holdout=1000"] {
        let output = place.trained(holdout, &[holdout]);
        assert!(output.stdout.is_empty());
        let notes = stderr(&output);
        assert!(notes.contains("12 images, no labels"), "{notes}");
        assert!(notes.contains("no probes: "), "{notes}");
        assert!(!place.path(holdout).join("probes.json").exists());
        assert!(place.path(holdout).join("student/encoder.safetensors").is_file());
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_after_the_step_and_leaves_the_weights() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let place = Place::with_classes();
    let mut command = place.pretrain("run", &["teacher.steps=1000000"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let log = place.path("run/metrics.jsonl");
    while !fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let notes = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{notes}");
    let steps = place.metrics("run").len();
    let note = format!("interrupted in stage teacher after step {steps} of 1000000");
    assert!(notes.contains(&note), "{notes}");
    assert!(is_loadable(&place.path("run/teacher/encoder.safetensors")));
    assert!(!place.path("run/student").exists());
}

fn is_loadable(path: &Path) -> bool {
    saltworks::weights::load(path).is_ok_and(|file| !file.tensors.is_empty())
}
