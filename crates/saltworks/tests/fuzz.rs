//! Every format with random damage, through the command line in 2 GiB of address space: no panic,
//! no abort, no hang. `SALTWORKS_FUZZ=100000` makes so many inputs of each format.

#![cfg(target_os = "linux")]

#[path = "../src/fuzz.rs"]
#[allow(dead_code)]
mod fuzz;
mod place;

use engine::random::Random;
use image::{DynamicImage, ImageFormat};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use place::{Place, saltworks};
use saltworks::files::write_whole;
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Inputs of a format if the environment does not say how many.
const INPUTS: u64 = 300;
const MOST_KIB: u64 = 2 << 20;
/// A command that takes longer hangs.
const MOST_SECONDS: u64 = 120;
/// What is said of a damaged file is for people.
const MOST_SAID: usize = 32 << 10;
/// Bytes at both ends of a file that are changed. There are the headers and directories.
const ENDS: usize = 6 << 10;
/// Images that one command reads.
const TOGETHER: u64 = 50;

/// Stands for the damaged file's name, and for that of its folder.
const FILE: &str = "FILE";
const FOLDER: &str = "FOLDER";

/// Runs the program within bounds, in a folder. It must end by itself, with one of its own exit
/// codes. Returns the code.
fn run(folder: &Path, arguments: &[String]) -> Result<i32, String> {
    let script = format!("ulimit -v {MOST_KIB}; exec timeout -k 1 {MOST_SECONDS} \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_saltworks")])
        .args(arguments)
        .current_dir(folder)
        // Else each thread reserves 64 MiB of addresses.
        .env("MALLOC_ARENA_MAX", "2")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let is_plain = !said.contains("panicked") && said.len() < MOST_SAID;
    match output.status.code() {
        Some(code @ 0..=2) if is_plain && !said.contains("exists already") => Ok(code),
        _ => Err(format!("{}, after {arguments:?}: {said:.2000}", output.status)),
    }
}

/// A folder, and the commands that read a damaged file in it.
struct Trials<'a> {
    place: &'a Place,
    format: &'static str,
    commands: &'a [&'a [&'a str]],
}

impl Trials<'_> {
    /// Damages this file again and again. In the end it is whole again.
    fn of_file(&self, name: &str) {
        let path = self.place.path(name);
        let seed = fs::read(&path).unwrap();
        self.of_bytes(name, &seed, |number| damaged(self.format, &seed, number));
        write_whole(&path, &seed).unwrap();
    }

    /// Gives inputs under this name. The whole file must be read by all commands.
    fn of_bytes(&self, name: &str, whole: &[u8], input: impl Fn(u64) -> Vec<u8>) {
        let path = self.place.path(name);
        write_whole(&path, whole).unwrap();
        self.assert_whole(name);
        for number in 0..fuzz::inputs(INPUTS) {
            fs::remove_file(&path).unwrap();
            write_whole(&path, &input(number)).unwrap();
            self.check(name, number);
        }
    }

    /// Each command succeeds, also the second time.
    fn assert_whole(&self, name: &str) {
        for command in self.commands.iter().chain(self.commands) {
            let arguments = arguments(command, name);
            let (whole, format) = (Ok(0), self.format);
            assert_eq!(run(&self.place.path(""), &arguments), whole, "{format}: {arguments:?}");
        }
    }

    fn check(&self, name: &str, number: u64) {
        let mut random = Random::new(0, "command", number);
        let command = self.commands[random.below(self.commands.len())];
        if let Err(problem) = run(&self.place.path(""), &arguments(command, name)) {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let kept = kept.join(format!("{}-{number}", self.format));
            fs::copy(self.place.path(name), &kept).unwrap();
            panic!("input {number} of {}, {name}, {}: {problem}", self.format, kept.display());
        }
    }
}

fn arguments(command: &[&str], name: &str) -> Vec<String> {
    let folder = name.split('/').next().unwrap();
    command.iter().map(|word| word.replace(FILE, name).replace(FOLDER, folder)).collect()
}

