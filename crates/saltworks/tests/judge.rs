//! `saltworks probe` and `saltworks embed`, run on trained encoders and real images.

mod place;

use parquet::file::reader::FileReader as _;
use parquet::record::{ListAccessor as _, RowAccessor as _};
use place::{Place, assert_refused, saltworks, stderr};
use safetensors::SafeTensors;
use saltworks::data::{Background, open};
use saltworks::files::write_whole;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};

fn with(place: &Place, verb: &str, run: &str, arguments: &[&str]) -> Command {
    let mut command = saltworks();
    command.arg(verb).arg(place.path(run)).args(arguments).current_dir(place.path("."));
    command
}

fn succeeded(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

fn json(place: &Place, name: &str) -> Value {
    serde_json::from_slice(&place.bytes(name)).unwrap()
}

#[test]
fn probes_of_a_runs_held_out_images_are_those_the_run_made_itself() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    succeeded(with(&place, "probe", "run", &["--json", "probe.json"]));
    let rows = json(&place, "run/probes.json");
    let row = rows.as_array().unwrap().iter().find(|row| row["features"] == "student").unwrap();
    let found = json(&place, "probe.json");
    let of = |kind: &str, features: &str| {
        let probes = found["probes"].as_array().unwrap();
        let is = |probe: &&Value| probe["kind"] == kind && probe["features"] == features;
        probes.iter().find(is).unwrap()["report"].clone()
    };
    for (kind, features, key) in [
        ("kNN", "mean", "knn_mean"),
        ("kNN", "cls", "knn_cls"),
        ("linear", "mean", "linear_mean"),
        ("linear", "cls", "linear_cls"),
    ] {
        let report = of(kind, features);
        assert_eq!(report["accuracy"], row[key], "{key}");
        let [low, high] = [0, 1].map(|i| report["interval"][i].as_f64().unwrap());
        let accuracy = report["accuracy"].as_f64().unwrap();
        assert!(low <= accuracy && accuracy <= high && high - low > 0.1, "of 8 images");
        let confused = report["confusion"].as_array().unwrap().iter();
        let all: u64 =
            confused.flat_map(|row| row.as_array().unwrap()).filter_map(Value::as_u64).sum();
        assert_eq!(all, 8);
    }
}

#[test]
fn what_is_printed_is_what_was_found_and_of_which_stage() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let more = ["--kind", "knn", "--features", "mean", "--k", "3", "--json", "found.json"];
    let output = succeeded(with(&place, "probe", "run", &more));
    assert!(stderr(&output).contains("stage student, all 3 steps"), "{}", stderr(&output));
    let found = json(&place, "found.json");
    assert_eq!(
        (&found["trained"]["stage"], &found["trained"]["step"]),
        (&"student".into(), &3.into())
    );
    let report = &found["probes"][0]["report"];
    let percent = |value: &Value| format!("{:.1}", 100.0 * value.as_f64().unwrap());
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = text.lines().find(|line| line.starts_with("kNN")).unwrap();
    let [low, high] = [0, 1].map(|i| percent(&report["interval"][i]));
    let words: Vec<&str> = line.split_whitespace().collect();
    let wanted = ["kNN", "mean", &percent(&report["accuracy"]), &low, "to", &high];
    assert_eq!(words[..6], wanted, "{line}");
    // SciPy 1.17.1: binomtest(right, 8).proportion_ci(method="wilson").
    const WILSON: [[f64; 2]; 9] = [
        [0.0, 0.324407564884],
        [0.022417491450, 0.470888182213],
        [0.071479212752, 0.590724569690],
        [0.136844285824, 0.694257605397],
        [0.215216062214, 0.784783937786],
        [0.305742394603, 0.863155714176],
        [0.409275430310, 0.928520787248],
        [0.529111817787, 0.977582508550],
        [0.675592435116, 1.0],
    ];
    let right = (8.0 * report["accuracy"].as_f64().unwrap()).round() as usize;
    for (i, wanted) in WILSON[right].iter().enumerate() {
        let found = report["interval"][i].as_f64().unwrap();
        assert!((found - wanted).abs() < 1e-9, "{right} of 8: {found} for {wanted}");
    }
}

