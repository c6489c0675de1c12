//! A run survives what can happen to it, and what comes out has the same bits.
#![cfg(unix)]

mod place;

use engine::random::Random;
use place::{Place, assert_refused, stderr};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough to be met half way, a checkpoint every step.
const LONG: &[&str] = &[
    "checkpoint.every_steps=1",
    "teacher.steps=25",
    "student.steps=25",
    "student.masks={kind=\"multi_block\", per_sample=true}",
    "data.size=64",
    "model.drop_path=0.3",
    "student.weight_decay=0.3",
];

/// Starts a run with its output out of the way.
fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn kill(child: &Child, signal: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
}

/// Waits until `met`, for at most a minute.
fn wait_until(what: &str, met: impl Fn() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no {what} within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The step of the newest checkpoint's name.
fn newest_checkpoint(run: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(run.join("checkpoints")).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|e| e == "json")).max()
}

fn steps_logged(run: &Path) -> usize {
    let steps = |text: String| text.lines().filter(|line| line.contains("grad_norm")).count();
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, steps)
}

/// Starts the long run and stops it by a signal after some steps.
fn stopped(place: &Place, out: &str, signal: &str, steps: usize) -> std::process::Output {
    let child = start(place.pretrain(out, LONG));
    let run = place.path(out);
    wait_until("step", || steps_logged(&run) >= steps && newest_checkpoint(&run).is_some());
    kill(&child, signal);
    child.wait_with_output().unwrap()
}

/// Kills of all runs together; as many again with SALTWORKS_KILLS.
fn kills_wanted() -> usize {
    std::env::var("SALTWORKS_KILLS").map_or(50, |count| count.parse().expect("a number of kills"))
}

