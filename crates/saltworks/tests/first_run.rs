//! The first run on one's own images: a path is enough, and what is chosen is said and kept.

mod place;

use place::{Place, assert_refused, saltworks, stderr};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Output};

/// Stages of a second, whatever was chosen.
const SHORT: &[&str] = &["teacher.steps=2", "student.steps=2", "model.depth=1", "threads=2"];

/// `saltworks VERB ...` in the place's folder.
fn verb(place: &Place, verb: &str, arguments: &[&str]) -> Command {
    let mut command = saltworks();
    command.current_dir(place.path("")).arg(verb).args(arguments);
    command
}

fn short(command: &mut Command) -> Output {
    for set in SHORT {
        command.args(["--set", set]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

fn recipe(place: &Place, run: &str) -> saltworks::recipe::Recipe {
    saltworks::recipe::load_trained(&place.path(&format!("{run}/recipe.toml")), &[]).unwrap()
}

#[test]
fn a_path_of_images_is_enough_and_what_was_chosen_is_said_and_kept() {
    let place = Place::with_classes();
    let notes = stderr(&short(&mut verb(&place, "pretrain", &["photos"])));
    for words in ["chosen for these images", "data.size = [36, 42]", "40 in the median", "colours"]
    {
        assert!(notes.contains(words), "{words:?} is not in:\n{notes}");
    }
    let made = recipe(&place, "runs/photos");
    assert_eq!((made.data.size.sides(), made.model.patch.unwrap().height), ([36, 42], 6));
    assert!(made.data.normalize.mean.iter().all(|mean| (0.05..0.95).contains(mean)));
    let rows: Vec<Value> = serde_json::from_slice(&place.bytes("runs/photos/probes.json")).unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["features"].as_str().unwrap()).collect();
    assert_eq!(names, ["raw pixels", "random encoder", "teacher", "student"]);
}

/// Twenty images of 12 bands of 12 bits, as numpy.save writes them.
fn bands() -> Vec<u8> {
    let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (20, 12, 32, 32), }";
    let mut file = b"\x93NUMPY\x01\0\x76\0".to_vec();
    file.extend(format!("{header:<117}\n").bytes());
    let value = |at: u32| (at.wrapping_mul(2_654_435_761) >> 20) as u16;
    file.extend((0..20 * 12 * 32 * 32).flat_map(|at| value(at).to_le_bytes()));
    file
}

#[test]
fn images_of_twelve_bands_and_twelve_bits_are_trained_on_as_they_are() {
    let place = Place::with_classes();
    fs::File::create(place.path("bands.npy")).unwrap().write_all(&bands()).unwrap();
    let notes = stderr(&short(&mut verb(&place, "pretrain", &["bands.npy"])));
    for words in ["data.channels = 12", "data.depth = [0.0, 4095.0]", "16-bit numbers from 0 to"] {
        assert!(notes.contains(words), "{words:?} is not in:\n{notes}");
    }
    let made = recipe(&place, "runs/bands");
    // Values are spread evenly, so that their mean is the middle of the depth.
    assert_eq!(made.data.normalize.mean.len(), 12);
    assert!(made.data.normalize.mean.iter().all(|mean| (0.45..0.55).contains(mean)));
    let pictures = place.bytes("runs/bands/pictures/teacher.json");
    let pictures: Value = serde_json::from_slice(&pictures).unwrap();
    assert!(pictures["reconstructions"][0]["masked"].is_string(), "{}", pictures["method"]);
    // Neither fewer channels fit, nor a teacher of these for images of others.
    let few = ["bands.npy", "--out", "few", "--set", "data.channels=3"];
    let words = "has 12 bands, and data.channels is 3. Set data.channels = 12";
    assert_refused(&mut verb(&place, "pretrain", &few), &[words]);
    let teacher = "runs/bands/teacher/encoder.safetensors";
    let taught = ["photos", "--out", "taught", "--teacher", teacher];
    let words = "has 3 bands, and data.channels is 12";
    assert_refused(&mut verb(&place, "pretrain", &taught), &[words]);
}

#[test]
fn the_printed_recipe_makes_the_same_run() {
    let place = Place::with_classes();
    let printed = verb(&place, "recipe", &["photos"]).output().unwrap();
    assert!(printed.status.success(), "{}", stderr(&printed));
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("# Height and width of the model's images in pixels"), "{text}");
    place.text("photos.toml", &text);
    short(&mut verb(&place, "pretrain", &["photos", "--out", "a"]));
    short(&mut verb(&place, "pretrain", &["photos.toml", "--out", "b"]));
    place.assert_same_run("a", "b");
}