#[test]
fn an_unreadable_image_is_not_replaced_by_another() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    for index in 0..6 {
        place.image(&format!("test/discs/{index}.png"), 3 * index);
        place.image(&format!("test/stripes/{index}.jpg"), 3 * index);
    }
    place.cut("test/discs/4.png");
    let kinds =
        ["--kind", "knn,attentive", "--features", "mean", "--epochs", "1", "--json", "a.json"];
    let more = [&["--data", "photos", "--test", "test"][..], &kinds].concat();
    for memory in ["1024", "0"] {
        let more = [&more[..], &["--token-memory", memory]].concat();
        let output = succeeded(with(&place, "probe", "run", &more));
        let printed = stderr(&output);
        let count = "1 of 36 images cannot be read: they are left out";
        assert!(printed.contains(count) && printed.contains("4.png"), "{printed}");
        for probe in json(&place, "a.json")["probes"].as_array().unwrap() {
            let counts: Vec<_> = probe["report"]["classes"].as_array().unwrap().iter().collect();
            let counts: Vec<_> =
                counts.iter().map(|class| class["count"].as_u64().unwrap()).collect();
            assert_eq!((&probe["report"]["images"], counts.as_slice()), (&11.into(), &[5, 6][..]));
        }
    }
}

/// Eight images of 16 x 16 floats from -1 to 1, of two shades.
fn floats() -> Vec<u8> {
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 16, 16), }";
    let mut bytes = b"\x93NUMPY\x01\0\x76\0".to_vec();
    bytes.extend(format!("{header:<117}\n").bytes());
    let shade = |at: usize| [-0.75_f32, 0.75][at / 256 % 2];
    bytes.extend((0..8 * 256).flat_map(|at| shade(at).to_le_bytes()));
    bytes
}

#[test]
fn weights_read_deep_images_if_the_depth_is_given() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    write_whole(&place.path("floats.npy"), &floats()).unwrap();
    let weights = "run/student/encoder.safetensors";
    let more = ["--data", "floats.npy", "--out", "features.npy", "--heads", "2"];
    let words = ["data.depth = [black, white]", "--depth of probe and embed"];
    assert_refused(&mut with(&place, "embed", weights, &more), &words);
    let more = [&more[..], &["--depth", "[-1, 1]"]].concat();
    succeeded(with(&place, "embed", weights, &more));
    let wrong = [&more[..7], &["7", "--overwrite"]].concat();
    let words = ["--depth is 7, expected a number of bits from 8 to 32"];
    assert_refused(&mut with(&place, "embed", weights, &wrong), &words);
    let cut = [&more[..7], &["[-0.5, 0.5]", "--overwrite"]].concat();
    let told = stderr(&succeeded(with(&place, "embed", weights, &cut)));
    for words in ["floats.npy: images hold", "what lies outside --depth = [-0.5, 0.5] is cut"] {
        assert!(told.contains(words), "{told}");
    }
    succeeded(with(&place, "embed", weights, &[&more[..], &["--overwrite"]].concat()));
    let bytes = place.bytes("features.npy");
    let features = &bytes[bytes.len() - 8 * 32 * 4..];
    let row = |at: usize| &features[at * 128..(at + 1) * 128];
    assert!(row(0) == row(2) && row(1) == row(3), "images of one shade");
    assert!(row(0) != row(1), "both shades are the same");
    let column = ["--out", "x.npy", "--column", "image"];
    assert_refused(&mut with(&place, "embed", "run", &column), &["--column", "--data"]);
}

