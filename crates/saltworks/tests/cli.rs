//! The program as its users see it: real files in, exit codes, messages and run folders out.

mod place;

use place::{Place, assert_refused, is_loadable, keys, saltworks, stderr};
use serde_json::Value;
use std::fs;
use std::process::Command;

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
    place.text("photos/a.heic", "x");
    place.text("photos/b.heic", "x");
    place.refused(&[], &["/photos: 0 images", "found 2 .heic", "PNG, JPEG or WebP"]);
}

const NONE_BROKEN: &str = "data.max_unreadable=0.0";

#[test]
fn a_truncated_jpeg_is_named() {
    let place = Place::with_classes();
    place.cut("photos/stripes/7.jpg");
    let words = ["1 of", "photos/stripes/7.jpg: JPEG is cut off after", "cut_images = \"keep\""];
    place.refused(&[NONE_BROKEN], &words);
}

#[test]
fn a_truncated_png_met_while_training_is_named_too() {
    let place = Place::empty();
    (0..8).for_each(|index| place.image(&format!("photos/{index}.png"), index));
    place.cut("photos/3.png");
    let words = ["photos/3.png: cannot be decoded", "Replace or remove"];
    place.refused(&["data.holdout=0", NONE_BROKEN], &words); // the first batch is all eight
}

#[test]
fn a_truncated_image_late_in_training_keeps_the_weights() {
    let place = Place::empty();
    (0..9).for_each(|index| place.image(&format!("photos/{index}.png"), index));
    let set = ["data.holdout=0", "teacher.batch=1", "teacher.steps=9", NONE_BROKEN];
    // The step in which this seed reads the image.
    place.cut("photos/3.png");
    let steps: Vec<usize> = (0..3).map(|seed| place.cut_short(&set, seed)).collect();
    assert!(steps.iter().any(|&steps| steps > 0), "{steps:?}");
}

#[test]
fn broken_images_are_named_once_listed_and_left_out() {
    let place = Place::with_classes();
    place.cut("photos/stripes/7.jpg");
    place.text("photos/discs/3.png", "no image");
    let set = ["data.max_unreadable=0.1"];
    let notes = stderr(&place.trained("run", &set));
    for name in ["photos/stripes/7.jpg: JPEG is cut off", "photos/discs/3.png: "] {
        let printed =
            notes.lines().filter(|line| line.starts_with("left out: ") && line.contains(name));
        assert_eq!(printed.count(), 1, "{notes}");
    }
    assert!(notes.contains("2 images could not be read"), "{notes}");
    let list = String::from_utf8(place.bytes("run/unreadable.txt")).unwrap();
    assert_eq!(list.lines().count(), 2, "{list}");
    place.trained("three threads", &[&set[..], &["data.threads=3", "threads=3"]].concat());
    place.assert_same_run("run", "three threads");
}

