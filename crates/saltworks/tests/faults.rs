//! Faults that no other test caught when they were planted in the source.

mod place;

use place::{Place, assert_refused, saltworks, stderr};
use saltworks::data::{self, Loader};
use saltworks::recipe;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

#[test]
fn the_weight_decay_reaches_its_final_value() {
    let place = Place::with_classes();
    let set = ["teacher.weight_decay=0.04", "teacher.final_weight_decay=0.4", "teacher.steps=9"];
    place.trained("run", &set);
    let decays: Vec<f64> = place
        .metrics("run")
        .iter()
        .filter(|line| line["stage"] == "teacher")
        .map(|line| line["weight_decay"].as_f64().unwrap())
        .collect();
    assert_eq!(decays.len(), 9);
    // Half a cosine: 0.04 + 0.36 (1 - cos(π/9))/2 after the first step.
    assert!((decays[0] - 0.050_855).abs() < 1e-6, "{decays:?}");
    assert!((decays[8] - 0.4).abs() < 1e-6, "{decays:?}");
    assert!(decays.is_sorted(), "{decays:?}");
}

#[test]
fn a_changed_teacher_of_another_run_is_refused() {
    let place = Place::with_classes();
    place.trained("first", &[]);
    let teacher = place.path("teacher.safetensors");
    fs::copy(place.path("first/teacher/encoder.safetensors"), &teacher).unwrap();
    place.trained("run", &[&format!("student.teacher={}", teacher.display())]);
    let mut bytes = fs::read(&teacher).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    saltworks::files::write_whole(&teacher, &bytes).unwrap();
    let mut longer = saltworks();
    longer.args(["pretrain", "--resume", "--out"]).arg(place.path("run"));
    longer.args(["--set", "student.steps=5"]);
    let words = ["the teacher of stage student is not the file this stage began with"];
    assert_refused(&mut longer, &words);
}

#[test]
fn probes_see_the_centre_that_eval_zoom_leaves() {
    let place = Place::empty();
    fs::create_dir(place.path("photos")).unwrap();
    // White, with a black square that is half as wide.
    let image = image::GrayImage::from_fn(32, 32, |x, y| {
        let inside = (8..24).contains(&x) && (8..24).contains(&y);
        image::Luma([if inside { 0 } else { 255 }])
    });
    image.save(place.path("photos/1.png")).unwrap();
    let bytes = |zoom: &str| {
        let set = [place.photos(), format!("data.eval_zoom={zoom}"), "data.channels=1".to_owned()];
        let data = recipe::load(None, &set).unwrap().data;
        let source = data::open(&place.path("photos"), [0; 3]).unwrap();
        let size = recipe::ImageSize::square(16);
        let mut loader = Loader::new(source, data.feature_loader(size)).unwrap();
        let batch = loader.next_batch().unwrap().unwrap().batch;
        let tape = engine::Tape::inference();
        let order = engine::ops::PatchOrder::ChannelsFirst;
        engine::ops::patchify(&tape, &batch.images, [1, 16, 16], order, &[0]).unwrap().to_vec()
    };
    let least = |all: &[f32]| all.iter().copied().fold(f32::MAX, f32::min);
    let most = |all: &[f32]| all.iter().copied().fold(f32::MIN, f32::max);
    let (whole, centre) = (bytes("1.0"), bytes("2.5"));
    assert!(most(&whole) > least(&whole), "the border is seen");
    assert_eq!(most(&centre), least(&centre), "the border is cut off");
}

/// The held-out images of a run, which its pictures show.
fn held_out(place: &Place, seed: &str) -> BTreeSet<String> {
    let run = format!("run{seed}");
    place.trained(&run, &[&format!("data.holdout_seed={seed}")]);
    let pictures = place.bytes(&format!("{run}/pictures/teacher.json"));
    let pictures: Value = serde_json::from_slice(&pictures).unwrap();
    assert_eq!(pictures["held_out"], true);
    let names = pictures["images"].as_array().unwrap().iter();
    let name =
        |image: &Value| image["name"].as_str().unwrap().rsplit_once("photos/").unwrap().1.into();
    names.map(name).collect()
}

#[test]
fn the_holdout_seed_draws_the_images_that_it_drew_before() {
    let place = Place::with_classes();
    let names = |discs: &[u32], stripes: &[u32]| -> BTreeSet<String> {
        let discs = discs.iter().map(|number| format!("discs/{number}.png"));
        discs.chain(stripes.iter().map(|number| format!("stripes/{number}.jpg"))).collect()
    };
    // Drawn by this program on 2026-11-30. Others would be trained on after an update.
    assert_eq!(held_out(&place, "0"), names(&[2, 5, 7, 10, 11], &[0, 4, 10]));
    assert_eq!(held_out(&place, "7"), names(&[0, 5, 7, 10], &[1, 2, 5, 6]));
}

#[test]
fn a_report_shows_no_password_of_the_recipe() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let recipe = String::from_utf8(place.bytes("run/recipe.toml")).unwrap();
    place.text(
        "run/recipe.toml",
        &format!("# https://bob:secret7@host/a.tar?key=secret8\n{recipe}"),
    );
    let output = saltworks().arg("report").arg(place.path("run")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let page = String::from_utf8(place.bytes("run/report.html")).unwrap();
    assert!(page.contains("host/a.tar"), "the recipe is not shown");
    assert!(!page.contains("secret7") && !page.contains("secret8"));
}

/// Counts calls of `fsync` by the paths of their files, in the file that FSYNC_LOG names.
const SHIM: &str = r#"
use std::io::Write;
unsafe extern "C" { fn syscall(number: i64, ...) -> i64; }
#[cfg(target_arch = "x86_64")]
const FSYNC: i64 = 74;
#[cfg(target_arch = "aarch64")]
const FSYNC: i64 = 82;
#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: i32) -> i32 {
    let path = std::fs::read_link(format!("/proc/self/fd/{file}"));
    if let (Some(log), Ok(path)) = (std::env::var_os("FSYNC_LOG"), path) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(log);
        let _ = writeln!(log.unwrap(), "{}", path.display());
    }
    unsafe { syscall(FSYNC, file) as i32 }
}
"#;

/// What a power cut would lose is not seen in a test, so the calls that prevent it are counted.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[test]
fn files_and_their_folders_are_written_through_to_the_disk() {
    let place = Place::with_classes();
    let (shim, library, log) =
        (place.text("shim.rs", SHIM), place.path("shim.so"), place.path("log"));
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(compiler);
    command.args(["--edition=2024", "--crate-type=cdylib", "-o"]).arg(&library).arg(shim);
    assert!(command.status().unwrap().success(), "no shim");
    let mut run = place.pretrain("run", &[]);
    let output = run.env("LD_PRELOAD", &library).env("FSYNC_LOG", &log).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let calls = fs::read_to_string(&log).unwrap();
    let root = fs::canonicalize(place.path("run")).unwrap();
    // A file is written under another name beside it.
    let written = |name: &str| {
        let wanted = root.join(name);
        calls.lines().any(|line| line.starts_with(wanted.to_str().unwrap()))
    };
    for file in [
        "state.json",
        "recipe.toml",
        "teacher/encoder.safetensors",
        "student/model",
        "metrics.jsonl",
    ] {
        assert!(written(file), "{file} is not synced:\n{calls}");
    }
    for folder in ["", "teacher", "student", "checkpoints"] {
        let path = if folder.is_empty() { root.clone() } else { root.join(folder) };
        assert!(calls.lines().any(|line| line == path.to_str().unwrap()), "{folder:?}:\n{calls}");
    }
}