/// The file with changes at one of its ends.
fn damaged(format: &'static str, seed: &[u8], number: u64) -> Vec<u8> {
    if seed.len() <= 2 * ENDS {
        return fuzz::input(format, seed, number);
    }
    if Random::new(0, "end", number).below(2) == 0 {
        let (head, rest) = seed.split_at(ENDS);
        [&fuzz::input(format, head, number), rest].concat()
    } else {
        let (rest, tail) = seed.split_at(seed.len() - ENDS);
        [rest, &fuzz::input(format, tail, number)].concat()
    }
}

const INSPECT: &[&[&str]] = &[&["inspect", FILE, "--decode"], &["inspect", FILE, "--json"]];

fn bytes_of(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn color() -> DynamicImage {
    image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([20 * x as u8, 30 * y as u8, 99])).into()
}

fn deep() -> DynamicImage {
    DynamicImage::ImageLuma16(image::ImageBuffer::from_fn(9, 7, |x, y| {
        image::Luma([(4000 * x + 500 * y) as u16])
    }))
}

/// A lossless image between a header of parts and its EXIF.
fn webp() -> Vec<u8> {
    let plain = bytes_of(&color(), ImageFormat::WebP);
    let part = |name: &[u8], bytes: &[u8]| {
        let padding = &[0][..bytes.len() % 2];
        [name, &(bytes.len() as u32).to_le_bytes(), bytes, padding].concat()
    };
    let header = part(b"VP8X", &[0x08, 0, 0, 0, 8, 0, 0, 6, 0, 0]);
    let exif = part(b"EXIF", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0");
    let body = [b"WEBP", &header[..], &plain[12..], &exif].concat();
    part(b"RIFF", &body)
}

#[test]
fn images() {
    let trials: [(&'static str, Vec<u8>); 8] = [
        ("png", bytes_of(&color(), ImageFormat::Png)),
        ("deep.png", bytes_of(&deep(), ImageFormat::Png)),
        ("jpg", bytes_of(&color(), ImageFormat::Jpeg)),
        ("webp", webp()),
        ("bmp", bytes_of(&color(), ImageFormat::Bmp)),
        ("tif", bytes_of(&color(), ImageFormat::Tiff)),
        ("deep.tif", bytes_of(&deep(), ImageFormat::Tiff)),
        ("ppm", bytes_of(&color(), ImageFormat::Pnm)),
    ];
    for (format, seed) in trials {
        let place = Place::empty();
        fs::create_dir(place.path("photos")).unwrap();
        let commands = &[&["inspect", FOLDER, "--decode"][..]];
        let trials = Trials { place: &place, format, commands };
        let name = |number: u64| format!("photos/{}.{format}", number % TOGETHER);
        write_whole(&place.path(&name(0)), &seed).unwrap();
        trials.assert_whole(&name(0));
        for first in (0..fuzz::inputs(INPUTS)).step_by(TOGETHER as usize) {
            for number in first..first + TOGETHER {
                let path = place.path(&name(number));
                fs::remove_file(&path).ok();
                write_whole(&path, &fuzz::input(format, &seed, number)).unwrap();
            }
            if let Err(problem) = run(&place.path(""), &arguments(commands[0], &name(0))) {
                let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format);
                fs::create_dir_all(&kept).unwrap();
                for number in first..first + TOGETHER {
                    let path = place.path(&name(number));
                    fs::copy(&path, kept.join(path.file_name().unwrap())).unwrap();
                }
                panic!("input {first} of {format} or one after it, {}: {problem}", kept.display());
            }
        }
    }
}

/// Writes the checksums of a tar archive's headers.
fn sign(archive: &mut [u8]) {
    for header in archive.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

#[test]
fn tar_archives() {
    let place = Place::empty();
    let member = |name: &str, bytes: &[u8]| {
        let mut member = vec![0; 512];
        member[..name.len()].copy_from_slice(name.as_bytes());
        member[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        member[156] = b'0';
        member[257..265].copy_from_slice(b"ustar\x0000");
        member.extend(bytes);
        member.resize(member.len().next_multiple_of(512), 0);
        member
    };
    let png = bytes_of(&color(), ImageFormat::Png);
    let mut long = member("././@LongLink", b"a/very/long/name/3.png\0");
    long[156] = b'L';
    let mut pax = member("pax", b"22 path=another/4.png\n");
    pax[156] = b'x';
    let seed = [
        member("a/1.png", &png),
        member("a/1.json", b"{\"label\": 3, \"caption\": \"x\"}"),
        member("a/2.png", &png),
        member("a/2.cls", b"4"),
        long,
        member("short", &png),
        pax,
        member("short", &png),
        vec![0; 1024],
    ]
    .concat();
    let mut seed = seed;
    sign(&mut seed);
    let trials = Trials { place: &place, format: "tar", commands: INSPECT };
    trials.of_bytes("a.tar", &seed, |number| {
        let mut bytes = fuzz::input("tar", &seed, number);
        // A wrong checksum ends the reading at once, so most have theirs made right.
        if Random::new(0, "sign", number).below(4) > 0 {
            sign(&mut bytes);
        }
        bytes
    });
}

/// An array of bytes, as NumPy writes it.
fn npy(shape: &str, bytes: usize) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    [b"\x93NUMPY\x01\0\x76\0", header.as_bytes(), &vec![1; bytes]].concat()
}

/// A zip archive of stored members.
fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut all, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let size = (bytes.len() as u32).to_le_bytes();
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let common = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &crc.sum().to_le_bytes(),
            &size,
            &size,
            &(name.len() as u16).to_le_bytes(),
            &[0, 0],
        ]
        .concat();
        let header = (all.len() as u32).to_le_bytes();
        let place = [&[0; 10][..], &header].concat();
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &place, name.as_bytes()].concat());
        all.extend([b"PK\x03\x04", &common[..], name.as_bytes(), bytes].concat());
    }
    let numbers = [directory.len() as u32, all.len() as u32].map(u32::to_le_bytes).concat();
    let count = (members.len() as u16).to_le_bytes();
    all.extend(directory);
    all.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &numbers, &[0, 0]].concat());
    all
}