#[test]
fn a_file_states_the_depth_of_the_images_it_was_trained_on() {
    let place = Place::with_classes();
    write_whole(&place.path("floats.npy"), &floats()).unwrap();
    let path = format!("data.path={}", place.path("floats.npy").display());
    place.trained("run", &[&path, "data.depth=[-1, 1]", "data.channels=1"]);
    for (to, out) in [("timm", "vit.safetensors"), ("hf", "hf")] {
        succeeded(with(&place, "export", "run", &["--to", to, "--out", out]));
    }
    let embedded = |source: &str, name: &str, more: &[&str]| {
        let all = [&["--data", "floats.npy", "--out", name][..], more].concat();
        let told = stderr(&succeeded(with(&place, "embed", source, &all)));
        (told, place.bytes(name))
    };
    let (told, stated) = embedded("vit.safetensors", "stated.npy", &[]);
    assert!(told.contains("with the file's depth, [-1.0, 1.0]"), "{told}");
    let (told, given) = embedded("vit.safetensors", "given.npy", &["--depth", "[-1, 1]"]);
    assert!(!told.contains("the file's depth"), "{told}");
    assert!(stated == given, "the file's depth and the same one by --depth");
    assert!(stated == embedded("hf", "hf.npy", &[]).1, "a folder of transformers");
    let (_, other) = embedded("vit.safetensors", "other.npy", &["--depth", "[-8, 8]"]);
    assert!(stated != other, "--depth changes nothing");
}

#[test]
fn training_and_test_images_must_differ_and_their_classes_must_not() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    fs::create_dir_all(place.path("linked/discs")).unwrap();
    fs::hard_link(place.path("photos/discs/3.png"), place.path("linked/discs/x.png")).unwrap();
    place.image("linked/stripes/1.jpg", 40);
    let test = |test: &'static str| ["--data", "photos", "--test", test, "--kind", "knn"];
    assert_refused(&mut with(&place, "probe", "run", &test("linked")), &["x.png", "both"]);
    place.image("others/cats/1.png", 1);
    place.image("others/dogs/1.jpg", 1);
    assert_refused(
        &mut with(&place, "probe", "run", &test("others")),
        &["cats", "discs", "same names"],
    );
    place.image("some/discs/1.png", 50);
    place.image("some/dogs/1.jpg", 1);
    let printed = stderr(&succeeded(with(&place, "probe", "run", &test("some"))));
    assert!(printed.contains("1 of 2 test images") && printed.contains("dogs"), "{printed}");
    let words = "--test: no image of 1 of the 2 classes that are trained on, such as stripes";
    assert!(printed.contains(words), "{printed}");
    for index in 0..20 {
        place.image(&format!("alone/discs/{index}.png"), index);
    }
    let alone = ["--data", "alone", "--kind", "knn"];
    assert_refused(&mut with(&place, "probe", "run", &alone), &["alone", "the same class"]);
}

#[test]
fn settings_and_folders_are_refused_before_the_work() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    for (more, words) in [
        (["--k", "0"], ["k is 0", "1 or more"]),
        (["--temperature", "nan"], ["temperature is NaN", "above 0"]),
        (["--json", "no/where.json"], ["no/where.json", "there is no folder no"]),
        (["--holdout", "500"], ["--holdout is 500", "1 to 22"]),
    ] {
        let mut command = with(&place, "probe", "run", &more);
        let text = stderr(&command.output().unwrap());
        assert!(!text.contains("training:"), "it did nothing before: {text}");
        assert_refused(&mut command, &words);
    }
    assert_refused(&mut with(&place, "embed", "run", &["--out", "no/f.npy"]), &["no folder no"]);
    place.text("f.labels.npy", "mine");
    assert_refused(
        &mut with(&place, "embed", "run", &["--out", "f.npy"]),
        &["f.labels.npy", "--overwrite"],
    );
    assert_eq!(place.bytes("f.labels.npy"), b"mine");
}

