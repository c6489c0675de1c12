use super::*;
use crate::train::OptimizerOptions;
use engine::{Tape, ops};

fn optimizer() -> Optimizer {
    let weight = Parameter::new("w", Tensor::from_vec([0.5, -1.0, 2.0, 0.25], &[2, 2]));
    let options = OptimizerOptions { betas: (0.9, 0.95), eps: 1e-8, clip: None, decay_all: true };
    Optimizer::new(vec![("w".to_owned(), weight)], options)
}

fn train(optimizer: &mut Optimizer, steps: u64) {
    for _ in 0..steps {
        optimizer.zero_grad();
        let tape = Tape::new();
        let x = Tensor::from_vec([1.0, 2.0], &[1, 2]);
        let y = ops::linear(&tape, &x, &optimizer.parameters()[0].1.tensor(), None).unwrap();
        let target = Tensor::from_vec([3.0, 4.0], &[1, 2]);
        let loss = ops::loss(&tape, &y, &target, ops::LossKind::Mse, None).unwrap();
        tape.backward(&loss).unwrap();
        optimizer.step(1e-2, 0.1).unwrap();
    }
}

fn weights_of(optimizer: &Optimizer) -> Vec<u32> {
    optimizer.parameters()[0].1.value().to_host().iter().map(|x| x.to_bits()).collect()
}

fn at(step: u64, loss: f64) -> Position {
    Position {
        stage: "a".into(),
        step,
        loss,
        metrics_bytes: 0,
        machine: String::new(),
        recipe_sha256: String::new(),
        teacher_sha256: String::new(),
        updates: BTreeMap::new(),
        unreadable: BTreeSet::new(),
    }
}

fn steps_kept(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join(CHECKPOINT_FOLDER)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const KEEP: Keep = Keep { last: 2, best: true };

#[test]
fn a_restored_optimizer_resumes_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path(), KEEP);
    let mut whole = optimizer();
    train(&mut whole, 3);
    checkpoints.save(at(3, 1.0), &whole).unwrap();
    train(&mut whole, 4);
    let mut other = optimizer();
    let (found, damaged) = checkpoints.newest("a").unwrap();
    assert!(damaged.is_empty());
    found.unwrap().restore(&mut other).unwrap();
    train(&mut other, 4);
    assert_eq!(weights_of(&whole), weights_of(&other));
}

#[test]
fn the_newest_and_the_best_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path(), KEEP);
    let mut optimizer = optimizer();
    train(&mut optimizer, 1);
    for (step, loss) in [(1, 0.9), (2, 0.3), (3, 0.5), (4, 0.4), (5, 0.8)] {
        checkpoints.save(at(step, loss), &optimizer).unwrap();
    }
    let expected = ["a-00000002", "a-00000004", "a-00000005"];
    let files = expected.map(|name| [format!("{name}.json"), format!("{name}.safetensors")]);
    assert_eq!(steps_kept(folder.path()), files.concat());
    checkpoints.remove("a").unwrap();
    assert!(!folder.path().join(CHECKPOINT_FOLDER).exists());
}

#[test]
fn a_checkpoint_with_any_bit_changed_or_byte_missing_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path(), KEEP);
    let mut optimizer = optimizer();
    train(&mut optimizer, 1);
    checkpoints.save(at(1, 1.0), &optimizer).unwrap();
    checkpoints.save(at(2, 1.0), &optimizer).unwrap();
    let newest = || {
        let (found, damaged) = checkpoints.newest("a").unwrap();
        (found.map(|checkpoint| checkpoint.position.step), damaged.len())
    };
    assert_eq!(newest(), (Some(2), 0));
    let files = ["a-00000002.safetensors", "a-00000002.json"];
    for name in files {
        let path = folder.path().join(CHECKPOINT_FOLDER).join(name);
        let whole = fs::read(&path).unwrap();
        for bit in (0..8 * whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            files::write_whole(&path, &changed).unwrap();
            // A changed loss or white space in the manifest does no harm.
            let (step, damaged) = newest();
            let harmless = name.ends_with("json") && (step, damaged) == (Some(2), 0);
            assert!(harmless || step == Some(1), "bit {bit} of {name}: {step:?}");
        }
        for kept in (0..whole.len()).step_by(11) {
            files::write_whole(&path, &whole[..kept]).unwrap();
            assert_eq!(newest(), (Some(1), 1), "{name} of {kept} bytes");
        }
        files::write_whole(&path, &whole).unwrap();
    }
    fs::remove_file(folder.path().join(CHECKPOINT_FOLDER).join(files[0])).unwrap();
    assert_eq!(newest(), (Some(1), 1));
}