#[test]
fn arrays() {
    let place = Place::empty();
    let (images, labels) = (npy("(3, 4, 4)", 48), npy("(3,)", 3));
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 4][..], &[9; 48]].concat();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    packed.write_all(&idx).unwrap();
    let trials: [(&'static str, Vec<u8>); 4] = [
        ("a.npz", zip(&[("images.npy", &images), ("labels.npy", &labels)])),
        ("a.npy", images),
        ("a-idx3-ubyte", idx),
        ("a-idx3-ubyte.gz", packed.finish().unwrap()),
    ];
    for (name, seed) in trials {
        write_whole(&place.path(name), &seed).unwrap();
        Trials { place: &place, format: name, commands: INSPECT }.of_file(name);
        fs::remove_file(place.path(name)).unwrap();
    }
}

fn write_parquet(path: &Path) {
    let schema = "message schema { required binary image; required int64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    for at in 0..2_i64 {
        let mut group = writer.next_row_group().unwrap();
        let png = ByteArray::from(bytes_of(&color(), ImageFormat::Png));
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[png.clone(), png], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[at, 1], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn tables_and_lists() {
    let place = Place::with_classes();
    write_parquet(&place.path("a.parquet"));
    let names = |line: fn(usize) -> String| (0..6).map(line).collect::<String>();
    place.text(
        "a.csv",
        &format!("path,label\n{}", names(|at| { format!("photos/discs/{at}.png,{at}\n") })),
    );
    place.text(
        "a.jsonl",
        &names(|at| format!("{{\"file_name\": \"photos/discs/{at}.png\", \"label\": {at}}}\n")),
    );
    for name in ["a.parquet", "a.csv", "a.jsonl"] {
        Trials { place: &place, format: name, commands: INSPECT }.of_file(name);
    }
}

#[test]
fn recipes() {
    let place = Place::with_classes();
    let output = saltworks().arg("recipe").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace("path = \"builtin:fashion-mnist\"", "path = \"photos\"");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("holdout = "));
    place.text("long.toml", &lines.collect::<Vec<_>>().join("\n"));
    place.text(
        "short.toml",
        "model = { patch = 8 }\ndata = { path = \"photos\", size = 32, holdout = 8 }\n[[stage]]\n\
         name = \"a\"\nmethod = \"mae\"\nepochs = 2\n\
         decoder = { width = 32, depth = 1, heads = 2 }\n\
         [[stage]]\nname = \"b\"\nmethod = \"salt\"\nteacher = \"a\"\nepochs = 2\n",
    );
    for name in ["long.toml", "short.toml"] {
        // What a recipe asks for may be more than fits, so nothing is timed.
        let plan: &[&str] = &["plan", FILE, "--seconds", "0"];
        let commands = &[plan, &["inspect", FILE], &["recipe", FILE]];
        Trials { place: &place, format: name, commands }.of_file(name);
    }
}