#[test]
fn a_step_that_is_not_finite_is_kept_and_replayed() {
    let place = Place::with_classes();
    // Pixels near the end of f32 overflow in the first products.
    let set = [
        "teacher.lr=900",
        "teacher.steps=400",
        "teacher.decoder={width=64, depth=2, heads=4}",
        "data.normalize=inception",
        "data.augment={}",
    ];
    let output = place.pretrain("run", &set).output().unwrap();
    let notes = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{notes}");
    let printed = notes.lines().find(|line| line.contains("not applied")).unwrap_or(&notes);
    assert!(printed.len() < 500, "no list of the whole batch: {printed}");
    let (_, rest) = notes.split_once("`saltworks replay ").unwrap_or_else(|| panic!("{notes}"));
    let folder = rest.split_once('`').unwrap().0;
    let replay = saltworks().arg("replay").arg(folder).output().unwrap();
    assert!(replay.status.success(), "{}", stderr(&replay));
    let printed = String::from_utf8(replay.stdout).unwrap();
    for words in [
        "of stage teacher: ",
        "first: ",
        "samples are finite alone",
        "The cause is not a few bad images",
    ] {
        assert!(printed.contains(words), "{words:?} is not in:\n{printed}");
    }
    assert_refused(saltworks().args(["replay", "no/such"]), &["no/such/step.json"]);
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

/// Typical first recipes. Without a key in the message, new users do not find the line to correct.
#[test]
fn a_value_that_makes_no_sense_is_named_by_file_line_and_key() {
    let place = Place::with_classes();
    let refused = |text: &str, words: &[&str]| {
        let recipe = place.text("dig.toml", text);
        let mut command = saltworks();
        command.arg("pretrain").arg(&recipe).arg("--out").arg(place.path("run"));
        assert_refused(&mut command, words);
    };
    let stage = |keys: &str| {
        let photos = place.path("photos");
        let data = format!("[data]\npath = {:?}\nsize = 32\n", photos.display().to_string());
        let model = "[model]\nwidth = 48\npatch = 8\nheads = 3\n";
        format!("{data}{model}[[stage]]\nname = \"teacher\"\nsteps = 1\n{keys}\n")
    };
    let random = "masks = { kind = \"random\", ratio = 75 }";
    let words = ["dig.toml, line 12: teacher.masks.ratio is 75, expected a number above 0"];
    refused(&stage(&format!("lr = 1e-3\n{random}")), &words);
    refused(&stage("lr = -1"), &["dig.toml, line 11: teacher.lr is -1, expected at least 0"]);
    let heads = ["dig.toml, line 5: model.width, model.heads: ", "not divisible by 5 heads"];
    refused(&stage("").replace("heads = 3", "heads = 5"), &heads);
    let own = ["line 11: teacher.model.width, model.heads: "];
    refused(&stage("model = { width = 50 }"), &own);
    let patch = ["dig.toml, line 3: data.size, model.patch: ", "not a multiple of the patch's 5"];
    refused(&stage("").replace("patch = 8", "patch = 5"), &patch);
    let student =
        "[[stage]]\nname = \"student\"\nmethod = \"salt\"\nteacher = \"techer\"\nsteps = 1";
    refused(&stage(student), &["line 14: student.teacher is", "Did you mean \"teacher\"?"]);
    refused(
        &stage("epochs = 2"),
        &["line 8: teacher is given 2 of epochs, steps, samples and minutes"],
    );
    let holdout =
        ["dig.toml, line 2: data.holdout is 5000", "Set data.holdout in", "data.holdout=4"];
    refused(&stage("").replace("[data]", "[data]\nholdout = 5000"), &holdout);
    refused(
        "[[stage]]\nname = \"a\"\nsteps = 1\n",
        &["data.size, model.patch", "no data.path", "built-in Fashion-MNIST"],
    );
    refused("\0\u{1}", &["dig.toml is not a recipe (TOML text)"]);
    assert_refused(
        saltworks().arg("pretrain").arg(place.path("dgi.toml")),
        &["cannot read recipe", "Did you mean", "dig.toml?"],
    );
}

#[test]
fn sizes_that_do_not_fit_say_what_would() {
    let place = Place::with_classes();
    place.refused(&["model.heads=3"], &["width 32 is not divisible by 3 heads"]);
    place.refused(&["model.heads=3"], &["--set model.heads=3: model.width, model.heads: "]);
    place.refused(&["student.predictor.heads=7"], &["predictor width 32", "7 heads"]);
    place.refused(&["model.patch=64"], &["smaller than a patch of 64"]);
    place.refused(&["model.patch=7"], &["28 or 35"]);
    place.refused(&["model.patch=0"], &["patch"]);
    place.refused(&["model.name=resnet50"], &["resnet50", "vit_"]);
    place.refused(&["data.channels=300"], &["data.channels is 300", "1 (grey), 3 (colour) or"]);
    place.refused(&["data.channels=2"], &["has 3 bands, and data.channels is 2"]);
    place.refused(&["data.holdout=24"], &["data.holdout is 24", "0 to 22", "24 images"]);
}

#[test]
fn numbers_that_make_no_sense_are_refused_by_key() {
    let place = Place::with_classes();
    place.refused(&["data.threads=0"], &["threads is 0"]);
    place.refused(&["teacher.steps=0"], &["teacher.steps is 0"]);
    place.refused(&["teacher.epochs=-1"], &["teacher.epochs is -1"]);
    place.refused(&["teacher.epochs=nan"], &["teacher.epochs is NaN"]);
    place.refused(&["teacher.lr=nan"], &["teacher.lr is NaN"]);
    place.refused(&["student.eps=-1.0"], &["student.eps is -1"]);
    place.refused(&["teacher.loss={smooth_l1=nan}"], &["teacher.loss"]);
    place.refused(&["teacher.warmup={percent=-50.0}"], &["teacher.warmup is -50"]);
    place.refused(&["student.batch=70000"], &["student.batch is 70000"]);
    place.refused(&["probe.temperature=nan"], &["temperature NaN"]);
    place.refused(&["data.normalize.mean=[nan]"], &["data.normalize.mean is [NaN]"]);
    place.refused(&["model.layer_scale=nan"], &["layer_scale is NaN"]);
    place.refused(&["model.mlp_ratio=1e300"], &["hidden width", "at most"]);
    place.refused(&["teacher.decoder={width=64,depth=1000000,heads=4}"], &["decoder depth"]);
    place.refused(&["threads=100000"], &["threads is 100000", "eight per core"]);
    place.refused(&["student.clip=nan"], &["student.clip is NaN"]);
    place.refused(&["student.betas=[0.9, 1.0]"], &["student.betas"]);
    place.refused(&["student.batch=0"], &["student.batch is 0"]);
    place.refused(&["student.accumulate=3"], &["student.accumulate is 3"]);
    place.refused(&["data.augment.flip=2"], &["data.augment.flip is 2"]);
    place.refused(&["data.normalize.std=[0.0]"], &["data.normalize.std"]);
}

#[test]
fn masks_that_leave_no_context_are_refused_with_the_grid() {
    let place = Place::with_classes();
    let everything = "student.masks={kind=\"multi_block\", context={count=1, scale=[0.1, 0.1], \
                      aspect_ratio=[1.0, 1.0]}, targets={count=30, scale=[0.9, 0.9], \
                      aspect_ratio=[1.0, 1.0]}}";
    place.refused(&[everything], &["masks leave no context", "4 x 4"]);
    place.refused(&["teacher.masks={kind=\"random\", ratio=1.0}"], &["teacher.masks.ratio is 1"]);
    place.refused(&["model.patch=32"], &["masks leave no", "1 x 1"]);
}

#[test]
fn an_output_folder_that_cannot_be_made_is_refused() {
    let place = Place::with_classes();
    place.text("file", "x");
    let mut command = place.pretrain("file/run", &[]);
    assert_refused(&mut command, &["cannot write", "file/run", "--out"]);
    assert_eq!(place.bytes("file"), b"x");
    let words = ["cannot write", "file is a file, expected the folder of a run", "--out"];
    assert_refused(&mut place.pretrain("file", &[]), &words);
}

#[test]
fn a_teacher_that_cannot_teach_is_refused_before_any_training() {
    let place = Place::with_classes();
    place.refused(&["student.teacher=no/such.safetensors"], &["no/such.safetensors", "teacher"]);
    place.refused(&["student.model.patch=16"], &["teacher teacher", "4 x 4", "2 x 2"]);
    let file = place.text("not.safetensors", "not a weight file");
    let given = format!("student.teacher={}", file.display());
    place.refused(&[&given], &["not.safetensors is not a whole safetensors file"]);

    place.trained("small", &[]);
    let file = place.path("small/teacher/encoder.safetensors");
    let given = format!("student.teacher={}", file.display());
    let words =
        ["encoder.safetensors", "4 x 4 patches of 8 x 8 pixels in 32 x 32 images", "64 x 64"];
    place.refused(&[&given, "data.size=64", "model.patch=16"], &words);
    let resized = place.trained("resized", &[&given, "data.size=64"]);
    assert!(stderr(&resized).contains("positions resized from 4 x 4 to 8 x 8 patches"));
    place.refused(&[&given, "data.channels=1"], &["3 channels", "1 channels"]);

    // Without its metadata a file has the sizes of its tensors, and the student's heads.
    let bare = saltworks::weights::load(&file).unwrap().tensors.into_iter().collect::<Vec<_>>();
    let bare_file = place.path("bare.safetensors");
    saltworks::weights::save(&bare_file, &bare, &[].into()).unwrap();
    let given = format!("student.teacher={}", bare_file.display());
    let words = ["bare.safetensors", "how many heads the width 32 is split into", "--heads"];
    place.refused(&[&given, "model.width=64"], &words);
    place.trained("again", &[&given]);

    // A PyTorch file gives the same teacher.
    let torch_file = place.path("bare.ckpt");
    let dtype = saltworks::weights::Dtype::F32;
    saltworks::weights::save_torch(&torch_file, &bare, Some("state_dict"), &[].into(), dtype)
        .unwrap();
    place.trained("torch", &[&format!("student.teacher={}", torch_file.display())]);
    let student = |run: &str| place.bytes(&format!("{run}/student/encoder.safetensors"));
    assert_eq!(student("torch"), student("again"));
}

#[test]
fn a_folder_that_holds_a_run_is_kept_unless_replaced() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let before = place.bytes("run/metrics.jsonl");
    assert_refused(
        &mut place.pretrain("run", &["seed=1"]),
        &["holds a run already", "it is finished", "seed is 0 there and 1 here", "--overwrite"],
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
        // One byte tells which of the eight held-out images are right.
        let right = u8::from_str_radix(probes[3]["right"][name].as_str().unwrap(), 16).unwrap();
        assert_eq!(f64::from(right.count_ones()) / 8.0, accuracy, "{name}");
    }
    for stage in ["teacher", "student"] {
        let file = format!("run/{stage}/encoder.safetensors");
        let weights = saltworks::weights::load(&place.path(&file)).unwrap().tensors;
        assert_eq!(weights["patch_embed.proj.weight"].shape(), [32, 3, 8, 8]);
        assert!(weights.values().all(|tensor| tensor.to_host().iter().all(|x| x.is_finite())));
    }
}

