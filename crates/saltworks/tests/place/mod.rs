//! What the tests of the program share: a folder of their own, images in it, and runs on them.

// Each file of tests uses a part.
#![allow(dead_code, unreachable_pub)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The quickstart's recipe, with a model and stages that take a second.
pub const TINY: &[&str] = &[
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
pub struct Place {
    folder: TempDir,
}

impl Place {
    /// Twelve PNG files of class `discs` and twelve JPEG files of class `stripes`.
    pub fn with_classes() -> Self {
        let place = Self::empty();
        for index in 0..12 {
            place.image(&format!("photos/discs/{index}.png"), index);
            place.image(&format!("photos/stripes/{index}.jpg"), index);
        }
        place
    }

    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn photos(&self) -> String {
        format!("data.path={}", self.path("photos").display())
    }

    /// A colour image of 40 x 36 pixels: a disc (PNG) or stripes (JPEG), moved by `index`.
    pub fn image(&self, name: &str, index: u32) {
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

    pub fn text(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        saltworks::files::write_whole(&path, text.as_bytes()).unwrap();
        path
    }

    /// Cuts a file in the middle.
    pub fn cut(&self, name: &str) {
        let file = fs::OpenOptions::new().write(true).open(self.path(name)).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }

    /// `saltworks pretrain` of the tiny recipe on `photos` into the folder `out`, with more
    /// `--set`.
    pub fn pretrain(&self, out: &str, set: &[&str]) -> Command {
        let mut command = saltworks();
        command.arg("pretrain").arg("--out").arg(self.path(out));
        let photos = self.photos();
        for given in TINY.iter().chain([&photos.as_str()]).chain(set) {
            command.args(["--set", given]);
        }
        command
    }

    /// Runs the tiny recipe to its end.
    pub fn trained(&self, out: &str, set: &[&str]) -> Output {
        let output = self.pretrain(out, set).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output
    }

    /// Runs the tiny recipe, which must be refused with these words and leave no run.
    pub fn refused(&self, set: &[&str], words: &[&str]) {
        assert_refused(&mut self.pretrain("run", set), words);
        assert!(!self.path("run").exists(), "a refused run left its folder");
    }

    /// Runs into a broken image; returns the steps made before, whose weights must be there.
    pub fn cut_short(&self, set: &[&str], seed: u32) -> usize {
        let run = format!("run{seed}");
        let output = self.pretrain(&run, set).args(["--set", &format!("seed={seed}")]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let steps = if self.path(&run).exists() { self.metrics(&run).len() } else { 0 };
        let weights = self.path(&format!("{run}/teacher/encoder.safetensors"));
        assert_eq!(is_loadable(&weights), steps > 0);
        steps
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The lines of a run's metrics.jsonl.
    pub fn metrics(&self, run: &str) -> Vec<Value> {
        let mut lines = self.log(run);
        lines.retain(|line| line.get("grad_norm").is_some());
        lines
    }

    /// All of metrics.jsonl: steps, probes, alarms.
    pub fn log(&self, run: &str) -> Vec<Value> {
        let text = String::from_utf8(self.bytes(&format!("{run}/metrics.jsonl"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The steps' metrics without the clock's.
    pub fn curve(&self, run: &str) -> Vec<Value> {
        let mut lines = self.metrics(run);
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            assert!(line.remove("unix_seconds").is_some());
            assert!(line.remove("seconds").is_some());
            assert!(line.remove("images_per_second").is_some());
            assert!(line.remove("data_wait_share").is_some());
        }
        lines
    }

    pub fn assert_same_run(&self, one: &str, other: &str) {
        self.assert_same_training(one, other);
        assert_eq!(
            self.bytes(&format!("{one}/probes.json")),
            self.bytes(&format!("{other}/probes.json"))
        );
    }

    /// The losses and weights of two runs, whose images may have no classes to probe.
    pub fn assert_same_training(&self, one: &str, other: &str) {
        assert_eq!(self.curve(one), self.curve(other), "{one} and {other}");
        for stage in ["teacher", "student"] {
            for file in ["encoder", "model"] {
                let [a, b] = [one, other]
                    .map(|run| self.bytes(&format!("{run}/{stage}/{file}.safetensors")));
                assert!(a == b, "{stage}/{file}.safetensors of {one} and {other} differ");
            }
        }
    }
}

pub fn saltworks() -> Command {
    Command::new(env!("CARGO_BIN_EXE_saltworks"))
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Exit code 2, nothing on stdout, and one message on stderr that holds all the words.
pub fn assert_refused(command: &mut Command, words: &[&str]) {
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

pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

pub fn is_loadable(path: &Path) -> bool {
    saltworks::weights::load(path).is_ok_and(|file| !file.tensors.is_empty())
}