#[test]
fn weights_that_are_not_finite_make_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let optimizer = optimizer();
    optimizer.parameters()[0].1.set_value(&[1.0, f32::NAN, 0.0, 0.0]).unwrap();
    let checkpoints = Checkpoints::new(folder.path(), KEEP);
    let message = checkpoints.save(at(7, 1.0), &optimizer).unwrap_err().to_string();
    assert!(message.contains("w holds values that are not finite after step 7"), "{message}");
    assert!(!folder.path().join(CHECKPOINT_FOLDER).exists());
}

#[test]
fn the_next_checkpoint_removes_the_files_of_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path(), KEEP);
    let mut optimizer = optimizer();
    train(&mut optimizer, 1);
    checkpoints.save(at(1, 1.0), &optimizer).unwrap();
    let path = |name: &str| folder.path().join(CHECKPOINT_FOLDER).join(name);
    // A file of this stage without a manifest, one of another stage, and one of the user.
    let orphan = "a-00000002.safetensors";
    let others = ["a-b-00000002.safetensors", "a-mine.safetensors"];
    for name in others.iter().chain(&[orphan]) {
        files::write_whole(&path(name), b"half").unwrap();
    }
    checkpoints.save(at(3, 1.0), &optimizer).unwrap();
    assert!(!path(orphan).exists());
    assert!(others.iter().all(|name| path(name).exists()));
}

#[test]
fn a_damaged_checkpoint_does_not_replace_an_intact_one() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path(), Keep { last: 1, best: false });
    let mut optimizer = optimizer();
    train(&mut optimizer, 1);
    checkpoints.save(at(9, 1.0), &optimizer).unwrap();
    let damaged = folder.path().join(CHECKPOINT_FOLDER).join("a-00000009.safetensors");
    files::write_whole(&damaged, b"half").unwrap();
    // The run resumed from the previous checkpoint.
    for step in [6, 7] {
        checkpoints.save(at(step, 1.0), &optimizer).unwrap();
        let (found, problems) = checkpoints.newest("a").unwrap();
        assert_eq!((found.unwrap().position.step, problems.len()), (step, 1));
    }
    checkpoints.save(at(10, 1.0), &optimizer).unwrap();
    assert_eq!(steps_kept(folder.path()), ["a-00000010.json", "a-00000010.safetensors"]);
}

#[test]
fn moments_that_are_not_finite_make_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut optimizer = optimizer();
    let infinite = Tensor::from_vec([f32::INFINITY; 4], &[2, 2]);
    optimizer.restore("w", &Tensor::zeros(&[2, 2]), &infinite, 1).unwrap();
    let checkpoints = Checkpoints::new(folder.path(), KEEP);
    let message = checkpoints.save(at(7, 1.0), &optimizer).unwrap_err().to_string();
    assert!(message.contains("second_moment.w holds values that are not finite"), "{message}");
}

/// Writes `a-00000001` with this content and a matching manifest.
fn forge(folder: &Path, content: &[u8]) {
    let path = folder.join(CHECKPOINT_FOLDER).join("a-00000001.safetensors");
    let put = |path: &Path, bytes: &[u8]| {
        std::io::Write::write_all(&mut fs::File::create(path).unwrap(), bytes).unwrap();
    };
    put(&path, content);
    let bytes = content.len() as u64;
    let content = Record { file: String::new(), bytes, sha256: files::sha256(content) };
    let manifest = Manifest { stage: "a".into(), step: 1, loss: 1.0, content };
    put(&path.with_extension("json"), &serde_json::to_vec(&manifest).unwrap());
}