#[test]
fn a_named_model_is_the_one_that_is_trained() {
    let place = Place::with_classes();
    let named = ["photos", "--model", "vit_small_patch16_224", "--set", "data.size=32"];
    let planned = verb(&place, "recipe", &named).output().unwrap();
    let text = String::from_utf8(planned.stdout).unwrap();
    let recipe = saltworks::recipe::from_text("printed", &text, &[]).unwrap();
    assert_eq!(recipe.model.name(), "vit_small_patch16_224");
    assert_eq!((recipe.model.width, recipe.model.depth, recipe.model.patch), (None, None, None));
    // Also over the sizes of a recipe.
    let set = ["model.patch=8", "model.name=vit_small_patch16_224"].map(str::to_owned);
    let model = saltworks::recipe::load(None, &set).unwrap().model;
    assert_eq!((model.width, model.patch.unwrap().height), (None, 8));
    let wrong = ["photos", "--model", "vit_small_patch16_224", "--set", "data.size=40"];
    assert_refused(&mut verb(&place, "pretrain", &wrong), &["40 pixels is not a multiple of"]);
}

#[test]
fn minutes_become_steps_that_a_resumed_run_keeps() {
    let place = Place::with_classes();
    let timed = |out: &str, minutes: &str| {
        let mut command = verb(&place, "pretrain", &["photos", "--out", out]);
        command.args(["--minutes", minutes, "--set", "model.depth=1", "--set", "threads=2"]);
        command
    };
    let output = timed("run", "0.05").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let stages = recipe(&place, "run").stage;
    assert!(stages.iter().all(|stage| stage.minutes.is_none() && stage.steps >= Some(1)));
    let text = stderr(&output);
    assert!(text.contains("steps take about"), "{text}");
    // As if it had been stopped after its stages.
    let state = String::from_utf8(place.bytes("run/state.json")).unwrap();
    place.text("run/state.json", &state.replace("\"finished\": true", "\"finished\": false"));
    let output = timed("run", "0.05").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(recipe(&place, "run").stage, stages);
    place.text("run/state.json", &state.replace("\"finished\": true", "\"finished\": false"));
    let words = ["began with other lengths", "0.05", "0.5"];
    assert_refused(&mut timed("run", "0.5"), &words[..1]);
}

#[test]
fn the_quickstart_can_be_made_shorter_by_its_time_and_wrong_times_are_refused() {
    let place = Place::empty();
    let set = |minutes: &str| {
        let key = format!("minutes={minutes}");
        saltworks::recipe::load(None, &[key]).map_err(|error| error.to_string())
    };
    assert_eq!(set("3").unwrap().minutes, Some(3.0));
    assert!(set("0").unwrap_err().contains("minutes is 0.0, expected a number above 0"));
    let both = ["minutes=3", "teacher.minutes=1"].map(str::to_owned);
    let error = saltworks::recipe::load(None, &both).unwrap_err().to_string();
    assert!(error.contains("teacher.minutes"), "{error}");
    let unknown = ["student.time=3".to_owned()];
    let error = saltworks::recipe::load(None, &unknown).unwrap_err().to_string();
    assert!(error.contains("Did you mean `minutes`?"), "{error}");
    let words = ["no/such", "Give the file of a recipe, or none"];
    assert_refused(&mut verb(&place, "pretrain", &["no/such"]), &words[..1]);
}