/// A place with a run of two stages.
fn with_run() -> Place {
    let place = Place::with_classes();
    place.trained("run", &["probe.every_steps=1"]);
    place
}

#[test]
fn weights() {
    let place = with_run();
    let export = |to: &str, out: &str| {
        let mut command = saltworks();
        fs::create_dir_all(place.path(out).parent().unwrap()).unwrap();
        command.arg("export").arg(place.path("run")).args(["--to", to, "--out"]);
        assert!(command.arg(place.path(out)).status().unwrap().success());
    };
    export("timm", "timm/a.safetensors");
    export("stable-pretraining", "spt/a.ckpt");
    export("facebook", "facebook/a.pth");
    export("hf", "hf");
    fs::create_dir(place.path("out")).unwrap();
    for (name, from) in [
        ("timm/a.safetensors", FILE),
        ("spt/a.ckpt", FILE),
        ("facebook/a.pth", FILE),
        ("hf/config.json", FOLDER),
        ("hf/model.safetensors", FOLDER),
    ] {
        let export = |to: &'static str, out: &'static str| {
            ["export", from, "--to", to, "--out", out, "--overwrite", "--heads", "2"]
        };
        let sized = [&export("timm", "out/b.pt")[..], &["--size", "64"]].concat();
        let commands: &[&[&str]] = &[
            &["inspect", from],
            &["inspect", from, "--json"],
            &export("timm", "out/a.pt"),
            &export("safetensors", "out/a.safetensors"),
            &export("onnx", "out/a.onnx"),
            &sized,
            &["probe", from, "--data", "photos", "--heads", "2"],
        ];
        let format = name.rsplit('/').next().unwrap();
        Trials { place: &place, format, commands }.of_file(name);
    }
}

/// The files of a folder, at any depth.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    all.sort();
    all
}

#[test]
fn folders_of_runs() {
    let place = with_run();
    let commands: &[&[&str]] = &[
        &["report", "run", "--out", "page.html"],
        &["log", "run", "--to", "tensorboard", "--out", "board"],
        &["log", "run", "--to", "wandb", "--out", "wandb"],
        &["export", "run", "--to", "timm", "--out", "a.safetensors", "--overwrite"],
        &["report", "run", "run", "--out", "page.html"],
        &["inspect", "run"],
        &["probe", "run"],
    ];
    let trials = Trials { place: &place, format: "run", commands };
    trials.assert_whole("run");
    let files = files(&place.path("run"));
    assert!(files.iter().any(|file| file.ends_with("metrics.jsonl")), "{files:?}");
    for number in 0..fuzz::inputs(INPUTS) {
        let path = &files[Random::new(0, "file", number).below(files.len())];
        let whole = fs::read(path).unwrap();
        write_whole(path, &damaged("run", &whole, number)).unwrap();
        let name = path.strip_prefix(place.path("")).unwrap();
        trials.check(name.to_str().unwrap(), number);
        write_whole(path, &whole).unwrap();
    }
}