/// Names of files below a run's folder, without the times and numbers in those for other programs.
fn files_of(run: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![run.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(run).unwrap().to_str().unwrap().to_owned();
            let numbered = ["tfevents", "offline-run"].iter().find_map(|part| name.find(part));
            names.push(numbered.map_or(name.clone(), |end| name[..end].to_owned()));
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    names.sort();
    names
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_same_bits_and_files() {
    let place = Place::with_classes();
    let more = ["log.tensorboard=true", "log.wandb=true", "probe.every_steps=8"];
    let set = &[LONG, &more].concat();
    place.trained("whole", set);
    let mut random = Random::new(1, "kills", 0);
    let (mut kills, mut inside_a_checkpoint) = (0, 0);
    for attempt in 0.. {
        let out = format!("killed {attempt}");
        let run = place.path(&out);
        // More time for each life that came no further: a loaded machine is slow to start.
        let mut patience = Duration::ZERO;
        loop {
            let before = steps_logged(&run);
            let mut child = start(place.pretrain(&out, set));
            // From before the first line of main to some steps after the start.
            std::thread::sleep(patience + Duration::from_micros(random.below(250_000) as u64));
            // It may have ended.
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            // Or it was killed after all was done, while it still told its results.
            if output.status.success() || stderr(&output).contains("and it is finished") {
                break;
            }
            assert_eq!(output.status.signal(), Some(9), "{}", stderr(&output));
            kills += 1;
            let further = steps_logged(&run) > before;
            let more = 2 * patience + Duration::from_millis(25);
            patience = if further { Duration::ZERO } else { more };
            inside_a_checkpoint += usize::from(holds_half_a_checkpoint(&run));
        }
        place.assert_same_run("whole", &out);
        assert_eq!(files_of(&run), files_of(&place.path("whole")));
        // Under load, nearly all kills come before the first checkpoint.
        if kills >= kills_wanted() && inside_a_checkpoint > 0 {
            break;
        }
        assert!(kills < 20 * kills_wanted(), "{kills} kills, none of them inside a checkpoint");
    }
}

/// Whether a temporary file lies there, or a checkpoint without its manifest.
fn holds_half_a_checkpoint(run: &Path) -> bool {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else { return false };
    let half = |path: &Path| match path.extension().and_then(|extension| extension.to_str()) {
        Some("tmp") => true,
        Some("safetensors") => !path.with_extension("json").exists(),
        _ => false,
    };
    entries.filter_map(Result::ok).any(|entry| half(&entry.path()))
}

#[test]
fn each_signal_saves_and_has_its_exit_code() {
    let place = Place::with_classes();
    place.trained("whole", LONG);
    for (signal, code) in
        [("-INT", 130), ("-TERM", 143), ("-USR1", 138), ("-USR2", 140), ("-HUP", 129)]
    {
        let output = stopped(&place, signal, signal, 3);
        let notes = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{notes}");
        let steps = steps_logged(&place.path(signal));
        assert!(notes.contains(&format!("interrupted in stage teacher after step {steps} of 25")));
        assert!(notes.contains("--resume --out"), "{notes}");
        let notes = stderr(&place.trained(signal, LONG));
        assert!(notes.contains(&format!("resuming after step {steps}\n")), "{notes}");
        place.assert_same_run("whole", signal);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_hangup_does_not_end_a_run_under_nohup() {
    let place = Place::with_classes();
    let run = place.pretrain("run", LONG);
    // As nohup starts a program.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    command.arg(run.get_program()).args(run.get_args());
    let child = start(command);
    wait_until("step", || steps_logged(&place.path("run")) >= 3);
    kill(&child, "-HUP");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, stderr(&output));
}

#[test]
fn a_signal_in_any_phase_loses_nothing() {
    let place = Place::with_classes();
    // Probes of 10,000 images take long enough to be met.
    let mut set = LONG.to_vec();
    set.extend(["data.path=builtin:fashion-mnist", "data.channels=1", "data.holdout=1000"]);
    set.extend(["data.size=28", "model.patch=7", "probe.linear=false"]);
    place.trained("whole", &set);
    for phase in ["training: ", "teacher  after step 25", "probes  computing features"] {
        let mut child = start(place.pretrain(phase, &set));
        let notes = BufReader::new(child.stderr.take().unwrap());
        let met = notes.lines().map_while(Result::ok).any(|line| line.contains(phase));
        assert!(met, "no {phase:?}");
        kill(&child, "-TERM");
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(143), "{phase}");
        let state = String::from_utf8(place.bytes(&format!("{phase}/state.json"))).unwrap();
        assert!(state.contains("\"signal\": 15"), "{phase}: {state}");
        place.trained(phase, &set);
        place.assert_same_run("whole", phase);
    }
}

/// The last probe is the one that reports and comparisons rest on.
#[test]
fn a_signal_in_a_stages_last_probe_leaves_it_to_the_process_that_goes_on() {
    let place = Place::with_classes();
    // Enough images that a probe takes some time, and few steps.
    for index in 0..60 {
        place.image(&format!("photos/discs/more{index}.png"), index);
        place.image(&format!("photos/stripes/more{index}.jpg"), index);
    }
    let set = ["data.size=96", "data.holdout=60", "teacher.steps=2", "student.steps=2"];
    let probed = |run: &str, stage: &str| -> Vec<u64> {
        let log = place.log(run).into_iter();
        let of = log.filter(|line| line["stage"] == stage && line.get("probe").is_some());
        of.map(|line| line["step"].as_u64().unwrap()).collect()
    };
    let begun = Instant::now();
    place.trained("whole", &set);
    let whole = begun.elapsed();
    let mut random = Random::new(2, "signals", 0);
    for attempt in 0..100 {
        let run = format!("run{attempt}");
        let child = start(place.pretrain(&run, &set));
        std::thread::sleep(whole.mul_f64(random.uniform().into()));
        kill(&child, "-TERM");
        child.wait_with_output().unwrap();
        // Both steps are made, the probe after them is not.
        let log = fs::read_to_string(place.path(&run).join("metrics.jsonl")).unwrap_or_default();
        let of_teacher = log.lines().filter(|line| line.contains("\"teacher\""));
        let met = of_teacher.clone().filter(|line| line.contains("grad_norm")).count() == 2
            && of_teacher.filter(|line| line.contains("\"probe\"")).count() == 1;
        if !met {
            continue;
        }
        let again = place.pretrain(&run, &set).output().unwrap();
        assert!(again.status.success(), "{}", stderr(&again));
        for stage in ["teacher", "student"] {
            assert_eq!(probed(&run, stage), [0, 2], "{stage} of {run}");
        }
        assert_eq!(
            place.bytes(&format!("{run}/pictures/teacher.json")),
            place.bytes("whole/pictures/teacher.json")
        );
        place.assert_same_run("whole", &run);
        return;
    }
    panic!("no signal came while the last probe was made");
}

#[test]
fn a_second_interrupt_leaves_at_once() {
    let place = Place::with_classes();
    // One step takes many seconds.
    let set = ["data.size=224", "model.patch=8", "model.width=384", "model.depth=12"];
    let heads = ["model.heads=6", "teacher.batch=16", "data.holdout=0"];
    let child = start(place.pretrain("run", &[&set[..], &heads].concat()));
    wait_until("run", || place.path("run/recipe.toml").is_file());
    std::thread::sleep(Duration::from_millis(1500));
    let begun = Instant::now();
    kill(&child, "-INT");
    std::thread::sleep(Duration::from_millis(100));
    kill(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(!stderr(&output).contains("interrupted in stage"), "{}", stderr(&output));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used() {
    let place = Place::with_classes();
    place.trained("whole", LONG);
    for damage in ["truncated", "flipped", "gone"] {
        let output = stopped(&place, damage, "-TERM", 4);
        assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
        let manifest = newest_checkpoint(&place.path(damage)).unwrap();
        let path = manifest.with_extension("safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        match damage {
            "truncated" => bytes.truncate(middle),
            "flipped" => bytes[middle] ^= 1,
            _ => fs::remove_file(&path).unwrap(),
        }
        if damage != "gone" {
            saltworks::files::write_whole(&path, &bytes).unwrap();
        }
        let notes = stderr(&place.trained(damage, LONG));
        let named = format!("{} is damaged", path.display());
        assert!(
            notes.contains(&named) && notes.contains("An earlier checkpoint is used"),
            "{notes}"
        );
        let steps: usize = going_on_after(&notes);
        let stem = manifest.file_stem().unwrap().to_str().unwrap();
        assert_eq!(stem, format!("teacher-{:08}", steps + 1));
        place.assert_same_run("whole", damage);
    }
}

fn going_on_after(notes: &str) -> usize {
    let (_, rest) = notes.split_once("resuming after step ").unwrap_or_else(|| panic!("{notes}"));
    rest.lines().next().unwrap().parse().unwrap()
}

#[test]
fn a_run_without_any_whole_checkpoint_begins_its_stage_anew() {
    let place = Place::with_classes();
    place.trained("whole", LONG);
    stopped(&place, "run", "-KILL", 3);
    fs::remove_dir_all(place.path("run/checkpoints")).unwrap();
    place.trained("run", LONG);
    place.assert_same_run("whole", "run");
}

#[test]
fn resume_needs_no_recipe_and_shows_a_finished_run() {
    let place = Place::with_classes();
    place.trained("whole", LONG);
    stopped(&place, "run", "-TERM", 3);
    let resume = || {
        let mut command = place::saltworks();
        command.args(["pretrain", "--resume", "--out"]).arg(place.path("run"));
        command.output().unwrap()
    };
    let first = resume();
    assert!(first.status.success(), "{}", stderr(&first));
    place.assert_same_run("whole", "run");
    let again = resume();
    assert_eq!((again.status.code(), &again.stdout), (Some(0), &first.stdout));
    place.assert_same_run("whole", "run");
    assert_refused(&mut place.pretrain("run", LONG), &["holds a run already", "finished"]);
    let mut nothing = place::saltworks();
    nothing.args(["pretrain", "--resume", "--out"]).arg(place.path("no"));
    assert_refused(&mut nothing, &["holds no run to resume", "recipe.toml"]);
}

#[test]
fn another_recipe_or_other_data_does_not_go_on_with_a_run() {
    let place = Place::with_classes();
    stopped(&place, "run", "-TERM", 3);
    let before = fs::read(place.path("run/metrics.jsonl")).unwrap();
    let other = [LONG, &["teacher.lr=1e-4"]].concat();
    let words =
        ["holds a run already, with another recipe", "teacher.lr is 0.0015 there and 0.0001"];
    assert_refused(&mut place.pretrain("run", &other), &words);
    let other = [LONG, &["precision=bf16"]].concat();
    assert_refused(
        &mut place.pretrain("run", &other),
        &["precision is \"f32\" there and \"bf16\""],
    );
    place.image("photos/discs/12.png", 12);
    assert_refused(&mut place.pretrain("run", LONG), &["began with", "24 images", "25 images"]);
    fs::remove_file(place.path("photos/discs/12.png")).unwrap();
    // As many images, one of them another, which is no copy of a third.
    let disc = place.bytes("photos/discs/3.png");
    place.image("photos/discs/3.png", 11);
    let mut longer = place.bytes("photos/discs/3.png");
    longer.push(0);
    saltworks::files::write_whole(&place.path("photos/discs/3.png"), &longer).unwrap();
    let words = ["began with other images: the same number, but other lengths"];
    assert_refused(&mut place.pretrain("run", LONG), &words);
    saltworks::files::write_whole(&place.path("photos/discs/3.png"), &disc).unwrap();
    assert_eq!(fs::read(place.path("run/metrics.jsonl")).unwrap(), before);
    // The number of threads is no part of what is trained.
    place.trained("run", &[LONG, &["threads=1", "data.threads=2"]].concat());
    place.trained("whole", LONG);
    place.assert_same_run("whole", "run");
}

#[test]
fn a_changed_teacher_is_refused() {
    let place = Place::with_classes();
    let child = start(place.pretrain("run", LONG));
    wait_until("step of the student", || steps_logged(&place.path("run")) >= 28);
    kill(&child, "-TERM");
    child.wait_with_output().unwrap();
    let teacher = place.path("run/teacher/encoder.safetensors");
    let mut bytes = fs::read(&teacher).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    saltworks::files::write_whole(&teacher, &bytes).unwrap();
    let words = ["teacher/encoder.safetensors", "SHA-256", "--overwrite"];
    assert_refused(&mut place.pretrain("run", LONG), &words);
}

#[test]
fn two_processes_do_not_write_one_run() {
    let place = Place::with_classes();
    let child = start(place.pretrain("run", &[LONG, &["teacher.steps=1000000"]].concat()));
    wait_until("step", || steps_logged(&place.path("run")) > 0);
    assert_refused(&mut place.pretrain("run", LONG), &["is in use", "--out"]);
    kill(&child, "-KILL");
    child.wait_with_output().unwrap();
}

#[test]
fn slurm_is_asked_for_another_turn_and_overwrite_costs_no_run() {
    let place = Place::with_classes();
    place.trained("whole", LONG);
    let asked = place.path("asked");
    let script = format!("#!/bin/sh\necho \"$@\" >> '{}'\n", asked.display());
    let scontrol = place.text("bin/scontrol", &script);
    assert!(Command::new("chmod").arg("+x").arg(&scontrol).status().unwrap().success());
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
    let mut command = place.pretrain("run", LONG);
    command.args(["--requeue", "--overwrite"]).env("PATH", path);
    command.env("SLURM_ARRAY_JOB_ID", "71").env("SLURM_ARRAY_TASK_ID", "4");
    let child = start(command);
    wait_until("checkpoint", || newest_checkpoint(&place.path("run")).is_some());
    kill(&child, "-USR1");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(138), "{}", stderr(&output));
    assert!(stderr(&output).contains("Slurm job 71_4 is requeued"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&asked).unwrap(), "requeue 71_4\n");
    let mut again = place.pretrain("run", LONG);
    again.args(["--requeue", "--overwrite"]).env("SLURM_RESTART_COUNT", "1");
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("resuming after step"), "{}", stderr(&output));
    place.assert_same_run("whole", "run");
}

#[test]
fn a_full_disk_keeps_the_last_checkpoint_and_says_so() {
    let place = Place::with_classes();
    place.trained("whole", LONG);
    let disk = place.path("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"])
        .arg(&disk)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        return; // Only root may mount a small disk.
    }
    let _unmount = Unmount(&disk);
    // Room for some checkpoints; what is in the way is removed later.
    let filler = disk.join("filler");
    let child = start(place.pretrain("disk/run", LONG));
    wait_until("checkpoint", || newest_checkpoint(&disk.join("run")).is_some());
    // Fills what is left.
    let _ = std::io::copy(&mut std::io::repeat(7), &mut fs::File::create(&filler).unwrap());
    let output = child.wait_with_output().unwrap();
    let notes = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{notes}");
    assert!(notes.contains("cannot write") && notes.contains("No space left"), "{notes}");
    assert!(newest_checkpoint(&disk.join("run")).is_some());
    fs::remove_file(&filler).unwrap();
    place.trained("disk/run", LONG);
    place.assert_same_run("whole", "disk/run");
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_run_folder_that_goes_away_ends_the_run_with_its_name() {
    let place = Place::with_classes();
    let child = start(place.pretrain("run", &[LONG, &["teacher.steps=1000000"]].concat()));
    wait_until("checkpoint", || newest_checkpoint(&place.path("run")).is_some());
    while fs::remove_dir_all(place.path("run")).is_err() {}
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot write"), "{}", stderr(&output));
    assert!(stderr(&output).contains("/run/"), "{}", stderr(&output));
}

#[test]
fn a_run_does_not_write_into_another_folder_of_its_name() {
    let place = Place::with_classes();
    let child = start(place.pretrain("run", &[LONG, &["teacher.steps=1000000"]].concat()));
    wait_until("checkpoint", || newest_checkpoint(&place.path("run")).is_some());
    move_folder(&place.path("run"), &place.path("moved"));
    fs::create_dir(place.path("run")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("removed, moved or replaced"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(place.path("run")).unwrap().count(), 0);
    assert!(newest_checkpoint(&place.path("moved")).is_some());
}

fn move_folder(from: &Path, to: &Path) {
    assert!(Command::new("mv").args([from, to]).status().unwrap().success());
}

#[test]
fn files_that_no_run_made_are_kept() {
    let place = Place::with_classes();
    // Hugging Face's name for weights.
    place.text("models/bert/model.safetensors", "mine");
    for (name, given) in [
        ("models/metrics.jsonl", "mine"),
        ("models/probes.json", "mine"),
        ("models/teacher/model.safetensors", "mine"),
        ("models/checkpoints/teacher-00000003.json", "mine"),
    ] {
        let file = place.text(name, given);
        let words = [file.to_str().unwrap(), "--out", "--overwrite"];
        assert_refused(&mut place.pretrain("models", &[]), &words);
        assert_eq!(place.bytes(name), b"mine");
        assert!(!place.path("models/.lock").exists());
        fs::remove_file(file).unwrap();
    }
    place.trained("models", &[]);
    assert!(place.pretrain("models", &[]).arg("--overwrite").status().unwrap().success());
    assert_eq!(place.bytes("models/bert/model.safetensors"), b"mine");
}

/// A lock in a folder does not make the files beside it those of a run, and is no way to others.
#[test]
fn a_lock_that_saltworks_did_not_write_shows_no_run() {
    let place = Place::with_classes();
    let log = place.text("foreign/metrics.jsonl", "mine");
    place.text("foreign/.lock", "");
    assert_refused(&mut place.pretrain("foreign", &[]), &[log.to_str().unwrap(), "--overwrite"]);
    assert_eq!(place.bytes("foreign/metrics.jsonl"), b"mine");
    let mine = place.text("mine.txt", "mine");
    for name in [".lock", "metrics.jsonl"] {
        let out = format!("link{name}");
        fs::create_dir(place.path(&out)).unwrap();
        std::os::unix::fs::symlink(&mine, place.path(&out).join(name)).unwrap();
        let mut pretrain = place.pretrain(&out, &[]);
        let output = pretrain.arg("--overwrite").output().unwrap();
        assert_eq!(place.bytes("mine.txt"), b"mine", "{}", stderr(&output));
        assert_eq!(output.status.success(), name != ".lock", "{}", stderr(&output));
    }
}

#[test]
fn what_a_kill_at_the_end_of_a_stage_left_is_removed() {
    let place = Place::with_classes();
    stopped(&place, "run", "-TERM", 3);
    let manifest = newest_checkpoint(&place.path("run")).unwrap();
    let left = [manifest.with_extension("safetensors"), manifest];
    let contents = left.each_ref().map(|path| fs::read(path).unwrap());
    place.trained("run", LONG);
    let kept = || fs::read_dir(place.path("run/checkpoints")).unwrap().count();
    assert_eq!(kept(), 2, "the student's last checkpoint and its manifest");
    for (path, content) in left.iter().zip(&contents) {
        saltworks::files::write_whole(path, content).unwrap();
    }
    let mut resume = place::saltworks();
    resume.args(["pretrain", "--resume", "--out"]).arg(place.path("run"));
    assert!(resume.status().unwrap().success());
    assert_eq!(kept(), 2);
}

#[test]
fn a_changed_recipe_of_a_run_and_an_unreadable_folder_are_named() {
    let place = Place::with_classes();
    stopped(&place, "run", "-TERM", 3);
    let resume = || {
        let mut resume = place::saltworks();
        resume.args(["pretrain", "--resume", "--out"]).arg(place.path("run"));
        resume
    };
    let recipe = fs::read_to_string(place.path("run/recipe.toml")).unwrap();
    let other = recipe.replacen("weight_decay = 0.05", "weight_decay = 0.04", 1);
    assert_ne!(other, recipe);
    place.text("run/recipe.toml", &other);
    let words = ["run/recipe.toml is not the recipe that the run began with", "--overwrite"];
    assert_refused(&mut resume(), &words);
    // A run of an earlier version has no checksum in state.json, but in its checkpoints.
    let state = place.bytes("run/state.json");
    let mut earlier: Value = serde_json::from_slice(&state).unwrap();
    assert!(earlier.as_object_mut().unwrap().remove("recipe").is_some());
    place.text("run/state.json", &earlier.to_string());
    assert_refused(
        &mut resume(),
        &["written with another recipe than", "run/recipe.toml", "--overwrite"],
    );
    place.text("run/state.json", std::str::from_utf8(&state).unwrap());
    // As between two stages, and as on another processor: no checkpoint compares the recipe.
    move_folder(&place.path("run/checkpoints"), &place.path("checkpoints"));
    assert_refused(&mut resume(), &words);
    place.text("run/recipe.toml", &recipe);
    move_folder(&place.path("checkpoints"), &place.path("run/checkpoints"));
    fs::remove_dir_all(place.path("run/checkpoints")).unwrap();
    place.text("run/checkpoints", "");
    let output = resume().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("run/checkpoints: Not a directory"), "{}", stderr(&output));
}

/// What decides no weight may be changed.
#[test]
fn a_recipe_with_other_tags_is_the_same_run_and_gets_new_checksums() {
    let place = Place::with_classes();
    stopped(&place, "run", "-TERM", 3);
    let stamp = || {
        let state: Value = serde_json::from_slice(&place.bytes("run/state.json")).unwrap();
        state["recipe"].clone()
    };
    let (began, recipe) = (stamp(), place.bytes("run/recipe.toml"));
    let recipe = String::from_utf8(recipe).unwrap();
    let tagged = recipe.replacen("tags = []", "tags = [\"a\"]", 1);
    assert_ne!(tagged, recipe);
    place.text("run/recipe.toml", &tagged);
    let mut resume = place::saltworks();
    resume.args(["pretrain", "--resume", "--out"]).arg(place.path("run"));
    assert!(resume.status().unwrap().success());
    assert_eq!(stamp()["deciding_sha256"], began["deciding_sha256"]);
    assert_ne!(stamp()["file_sha256"], began["file_sha256"]);
}

#[test]
fn a_state_that_cannot_be_written_is_a_failed_run() {
    let place = Place::with_classes();
    let child = start(place.pretrain("run", &[LONG, &["teacher.steps=200"]].concat()));
    wait_until("step", || steps_logged(&place.path("run")) > 0);
    fs::remove_file(place.path("run/state.json")).unwrap();
    place.text("run/state.json/in the way", "");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("run/state.json"), "{}", stderr(&output));
}