#[test]
fn a_folder_of_validation_images_is_probed_on_and_more_test_images_get_rows_of_their_own() {
    let place = Place::empty();
    for index in 0..12 {
        place.image(&format!("data/train/discs/{index}.png"), index);
        place.image(&format!("data/train/stripes/{index}.jpg"), index);
    }
    for index in 12..16 {
        place.image(&format!("data/val/discs/{index}.png"), index);
        place.image(&format!("data/val/stripes/{index}.jpg"), index);
        place.image(&format!("other/stripes/{index}.jpg"), index + 9);
    }
    let notes = stderr(&short(&mut verb(&place, "pretrain", &["data", "--out", "run"])));
    assert!(notes.contains("probing on data/val"), "{notes}");
    let rows: Vec<Value> = serde_json::from_slice(&place.bytes("run/probes.json")).unwrap();
    assert!(rows.iter().all(|row| row["images"] == 8 && row["train_images"] == 24), "{rows:?}");
    let several = ["data", "--out", "two", "--set", "probe.test=['data/val', 'other']"];
    short(&mut verb(&place, "pretrain", &several));
    let rows: Vec<Value> = serde_json::from_slice(&place.bytes("two/probes.json")).unwrap();
    let row = rows.iter().find(|row| row["features"] == "student on other").unwrap();
    assert_eq!((rows.len(), &row["images"]), (8, &Value::from(4)));
    let leak = ["data", "--out", "leak", "--set", "probe.test=data/train/discs"];
    assert_refused(
        verb(&place, "pretrain", &leak).args(["--set", "student.steps=1"]),
        &["0.png is in the images to train on"],
    );
}

/// Nobody asked for that folder, so images without classes in it are no reason to stop.
#[test]
fn validation_images_without_classes_are_passed_over() {
    let place = Place::empty();
    for index in 0..12 {
        place.image(&format!("data/train/discs/{index}.png"), index);
        place.image(&format!("data/train/stripes/{index}.jpg"), index);
        place.image(&format!("data/test/{index}.png"), index + 12);
    }
    let notes = stderr(&short(&mut verb(&place, "pretrain", &["data", "--out", "run"])));
    assert!(notes.contains("data/test is not used for probes: not all of its images"), "{notes}");
    assert!(notes.contains("(4 held out)"), "{notes}");
    assert!(notes.contains("features of 20 of 20 training images and 4 of 4 others"), "{notes}");
}

/// The accuracy would be that of images that were seen in training.
#[test]
fn test_images_that_train_and_classes_without_test_images_are_reported() {
    let place = Place::empty();
    for index in 0..12 {
        place.image(&format!("data/train/discs/{index}.png"), index);
        place.image(&format!("data/train/stripes/{index}.jpg"), index);
        place.image(&format!("data/train/more/{index}.jpg"), index + 40);
    }
    for index in 8..16 {
        place.image(&format!("data/val/discs/{index}.png"), index);
        place.image(&format!("data/val/stripes/{index}.jpg"), index + 60);
    }
    let notes = stderr(&short(&mut verb(&place, "pretrain", &["data", "--out", "run"])));
    for words in [
        "data/val: 4 of 16 images that were compared are training images, too, such as \
         data/val/discs/10.png, a copy of data/train/discs/10.png",
        "data/val: no image of 1 of the 3 classes that are trained on, such as more",
    ] {
        assert!(notes.contains(words), "{words} is not in {notes}");
    }
}

#[test]
fn threads_that_are_set_compute_also_without_a_recipe() {
    let place = Place::with_classes();
    let set = ["threads=1", "teacher.steps=1", "student.steps=1"];
    let set = set.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>();
    let mut command = verb(&place, "pretrain", &[&["photos", "--out", "run"], &set[..]].concat());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let environment: Value = serde_json::from_slice(&place.bytes("run/environment.json")).unwrap();
    assert_eq!(environment["threads"], 1);
}