#[test]
fn readers_that_disconnect_do_not_end_a_run() {
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
    let mut expected =
        vec!["stage", "step", "unix_seconds", "loss", "lr", "weight_decay", "grad_norm"];
    expected.extend(["images_per_second", "data_wait_share", "context_tokens", "target_tokens"]);
    expected.push("seconds");
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
fn probes_are_lines_of_metrics_and_change_no_bit_of_training() {
    let place = Place::with_classes();
    let notes = stderr(&place.trained("run", &["student.steps=6", "probe.every_steps=2"]));
    let lines = place.log("run");
    let probes: Vec<&Value> = lines.iter().filter(|line| line.get("probe").is_some()).collect();
    let steps = |stage: &str| -> Vec<u64> {
        let of = probes.iter().filter(|line| line["stage"] == stage);
        of.map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!((steps("teacher"), steps("student")), (vec![0, 2, 3], vec![0, 2, 4, 6]));
    for line in &probes {
        let probe = &line["probe"];
        let number = |key: &str| probe[key].as_f64().unwrap_or_else(|| panic!("{key}: {probe}"));
        for key in ["knn_mean", "knn_cls", "linear_mean", "linear_cls"] {
            assert!((0.0..=1.0).contains(&number(key)), "{key}: {probe}");
        }
        assert!(number("loss") > 0.0 && number("seconds") > 0.0 && number("feature_std") > 0.0);
        assert!((1.0..=16.0).contains(&number("rank_me")), "{probe}");
        assert!((1.0..=16.0).contains(&number("lidar")), "{probe}");
    }
    assert!(notes.contains("after step 4, on "), "{notes}");
    // The held-out loss before the first step is that of a new decoder: the largest.
    let losses: Vec<f64> =
        probes[..3].iter().map(|line| line["probe"]["loss"].as_f64().unwrap()).collect();
    assert!(losses[2] < losses[0], "{losses:?}");
    // All images are probed, so kNN at the end of a stage equals that of the table.
    let table: Value = serde_json::from_slice(&place.bytes("run/probes.json")).unwrap();
    for stage in ["teacher", "student"] {
        let last = probes.iter().rfind(|line| line["stage"] == stage).unwrap();
        let row = table.as_array().unwrap().iter().find(|row| row["features"] == stage).unwrap();
        for key in ["knn_mean", "knn_cls"] {
            assert_eq!(last["probe"][key], row[key], "{stage} {key}");
        }
        assert_eq!((&last["probe"]["test_images"], &row["images"]), (&8.into(), &8.into()));
        assert_eq!((&last["probe"]["held_out"], &row["images"]), (&true.into(), &8.into()));
    }
    // It is the training loss, a mean over targets, so it is near that of the first step.
    let (held_out, trains) = (losses[0], place.metrics("run")[0]["loss"].as_f64().unwrap());
    assert!((0.5..2.0).contains(&(held_out / trains)), "{held_out} held out, {trains} in training");
    place.trained("without", &["student.steps=6", "probe.online=false"]);
    assert!(place.log("without").iter().all(|line| line.get("probe").is_none()));
    place.assert_same_run("run", "without");
}

/// Weights that do not change, under masks that do not change.
#[test]
fn the_held_out_loss_of_the_same_weights_is_the_same_at_every_step() {
    let place = Place::with_classes();
    let still = ["teacher.lr=1e-30", "teacher.start_lr=1e-30", "teacher.final_lr=1e-30"];
    let more = ["teacher.steps=4", "probe.every_steps=1", "log.pictures=false"];
    place.trained("run", &[&still[..], &more].concat());
    let log = place.log("run");
    let probes = log.iter().filter(|line| line["stage"] == "teacher");
    let losses: Vec<&Value> =
        probes.filter_map(|line| line.get("probe")).map(|probe| &probe["loss"]).collect();
    assert_eq!(losses.len(), 5);
    assert!(losses.iter().all(|loss| *loss == losses[0]), "{losses:?}");
}

#[test]
fn a_run_without_held_out_images_calls_none_held_out() {
    let place = Place::with_classes();
    let printed = stderr(&place.trained("run", &["data.holdout=0"]));
    assert!(printed.contains("loss on fixed training images"), "{printed}");
    assert!(!printed.contains("held-out loss"), "{printed}");
    let log = place.log("run");
    let probes: Vec<&Value> = log.iter().filter_map(|line| line.get("probe")).collect();
    assert!(!probes.is_empty() && probes.iter().all(|probe| probe["held_out"] == false));
    let pictures: Value =
        serde_json::from_slice(&place.bytes("run/pictures/student.json")).unwrap();
    assert_eq!(pictures["held_out"], false);
    for entry in pictures["neighbours"].as_array().unwrap() {
        // The image itself is among the candidates, but it is no neighbour of its own.
        let nearest = entry["near"][0]["similarity"].as_f64().unwrap();
        assert!(nearest < 1.0 - 1e-9, "{nearest}");
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
fn checkpointed_activations_give_the_same_weights_from_less_memory() {
    let place = Place::with_classes();
    let set = ["model.drop_path=0.4", "model.qk_norm=true", "student.accumulate=2"];
    let deep = ["model.depth=4", "data.holdout=0"];
    let plain = [&set[..], &deep].concat();
    let both = ["teacher.activation_checkpointing=true", "student.activation_checkpointing=true"];
    place.trained("plain", &plain);
    place.trained("checkpointed", &[&plain[..], &both].concat());
    for file in ["teacher/model.safetensors", "student/model.safetensors"] {
        let [a, b] = ["plain", "checkpointed"].map(|run| place.bytes(&format!("{run}/{file}")));
        assert!(a == b, "{file}");
    }
    let memory = |checkpointing: bool| {
        let mut bench = saltworks();
        bench.args(["bench", "--stage", "mae", "--steps", "1", "--json"]);
        bench.args(["--set", "model={width=64,depth=24,heads=2}"]);
        bench.args(["--set", "step.decoder={width=32,depth=1,heads=2}"]);
        bench.args(["--set", &format!("step.activation_checkpointing={checkpointing}")]);
        let output = bench.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        line["peak_memory_bytes"].as_f64().unwrap()
    };
    let (plain, checkpointed) = (memory(false), memory(true));
    assert!(checkpointed < 0.8 * plain, "{checkpointed} of {plain} bytes");
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
    // The first step of each stage. After it, f32 sums in another order drift apart.
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
    refused(
        &format!("student.teacher={}", teacher.display()),
        &["is inside the folder of the run"],
    );
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
fn a_recipe_as_it_ran_has_the_keys_that_its_stages_read() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let text = String::from_utf8(place.bytes("run/recipe.toml")).unwrap();
    let (teacher, student) = text.split_once("name = \"student\"").unwrap();
    for (key, of_teacher) in [
        ("[stage.decoder]", true),
        ("pixel_norm", true),
        ("covered", true),
        ("[stage.predictor]", false),
        ("target_layer_norm", false),
    ] {
        assert_eq!(teacher.contains(key), of_teacher, "{key} in {teacher}");
        assert_eq!(student.contains(key), !of_teacher, "{key} in {student}");
    }
}

#[test]
fn unusual_values_are_reported_and_applied() {
    let place = Place::with_classes();
    let given = ["student.lr=2", "student.batch=32", "student.steps=1", "data.background=[1,1,1]"];
    let printed = stderr(&place.trained("run", &given));
    assert!(printed.contains("data.background is [1, 1, 1], nearly black"), "{printed}");
    assert!(
        printed.contains("student.lr is 2: usual values for AdamW are 1e-4 to 5e-3"),
        "{printed}"
    );
    let batch = "student.batch is 32, but there are 16 training images: each step sees every image \
                 2.0 times";
    assert!(printed.contains(batch), "{printed}");
}

#[test]
fn images_without_a_class_are_named_with_the_remedy() {
    let place = Place::with_classes();
    (0..5).for_each(|index| place.image(&format!("photos/{index}.png"), index));
    let printed = stderr(&place.trained("run", &[]));
    for words in [
        "nothing is held out: 5 of 29 images have no class",
        "The first is",
        "photos/0.png. Give each image a class",
    ] {
        assert!(printed.contains(words), "{words:?} is not in:\n{printed}");
    }
}

#[test]
fn a_flat_folder_trains_without_probes_and_says_so() {
    let place = Place::empty();
    (0..6).for_each(|index| place.image(&format!("photos/{index}.png"), index));
    (6..12).for_each(|index| place.image(&format!("photos/{index}.jpg"), index));
    // If nothing can be probed, nothing is held out.
    for holdout in ["data.holdout=0", "data.holdout=2", "data.holdout=1000"] {
        let output = place.trained(holdout, &[holdout]);
        assert!(output.stdout.is_empty());
        let notes = stderr(&output);
        assert!(notes.contains("12 images, no labels"), "{notes}");
        let asked = holdout != "data.holdout=0";
        assert_eq!(
            notes.contains("; nothing is held out: no image has a class;"),
            asked,
            "{notes}"
        );
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
    while !fs::read_to_string(&log).is_ok_and(|log| log.contains("grad_norm")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let notes = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{notes}");
    let steps = place.metrics("run").len();
    let note = format!("interrupted in stage teacher after step {steps} of 1000000; `saltworks");
    assert!(notes.contains(&note), "{notes}");
    assert!(is_loadable(&place.path("run/teacher/encoder.safetensors")));
    assert!(!place.path("run/student").exists());
}