#[test]
fn unreadable_images_count_from_the_beginning_of_the_stage() {
    let place = Place::with_classes();
    for index in [0, 2, 4, 6, 8] {
        place.cut(&format!("photos/discs/{index}.png"));
        place.cut(&format!("photos/stripes/{index}.jpg"));
    }
    let set = ["data.max_unreadable=0.3", "data.holdout=0", "teacher.batch=1", "teacher.steps=60"];
    let end = || {
        let output = place.pretrain("run", &set).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        steps_logged(&place.path("run"))
    };
    let steps = end();
    assert!((1..24).contains(&steps), "{steps}");
    assert_eq!(end(), steps);
    // More may be allowed where the run stands.
    let more = [&set[..], &["data.max_unreadable=1"]].concat();
    assert_eq!(going_on_after(&stderr(&place.trained("run", &more))), steps);
}

/// With a constant learning rate, a run that was made longer is the run that was that long.
#[test]
fn a_finished_run_is_made_longer() {
    let place = Place::with_classes();
    let constant = ["lr=1e-3", "start_lr=1e-3", "final_lr=1e-3", "warmup={steps=0}"];
    let constant: Vec<_> = constant.iter().map(|set| format!("student.{set}")).collect();
    let set: Vec<_> = constant.iter().map(String::as_str).collect();
    place.trained("run", &set);
    let longer = [&set[..], &["student.steps=7"]].concat();
    let words = ["student.steps is 3 there and 7 here"];
    assert_refused(&mut place.pretrain("run", &longer), &words);
    let mut resume = place::saltworks();
    resume.args(["pretrain", "--resume", "--set", "student.steps=7", "--out"]);
    let output = resume.arg(place.path("run")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    place.trained("whole", &longer);
    place.assert_same_run("run", "whole");
    fs::remove_dir_all(place.path("run/checkpoints")).unwrap();
    let mut again = place::saltworks();
    again.args(["pretrain", "--resume", "--set", "student.steps=9", "--out"]);
    let words = ["student cannot be made longer", "student.init="];
    assert_refused(again.arg(place.path("run")), &words);
}

/// The checkpoint from which it goes on is older than both changes of the length.
#[test]
fn a_run_killed_while_it_is_made_longer_can_be_made_longer_again() {
    let place = Place::with_classes();
    let constant = ["lr=1e-3", "start_lr=1e-3", "final_lr=1e-3", "warmup={steps=0}"];
    let constant: Vec<_> = constant.iter().map(|set| format!("student.{set}")).collect();
    let set: Vec<_> = constant.iter().map(String::as_str).collect();
    place.trained("run", &set);
    let longer = |steps: usize| {
        let mut resume = place::saltworks();
        resume.args(["pretrain", "--resume", "--set", &format!("student.steps={steps}"), "--out"]);
        resume.arg(place.path("run"));
        resume
    };
    let mut child = start(longer(400));
    let state = || String::from_utf8(place.bytes("run/state.json")).unwrap();
    wait_until("change of the length", || state().contains("shorter_recipes"));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9), "it ended before it was killed");
    let output = longer(401).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    place.trained("whole", &[&set[..], &["student.steps=401"]].concat());
    place.assert_same_run("run", "whole");
}