/// Once, more than `data.max_unreadable` of them ended a probe, which has no such option.
#[test]
fn however_many_images_cannot_be_read_the_others_are_judged() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    for index in 0..12 {
        place.image(&format!("mine/discs/{index}.png"), index);
        place.image(&format!("mine/stripes/{index}.jpg"), index);
    }
    (0..9).for_each(|index| place.cut(&format!("mine/discs/{index}.png")));
    for (verb, more, fate) in [
        ("probe", ["--kind", "knn"], "they are left out"),
        ("embed", ["--out", "f.npy"], "their rows are NaN"),
    ] {
        let more = [&["--data", "mine"][..], &more].concat();
        let printed = stderr(&succeeded(with(&place, verb, "run", &more)));
        assert!(printed.contains(&format!("9 of 24 images cannot be read: {fate}")), "{printed}");
        let named: Vec<&str> = printed.lines().filter(|line| line.contains("discs/")).collect();
        assert_eq!(named.len(), 5, "each once: {printed}");
        assert!(printed.contains("and 4 more"), "{printed}");
    }
    for index in 0..12 {
        place.text(&format!("mine/discs/{index}.png"), "no image");
        place.text(&format!("mine/stripes/{index}.jpg"), "no image");
    }
    let more = ["--data", "mine", "--out", "g.npy"];
    let words = ["none of the images can be read", "discs/0.png"];
    assert_refused(&mut with(&place, "embed", "run", &more), &words);
    assert!(!place.path("g.npy").exists());
}

#[test]
fn advice_is_not_what_was_tried_and_classes_match_by_name() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let shots = ["--kind", "fewshot", "--shots", "50", "--test", "photos", "--data", "six"];
    for index in 0..3 {
        place.image(&format!("six/discs/{index}.png"), 20 + index);
        place.image(&format!("six/stripes/{index}.jpg"), 20 + index);
        place.image(&format!("six/stripes/{index}.png"), 20 + index);
    }
    let words = ["--shots is 50", "the number of training images of class discs"];
    assert_refused(&mut with(&place, "probe", "run", &shots), &words);

    let place = Place::empty();
    (0..12).for_each(|index| place.image(&format!("photos/only/{index}.png"), index));
    place.trained("run", &[]);
    let command = &mut with(&place, "probe", "run", &["--holdout", "4"]);
    let text = stderr(&command.output().unwrap());
    assert!(text.contains("all images have one class. Add --data PATH"), "{text}");
    assert!(!text.contains("Add --holdout"), "{text}");
}

#[test]
fn only_a_runs_own_files_take_its_recipe() {
    let place = Place::with_classes();
    place.trained("run", &["data.normalize={mean=[0.1], std=[0.9]}"]);
    fs::create_dir_all(place.path("project/weights")).unwrap();
    fs::copy(place.path("run/recipe.toml"), place.path("project/recipe.toml")).unwrap();
    let own = place.path("run/student/encoder.safetensors");
    fs::copy(&own, place.path("project/weights/encoder.safetensors")).unwrap();
    let other = "project/weights/encoder.safetensors";
    assert_refused(&mut with(&place, "probe", other, &["--kind", "knn"]), &["no images are given"]);
    succeeded(with(&place, "probe", "run/student/encoder.safetensors", &["--kind", "knn"]));
    let more = ["--data", "photos", "--kind", "knn", "--normalize", "imagenet"];
    let printed = stderr(&succeeded(with(&place, "probe", other, &more)));
    assert!(printed.contains("the file states") && printed.contains("0.1"), "{printed}");
}