#[test]
fn a_choice_keeps_the_threads_that_its_run_began_with() {
    let place = Place::with_classes();
    let run = || {
        let mut command = verb(&place, "pretrain", &["photos"]);
        command.args(["--set", "teacher.steps=2", "--set", "student.steps=2"]);
        command
    };
    assert!(run().output().unwrap().status.success());
    let began = String::from_utf8(place.bytes("runs/photos/environment.json")).unwrap();
    let state = String::from_utf8(place.bytes("runs/photos/state.json")).unwrap();
    let unfinished = state.replace("\"finished\": true", "\"finished\": false");
    place.text("runs/photos/state.json", &unfinished);
    let threads: Value = serde_json::from_str(&began).unwrap();
    let threads = format!("\"threads\": {}", threads["threads"]);
    let many = began.replace(&threads, "\"threads\": 4096");
    assert_ne!(many, began);
    place.text("runs/photos/environment.json", &many);
    assert_refused(&mut run(), &["with another recipe", "model.width"]);
    place.text("runs/photos/environment.json", &began);
    assert!(run().output().unwrap().status.success());
}

#[test]
fn a_cooldown_holds_the_learning_rate_until_it_falls_in_a_line() {
    let place = Place::with_classes();
    let set = ["student.steps=8", "student.warmup={steps=2}", "student.cooldown={steps=4}"];
    place.trained("run", &[&set[..], &["student.lr=4e-3", "student.final_lr=0"]].concat());
    let lines = place.metrics("run");
    let student = lines.iter().filter(|line| line["stage"] == "student");
    let rates: Vec<f64> = student.map(|line| 1e3 * line["lr"].as_f64().unwrap()).collect();
    let wanted = [2.0, 4.0, 4.0, 4.0, 3.0, 2.0, 1.0, 0.0];
    assert!(rates.iter().zip(wanted).all(|(got, want)| (got - want).abs() < 1e-6), "{rates:?}");
}

#[test]
fn a_stage_starts_from_the_weights_that_init_names() {
    let place = Place::with_classes();
    let still = ["student.init=teacher", "student.lr=0", "student.final_lr=0"];
    place.trained("made", &still);
    let encoder = |stage: &str| {
        let path = place.path(&format!("made/{stage}/encoder.safetensors"));
        saltworks::weights::load(&path).unwrap().tensors
    };
    let (teacher, student) = (encoder("teacher"), encoder("student"));
    for (name, tensor) in &teacher {
        assert_eq!(tensor.to_vec(), student[name].to_vec(), "{name}");
    }
    let file = place.path("made/teacher/encoder.safetensors").display().to_string();
    let from_file = [format!("teacher.init={file}"), "teacher.lr=0".into()];
    let from_file: Vec<_> = from_file.iter().map(String::as_str).collect();
    place.trained("again", &[&from_file[..], &["teacher.final_lr=0"]].concat());
    let again = place.path("again/teacher/encoder.safetensors");
    let again = saltworks::weights::load(&again).unwrap().tensors;
    assert!(teacher.iter().all(|(name, tensor)| tensor.to_vec() == again[name].to_vec()));
    let wider = ["student.init=teacher", "student.model={width=64}"];
    place.refused(&wider, &["student.init is \"teacher\"", "width 32", "expected width 64"]);
    place.refused(&["student.init=teachr"], &["Did you mean \"teacher\"?"]);
}

#[test]
fn a_trained_encoder_teaches_without_a_first_stage() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let teacher = "run/teacher/encoder.safetensors";
    let output = short_student(&mut verb(
        &place,
        "pretrain",
        &["photos", "--teacher", teacher, "--out", "student"],
    ));
    assert!(output.status.success(), "{}", stderr(&output));
    let recipe = recipe(&place, "student");
    assert_eq!((recipe.stage.len(), recipe.model.patch.unwrap().height), (1, 8));
    // Its file states how it saw images, which is not what would be measured on these.
    assert_eq!(recipe.data.normalize, self::recipe(&place, "run").data.normalize);
    assert!(stderr(&output).contains("(the teacher's)"), "{}", stderr(&output));
    assert!(!place.path("student/teacher").exists());
    let mut other = verb(&place, "pretrain", &["--resume", "--out", "run", "--teacher", teacher]);
    assert_refused(&mut other, &["holds a run already, with another recipe", "student.teacher"]);
    assert!(fs::metadata(place.path("student/student/encoder.safetensors")).is_ok());
}

fn short_student(command: &mut Command) -> Output {
    for set in ["student.steps=2", "model.depth=1", "threads=2"] {
        command.args(["--set", set]);
    }
    command.output().unwrap()
}