#[test]
fn a_forged_checkpoint_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path(), KEEP);
    let mut trained = optimizer();
    train(&mut trained, 1);
    checkpoints.save(at(1, 1.0), &trained).unwrap();
    type Forgery = fn(&mut weights::NamedTensors, &mut Position);
    let forgeries: [(&str, Forgery); 9] = [
        ("not finite", |t, _| drop(t.insert("parameter.w".into(), of(f32::NAN)))),
        ("not finite", |t, _| drop(t.insert("first_moment.w".into(), of(f32::INFINITY)))),
        ("no moments of w", |t, _| drop(t.insert("second_moment.w".into(), of(-1.0)))),
        ("no moments of w", |t, _| drop(t.insert("first_moment.w".into(), Tensor::zeros(&[4])))),
        ("no moments of w", |t, _| drop(t.remove("second_moment.w"))),
        ("no moments of w", |_, p| p.updates.extend([("w".into(), u64::MAX)])),
        ("no moments of w", |_, p| p.updates.clear()),
        ("v, which is not trained", |_, p| p.updates.extend([("v".into(), 1)])),
        ("does not fit", |t, _| drop(t.remove("parameter.w"))),
    ];
    for (index, (words, forgery)) in forgeries.into_iter().enumerate() {
        let mut tensors: weights::NamedTensors = tensors_of(&trained).into_iter().collect();
        let mut position = Position { updates: [("w".to_owned(), 1)].into(), ..at(1, 1.0) };
        forgery(&mut tensors, &mut position);
        let text = serde_json::to_string(&position).unwrap();
        let file = folder.path().join("forged");
        let tensors: Vec<_> = tensors.into_iter().collect();
        weights::save(&file, &tensors, &[(POSITION.to_owned(), text)].into()).unwrap();
        forge(folder.path(), &fs::read(&file).unwrap());
        let mut other = optimizer();
        let found = checkpoints.newest("a").unwrap().0.unwrap();
        let message = found.restore(&mut other).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("a-00000001"), "{index}: {message}");
        assert_eq!(weights_of(&other), weights_of(&optimizer()), "{index}");
        assert_eq!(other.moments().count(), 0, "{index}");
    }
}

fn of(value: f32) -> Tensor {
    Tensor::from_vec([value; 4], &[2, 2])
}

/// The number of cases is the environment variable SALTWORKS_FUZZ, or 5,000 if it is not set.
#[test]
fn no_content_under_a_right_checksum_makes_the_reader_panic() {
    let count = std::env::var("SALTWORKS_FUZZ").map_or(5_000, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path(), KEEP);
    let mut trained = optimizer();
    train(&mut trained, 1);
    checkpoints.save(at(1, 1.0), &trained).unwrap();
    let path = folder.path().join(CHECKPOINT_FOLDER).join("a-00000001.safetensors");
    let whole = fs::read(path).unwrap();
    // Length and text of the header. Three tensors of four values follow it.
    let header = whole.len() - 3 * 16;
    let mut random = engine::random::Random::new(5, "checkpoints", 0);
    let (mut unread, mut refused, mut restored) = (0, 0, 0);
    for _ in 0..count {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(2) {
            let text = b"0123456789-{}[],:\"e ";
            bytes[random.below(header)] = text[random.below(text.len())];
        }
        forge(folder.path(), &bytes);
        let mut other = optimizer();
        match checkpoints.newest("a").unwrap().0.map(|found| found.restore(&mut other)) {
            None => unread += 1,
            Some(Err(_)) => {
                refused += 1;
                assert_eq!(weights_of(&other), weights_of(&optimizer()));
            }
            Some(Ok(())) => restored += 1,
        }
    }
    assert!(unread > 0 && refused > 0 && restored > 0, "{unread} {refused} {restored}");
}