/// The nearest images, computed here from the embeddings.
#[test]
fn neighbours_are_the_nearest_and_in_order() {
    let place = Place::with_classes();
    place.trained("run", &["data.holdout=0"]);
    succeeded(with(&place, "embed", "run", &["--out", "f.npy"]));
    let (_, rows) = npy(&place.bytes("f.npy"));
    let rows: Vec<&[f32]> = rows.chunks_exact(32).collect();
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
    let cosine = |i: usize, j: usize| {
        dot(rows[i], rows[j]) / (dot(rows[i], rows[i]) * dot(rows[j], rows[j])).sqrt()
    };
    let pictures = json(&place, "run/pictures/student.json");
    let shown = pictures["images"].as_array().unwrap().iter();
    for (image, entry) in shown.zip(pictures["neighbours"].as_array().unwrap()) {
        let own = image["index"].as_u64().unwrap() as usize;
        let mut others: Vec<usize> = (0..rows.len()).filter(|i| *i != own).collect();
        others.sort_by(|a, b| cosine(own, *b).total_cmp(&cosine(own, *a)));
        for (near, wanted) in entry["near"].as_array().unwrap().iter().zip(others) {
            let found = near["similarity"].as_f64().unwrap();
            assert!(
                (found - cosine(own, wanted)).abs() < 1e-5,
                "{near} and {}",
                cosine(own, wanted)
            );
        }
    }
}

#[test]
fn an_attentive_probe_learns_from_tokens_kept_or_made_again() {
    let place = Place::with_classes();
    place.trained("run", &["teacher.steps=1", "student.steps=1"]);
    // Tokens stay frozen, so only the probe learns to distinguish discs from stripes.
    for (form, memory) in [("vjepa1", "1024"), ("vjepa1", "0"), ("vjepa2", "1024")] {
        let more =
            ["--kind", "attentive", "--form", form, "--token-memory", memory, "--batch", "4"];
        let more = [&more[..], &["--epochs", "12", "--json", "a.json"]].concat();
        succeeded(with(&place, "probe", "run", &more));
        let found = json(&place, "a.json");
        let probe = &found["probes"][0];
        assert!(probe["report"]["accuracy"].as_f64().unwrap() >= 0.75, "{form} {memory}: {probe}");
        let grid = probe["settings"]["grid"].as_array().unwrap();
        assert_eq!(grid.len(), 8, "four rates, two decays");
        // Of 16 images, every fifth of a class is held out: 14 in steps of 4, for 12 epochs.
        assert_eq!(
            (&probe["settings"]["fitted_images"], &probe["settings"]["steps"]),
            (&14.into(), &48.into())
        );
        let most = grid.iter().map(|trial| trial["held_out"].as_f64().unwrap()).fold(0.0, f64::max);
        let chosen = grid.iter().find(|trial| trial["held_out"] == most).unwrap();
        assert_eq!(
            (&probe["settings"]["lr"], &probe["settings"]["weight_decay"]),
            (&chosen["lr"], &chosen["weight_decay"])
        );
        assert_eq!(probe["report"]["accuracy"], chosen["test"]);
    }
}

#[test]
fn the_way_tokens_are_kept_changes_no_bit_of_an_attentive_probe() {
    let place = Place::with_classes();
    place.trained("run", &["teacher.steps=1", "student.steps=1"]);
    let grid = |memory: &str| {
        let more =
            ["--kind", "attentive", "--token-memory", memory, "--epochs", "2", "--json", "a.json"];
        succeeded(with(&place, "probe", "run", &more));
        json(&place, "a.json")["probes"][0]["settings"]["grid"].clone()
    };
    assert_eq!(grid("1024"), grid("0"));
}

#[test]
fn a_file_of_weights_is_probed_on_any_images() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    fs::copy(place.path("run/student/encoder.safetensors"), place.path("vit.safetensors")).unwrap();
    let photos = place.path("photos");
    let photos = photos.to_str().unwrap();
    let more = ["--data", photos, "--kind", "knn,fewshot", "--shots", "1,3", "--k", "3"];
    let output = succeeded(with(&place, "probe", "vit.safetensors", &more));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.contains("1-shot") && text.contains("3-shot"), "{text}");
    assert!(!stderr(&output).contains("normalised as"), "the file tells: {}", stderr(&output));
    let bytes = place.bytes("vit.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    write_whole(&place.path("bare.safetensors"), &safetensors::serialize(tensors, None).unwrap())
        .unwrap();
    let bare = ["--data", photos, "--kind", "knn", "--k", "3", "--heads", "4"];
    let output = succeeded(with(&place, "probe", "bare.safetensors", &bare));
    assert!(stderr(&output).contains("normalised as imagenet"), "{}", stderr(&output));
    assert_refused(
        &mut with(&place, "probe", "vit.safetensors", &[]),
        &["no images are given", "--data"],
    );
    let same = ["--data", photos, "--test", photos];
    assert_refused(&mut with(&place, "probe", "vit.safetensors", &same), &["both", "--test"]);
    let usual = ["--data", photos, "--kind", "fewshot"];
    let text = succeeded(with(&place, "probe", "vit.safetensors", &usual)).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("5-shot") && !text.contains("10-shot"), "of 10 images a class: {text}");
    let many = ["--data", photos, "--kind", "fewshot", "--shots", "99"];
    assert_refused(&mut with(&place, "probe", "vit.safetensors", &many), &["99"]);
}

#[test]
fn images_to_test_beside_the_training_images_are_probed_on() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    for (part, images) in [("train", 12), ("test", 3)] {
        for index in 0..images {
            place.image(&format!("set/{part}/discs/{index}.png"), index);
            place.image(&format!("set/{part}/stripes/{index}.jpg"), index);
        }
    }
    let set = place.path("set").display().to_string();
    let of = |more: &[&str]| {
        let weights = "run/student/encoder.safetensors";
        let all = [&["--data", &set, "--kind", "knn", "--json", "a.json"], more].concat();
        let printed = stderr(&succeeded(with(&place, "probe", weights, &all)));
        let images = json(&place, "a.json")["probes"][0]["report"]["images"].as_u64().unwrap();
        (images, printed)
    };
    let (images, printed) = of(&[]);
    assert_eq!(images, 6);
    assert!(printed.contains("set/test, which is beside the training images. --test"), "{printed}");
    assert!(printed.contains("6 of 6 images that were compared are training images"), "{printed}");
    let (images, printed) = of(&["--holdout", "4"]);
    assert!(images == 4 && !printed.contains("which is beside"), "{images} {printed}");
}

#[test]
fn lines_of_a_list_to_test_are_embedded_with_the_classes_of_the_others() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    // Alone, the lines to test would have stripes as class 0.
    let mut list = "path,label,split\n".to_owned();
    for index in 0..8 {
        list += &format!("photos/discs/{index}.png,discs,train\n");
        let part = if index < 5 { "train" } else { "test" };
        list += &format!("photos/stripes/{index}.jpg,stripes,{part}\n");
    }
    place.text("list.csv", &list);
    let embedded = |out: &str, data: &str, more: &[&str]| {
        let all = [&["--data", data, "--out", out][..], more].concat();
        succeeded(with(&place, "embed", "run", &all));
        npy(&place.bytes(out)).1
    };
    let tests = embedded("tests.npy", "list.csv", &["--tests"]);
    assert_eq!(place.bytes("tests.labels.npy")[128..], [1_i64; 3].map(i64::to_le_bytes).concat());
    // The same images in their folder: 12 discs, then stripes in the order of their names.
    let all = embedded("all.npy", "photos", &[]);
    let names = ["0", "1", "10", "11", "2", "3", "4", "5", "6", "7"];
    let row = |name: &str| 12 + names.iter().position(|known| *known == name).unwrap();
    let wanted = ["5", "6", "7"].map(|name| all[row(name) * 32..(row(name) + 1) * 32].to_vec());
    assert_eq!(tests, wanted.concat());
    let none = ["--data", "photos", "--out", "x.npy", "--tests"];
    assert_refused(&mut with(&place, "embed", "run", &none), &["photos: no images to test"]);
}

/// A .npy file's header and its 32-bit floats.
fn npy(bytes: &[u8]) -> (String, Vec<f32>) {
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00");
    let length = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(length.is_multiple_of(64));
    let values =
        bytes[length..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
    (String::from_utf8(bytes[10..length].to_vec()).unwrap(), values.collect())
}

#[test]
fn features_are_the_same_in_every_form_of_file() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    for out in ["f.npy", "f.safetensors", "f.parquet"] {
        succeeded(with(&place, "embed", "run", &["--out", out]));
    }
    let (header, mean) = npy(&place.bytes("f.npy"));
    assert!(header.contains("'shape': (24,32,)"), "{header}");
    let bytes = place.bytes("f.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let same: Vec<u8> = mean.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(tensors.tensor("mean").unwrap().data(), same);
    assert_eq!(tensors.tensor("cls").unwrap().shape(), [24, 32]);
    let labels = tensors.tensor("label").unwrap().data().to_vec();
    let wanted: Vec<u8> = (0..24_i64).flat_map(|i| (i / 12).to_le_bytes()).collect();
    assert_eq!(labels, wanted);
    assert_eq!(place.bytes("f.labels.npy")[128..], wanted);
    let bytes = bytes::Bytes::from(place.bytes("f.parquet"));
    let file = parquet::file::serialized_reader::SerializedFileReader::new(bytes).unwrap();
    let rows: Vec<_> = file.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 24);
    let photos = open(&place.path("photos"), Background::default()).unwrap();
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row.get_string(0).unwrap(), &photos.stamp(i).name);
        assert_eq!(row.get_int(1).unwrap(), i as i32 / 12);
        assert_eq!(row.get_string(2).unwrap(), ["discs", "stripes"][i / 12]);
        let values = row.get_list(3).unwrap();
        let values = (0..values.len()).map(|column| values.get_float(column).unwrap());
        assert_eq!(values.collect::<Vec<_>>(), mean[i * 32..(i + 1) * 32]);
    }
}

#[test]
fn an_image_that_cannot_be_read_leaves_its_row_empty_and_moves_no_other() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    succeeded(with(&place, "embed", "run", &["--out", "whole.npy"]));
    place.cut("photos/stripes/0.jpg");
    let set = ["--out", "f.npy", "--data", "photos"];
    let output = succeeded(with(&place, "embed", "run", &set));
    assert!(stderr(&output).contains("0.jpg"), "{}", stderr(&output));
    let (whole, some) = (npy(&place.bytes("whole.npy")).1, npy(&place.bytes("f.npy")).1);
    assert!(some[12 * 32..13 * 32].iter().all(|x| x.is_nan()));
    assert_eq!(some.iter().filter(|x| x.is_nan()).count(), 32);
    assert_eq!(some[..12 * 32], whole[..12 * 32], "the discs are where they were");
}

#[test]
fn existing_files_and_unwritable_ones_are_refused() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    place.text("there.npy", "mine");
    assert_refused(&mut with(&place, "embed", "run", &["--out", "there.npy"]), &["--overwrite"]);
    assert_eq!(place.bytes("there.npy"), b"mine");
    assert_refused(&mut with(&place, "embed", "run", &["--out", "f.csv"]), &[".npy", ".parquet"]);
    let both = ["--out", "f.npy", "--features", "mean,cls"];
    assert_refused(&mut with(&place, "embed", "run", &both), &[".safetensors"]);
    // As root, a file would take the place of /dev/null.
    let device = place.path("device.npy");
    std::os::unix::fs::symlink("/dev/null", &device).unwrap();
    let words = ["cannot write device.npy", "a device", "Choose another file"];
    let embed = ["--out", "device.npy", "--overwrite"];
    assert_refused(&mut with(&place, "embed", "run", &embed), &words);
    assert_refused(&mut with(&place, "probe", "run", &["--json", "device.npy"]), &words);
    assert!(!device.metadata().unwrap().is_file(), "the device became a file");
}

#[test]
fn patch_tokens_are_those_whose_mean_is_the_mean() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    place.cut("photos/stripes/0.jpg");
    for (features, out) in [("mean", "m.npy"), ("patches", "p.npy"), ("patches", "p.safetensors")] {
        let more = ["--data", "photos", "--features", features, "--out", out];
        succeeded(with(&place, "embed", "run", &more));
    }
    let (_, mean) = npy(&place.bytes("m.npy"));
    let (header, patches) = npy(&place.bytes("p.npy"));
    assert!(header.contains("'shape': (24,16,32,)"), "images of 32, patches of 8: {header}");
    for (image, tokens) in patches.chunks_exact(16 * 32).enumerate() {
        for column in 0..32 {
            let sum: f32 = tokens.iter().skip(column).step_by(32).sum();
            let (found, wanted) = (sum / 16.0, mean[image * 32 + column]);
            match image {
                12 => assert!(found.is_nan() && wanted.is_nan(), "the image that is cut"),
                _ => assert!((found - wanted).abs() < 1e-5, "{image}: {found} for {wanted}"),
            }
        }
    }
    let bytes = place.bytes("p.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let same: Vec<u8> = patches.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(tensors.tensor("patches").unwrap().data(), same);
    assert_eq!(tensors.tensor("patches").unwrap().shape(), [24, 16, 32]);
    let labels: Vec<u8> = (0..24_i64).flat_map(|i| (i / 12).to_le_bytes()).collect();
    assert_eq!(tensors.tensor("label").unwrap().data(), labels);
    assert_eq!(place.bytes("p.labels.npy")[128..], labels);

    for (features, out, words) in [
        ("patches", "p.parquet", "holds no patch tokens. Use .npy or .safetensors"),
        ("patches,cls", "q.safetensors", "--features patches is written alone"),
    ] {
        let more = ["--features", features, "--out", out];
        assert_refused(&mut with(&place, "embed", "run", &more), &[words]);
    }
    let more = ["--features", "patches"];
    assert_refused(&mut with(&place, "probe", "run", &more), &["--kind attentive"]);
}

/// As DINOv2's linear evaluation reads them.
#[test]
fn features_of_the_last_layers_stand_side_by_side() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    let embedded = |layers: &str, features: &str| {
        let out = format!("{features}{layers}.npy");
        let more = ["--layers", layers, "--features", features, "--out", &out];
        succeeded(with(&place, "embed", "run", &more));
        npy(&place.bytes(&out))
    };
    for (features, shape, rows) in
        [("mean", "(24,64,)", 24), ("cls", "(24,64,)", 24), ("patches", "(24,16,64,)", 24 * 16)]
    {
        let ((_, one), (header, two)) = (embedded("1", features), embedded("2", features));
        assert!(header.contains(shape), "{header}");
        let last: Vec<f32> = two.chunks_exact(64).flat_map(|row| &row[32..]).copied().collect();
        assert_eq!((last.len(), last == one), (rows * 32, true), "the last layer comes last");
        let first: Vec<f32> = two.chunks_exact(64).flat_map(|row| &row[..32]).copied().collect();
        assert_ne!(first, one);
    }
    let more = ["--layers", "2", "--kind", "knn,linear", "--json", "a.json"];
    succeeded(with(&place, "probe", "run", &more));
    assert_eq!(json(&place, "a.json")["layers"], 2);
    let words = ["--layers is 3, expected 1 to 2, the number of the encoder's blocks"];
    assert_refused(&mut with(&place, "probe", "run", &["--layers", "3"]), &words);
    let more = ["--layers", "2", "--kind", "attentive"];
    assert_refused(&mut with(&place, "probe", "run", &more), &["tokens of the last block"]);
}
