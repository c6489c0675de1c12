//! The probes against scikit-learn, against plain code, and on sets with a known answer.

use engine::random::Random;
use safetensors::SafeTensors;
use saltworks::eval::{
    self, Error, Features, KnnOptions, LidarOptions, LinearOptions, TsneOptions, Vote,
};

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/eval.safetensors");
const PICTURES: &[u8] = include_bytes!("../../../tests/golden/pictures.safetensors");
const PROBES: &[u8] = include_bytes!("../../../tests/golden/probes.safetensors");

struct Golden<'a>(SafeTensors<'a>);

impl Golden<'_> {
    fn read() -> Self {
        Self(SafeTensors::deserialize(GOLDEN).unwrap())
    }

    /// What stable-pretraining finds.
    fn probes() -> Self {
        Self(SafeTensors::deserialize(PROBES).unwrap())
    }

    fn values<const SIZE: usize, T>(&self, name: &str, decode: fn([u8; SIZE]) -> T) -> Vec<T> {
        let tensor = self.0.tensor(name).unwrap();
        tensor.data().as_chunks().0.iter().map(|bytes| decode(*bytes)).collect()
    }

    fn labels(&self, name: &str) -> Vec<u32> {
        self.values(name, u32::from_le_bytes)
    }

    fn features(&self, set: &str) -> Features {
        let rows = self.values(&format!("{set}.features"), f32::from_le_bytes);
        let labels = self.labels(&format!("{set}.labels"));
        Features { dim: rows.len() / labels.len(), rows, labels }
    }

    /// Features without labels.
    fn unlabelled(&self, set: &str) -> Features {
        let name = format!("{set}.features");
        let tensor = self.0.tensor(&name).unwrap();
        let (count, dim) = (tensor.shape()[0], tensor.shape()[1]);
        let rows = self.values(&name, f32::from_le_bytes);
        Features { rows, dim, labels: vec![0; count] }
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        self.values(name, f64::from_le_bytes)
    }
}

fn assert_near(what: &str, got: f64, wanted: f64) {
    assert!((got - wanted).abs() <= 1e-4 * wanted.abs(), "{what}: {got} for {wanted}");
}

/// Classes of normal rows around their own centres, which are `distance` times a normal vector.
fn clusters(classes: u32, rows: usize, dim: usize, distance: f32, seed: u64) -> Features {
    let mut features = Features { rows: Vec::new(), dim, labels: Vec::new() };
    for i in 0..rows {
        let label = i as u32 % classes;
        let mut center = Random::new(1, "cluster centre", u64::from(label));
        let mut noise = Random::new(seed, "cluster noise", i as u64);
        features.labels.push(label);
        features.rows.extend((0..dim).map(|_| distance * center.normal() + noise.normal()));
    }
    features
}

fn knn(train: &Features, test: &Features, options: KnnOptions) -> eval::Result<eval::Prediction> {
    eval::knn(train, test, options, &|| false)
}

fn linear(
    train: &Features,
    test: &Features,
    options: &LinearOptions,
) -> eval::Result<eval::LinearResult> {
    eval::linear(train, test, options, &|| false)
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn knn_gives_the_classes_that_scikit_learn_gives() {
    let golden = Golden::read();
    let got = knn(&golden.features("train"), &golden.features("test"), KnnOptions::default());
    assert_eq!(got.unwrap().labels, golden.labels("knn.predictions"));
}

#[test]
fn the_linear_probe_reaches_the_minimum_that_scikit_learn_reaches() {
    let golden = Golden::read();
    let (train, test) = (golden.features("train"), golden.features("test"));
    let losses = golden.values("linear.loss", f64::from_le_bytes);
    let labels = golden.labels("linear.predictions");
    for (i, l2) in golden.values("linear.l2", f64::from_le_bytes).into_iter().enumerate() {
        let got = linear(&train, &test, &LinearOptions { l2: vec![l2], ..Default::default() });
        let got = got.unwrap();
        // Both stop short of the minimum, where the loss is flat; f32 logits move it by 1e-7.
        assert!((got.loss - losses[i]).abs() <= 1e-4 * losses[i], "l2 {l2}: {}", got.loss);
        let wanted = &labels[i * test.len()..(i + 1) * test.len()];
        assert_eq!(got.prediction.labels, wanted, "l2 {l2}");
    }
}

#[test]
fn rank_me_is_the_one_of_stable_pretraining() {
    let golden = Golden::probes();
    let wanted = golden.numbers("rank_me");
    for (name, wanted) in ["tall", "wide", "decaying", "collapsed"].into_iter().zip(wanted) {
        assert_near(name, eval::rank_me(&golden.unlabelled(name)).unwrap(), wanted);
    }
}

#[test]
fn lidar_is_the_one_of_stable_pretraining() {
    let golden = Golden::probes();
    let cases = [("views", 100, 4), ("views", 12, 4), ("few", 100, 10)];
    for ((name, images, views), wanted) in cases.into_iter().zip(golden.numbers("lidar")) {
        let options = LidarOptions { images, views, ..Default::default() };
        let lidar = eval::lidar(&golden.unlabelled(name), options).unwrap().unwrap();
        assert_near(name, lidar, wanted);
    }
}

#[test]
fn votes_by_distance_are_those_of_stable_pretrainings_online_knn() {
    let golden = Golden::probes();
    let (train, test) = (golden.features("train"), golden.features("test"));
    let wanted = golden.values("online_knn", f32::from_le_bytes);
    for (k, wanted) in [5, 20].into_iter().zip(wanted.chunks_exact(test.len() * 4)) {
        let options = KnnOptions { k, temperature: 0.07 };
        let scores =
            eval::knn_scores(&train, &test, (options, Vote::Euclidean), &|| false).unwrap();
        for (i, (got, wanted)) in scores.values.iter().zip(wanted).enumerate() {
            // Nobody's vote is none here, 0 there.
            let got = if got.is_finite() { *got } else { 0.0 };
            assert!((got - wanted).abs() <= 1e-4 * wanted.max(1.0), "k {k}, {i}: {got} {wanted}");
        }
    }
}

#[test]
fn the_linear_probes_logits_are_those_of_scikit_learn() {
    let golden = Golden::probes();
    let (train, test) = (golden.features("train"), golden.features("test"));
    let options = LinearOptions { l2: vec![1e-2], tolerance: 1e-9, iterations: 10_000 };
    let scores = linear(&train, &test, &options).unwrap().scores;
    let centred = |row: Vec<f64>| {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        row.into_iter().map(move |x| x - mean).collect::<Vec<_>>()
    };
    let wanted = golden.numbers("logits");
    let (mut off, mut all) = (0.0, 0.0);
    for (got, wanted) in scores.values.chunks_exact(4).zip(wanted.chunks_exact(4)) {
        // A constant on all logits of a row says nothing.
        let got = centred(got.iter().map(|&x| f64::from(x)).collect());
        for (got, wanted) in got.iter().zip(centred(wanted.to_vec())) {
            off += (got - wanted).powi(2);
            all += wanted.powi(2);
        }
    }
    assert!((off / all).sqrt() < 1e-4, "{}", (off / all).sqrt());
}

#[test]
fn rows_that_are_told_apart_without_error_are_fitted_to_the_minimum_too() {
    let golden = Golden::probes();
    let (train, test) = (golden.features("apart"), golden.features("apart_test"));
    let labels = golden.labels("apart.predictions");
    let penalties = [1e-3, 1e-5].into_iter().zip(golden.numbers("apart.loss"));
    for ((l2, wanted), labels) in penalties.zip(labels.chunks_exact(test.len())) {
        let got = linear(&train, &test, &LinearOptions { l2: vec![l2], ..Default::default() });
        let got = got.unwrap();
        assert!(got.gap <= 1e-4, "l2 {l2}: gap {}", got.gap);
        assert_near("loss", got.loss, wanted);
        // Rows between two classes may fall to either: 2 of 200.
        let same = got.prediction.labels.iter().zip(labels).filter(|(a, b)| a == b).count();
        assert!(same >= 198, "l2 {l2}: {same} of 200");
    }
}

/// The intercept has no penalty, and of a rare class little curvature.
#[test]
fn a_fit_is_never_further_from_scikit_learns_minimum_than_it_says() {
    let golden = Golden::read();
    let all = golden.features("train");
    // Of class 4 the first two rows alone.
    let mut seen = 0;
    let few = |&i: &usize| {
        seen += usize::from(all.labels[i] == 4);
        all.labels[i] != 4 || seen <= 2
    };
    let train = all.select(&(0..all.len()).filter(few).collect::<Vec<_>>());
    // scikit-learn 1.9.1: LogisticRegression(C=1/(l2*235), tol=1e-12) as in make_eval.py.
    for (l2, minimum) in [(1e-1, 0.6294276159368), (1e-2, 0.3062325389409), (1e-3, 0.1542927931206)]
    {
        for iterations in 0..40 {
            for tolerance in [1e-2, 1e-4] {
                let options = LinearOptions { l2: vec![l2], iterations, tolerance };
                let got = linear(&train, &train, &options).unwrap();
                let left = got.loss / minimum - 1.0;
                // Rounding of logits in f32 moves the loss by 1e-7.
                assert!(
                    left > -1e-6 && left <= got.gap + 1e-6,
                    "{options:?}: {left} for {}",
                    got.gap
                );
                assert!(got.gap <= tolerance || iterations < 39, "{options:?}: {}", got.gap);
            }
        }
    }
}

fn picture_rows(name: &str) -> (Golden<'static>, Features) {
    let golden = Golden(SafeTensors::deserialize(PICTURES).unwrap());
    let rows = golden.values(name, f32::from_le_bytes);
    let labels = vec![0; rows.len() / 12];
    (golden, Features { rows, dim: 12, labels })
}

#[test]
fn principal_components_are_those_of_scikit_learn() {
    let (golden, rows) = picture_rows("pca/rows");
    let found = eval::pca(&rows, 3).unwrap();
    let (components, variances) =
        (golden.numbers("pca/components"), golden.numbers("pca/variances"));
    for (found, wanted) in found.components.chunks_exact(12).zip(components.chunks_exact(12)) {
        let sign = found.iter().zip(wanted).map(|(a, b)| a * b).sum::<f64>().signum();
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((sign * found - wanted).abs() < 1e-5, "{found} {wanted}");
        }
    }
    for (found, wanted) in found.variances.iter().zip(&variances) {
        assert_near("variance", *found, *wanted);
    }
}

#[test]
fn a_map_is_as_good_as_scikit_learns_and_the_same_on_any_number_of_threads() {
    let (golden, mut points) = picture_rows("tsne/points");
    points.labels = golden.labels("tsne/group");
    let make = || eval::tsne(&points, TsneOptions::default(), &|| false).unwrap();
    let found = make();
    let wanted = golden.numbers("tsne/kl_divergence")[0];
    assert!(found.kl_divergence < 1.03 * wanted, "{} {wanted}", found.kl_divergence);
    // Near ones stay near: the next point is mostly of the same group.
    let place = |i: usize| (f64::from(found.x[i]), f64::from(found.y[i]));
    let apart = |i: usize, j: usize| (place(i).0 - place(j).0).hypot(place(i).1 - place(j).1);
    let next = |i: usize| {
        let others = (0..150).filter(|j| *j != i);
        others.min_by(|&a, &b| apart(i, a).total_cmp(&apart(i, b))).unwrap()
    };
    let same = (0..150).filter(|&i| points.labels[i] == points.labels[next(i)]).count();
    assert!(same >= 140, "{same} of 150");
    assert_eq!(on_threads(1, make), on_threads(3, make));
}

#[test]
fn ranks_of_nothing_and_of_too_little_are_told() {
    let zeros = Features { rows: vec![0.0; 40], dim: 4, labels: vec![0; 10] };
    assert_eq!(eval::rank_me(&zeros).unwrap(), 0.0);
    assert_eq!(eval::feature_std(&zeros).unwrap(), 0.0);
    let message = eval::lidar(&zeros, LidarOptions::default()).unwrap_err().to_string();
    assert!(message.starts_with("10 rows are 1 image(s) of 10 views"), "{message}");
    let one = LidarOptions { views: 1, ..Default::default() };
    assert!(matches!(eval::lidar(&zeros, one), Err(Error::Setting { setting: "views", .. })));
    let two = LidarOptions { views: 2, ..Default::default() };
    let constant = Features { rows: [0.1, -3.0, 7.5, 0.3].repeat(10), ..zeros.clone() };
    for equal in [&zeros, &constant] {
        assert_eq!(eval::lidar(equal, two).unwrap(), None, "its formula would give the best, 4");
    }
    let mut nearly = constant;
    nearly.rows[0] += 0.01;
    assert!(eval::lidar(&nearly, two).unwrap().is_some());
    let mut broken = zeros;
    broken.rows[7] = f32::NAN;
    assert!(matches!(eval::rank_me(&broken), Err(Error::NotFinite { row: 1, column: 3, .. })));
}

#[test]
fn knn_equals_a_search_through_all_pairs() {
    let (train, test) = (clusters(7, 403, 13, 0.4, 2), clusters(7, 101, 13, 0.4, 3));
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    for k in [1, 20, 403, 1000] {
        let got = knn(&train, &test, KnnOptions { k, temperature: 0.2 }).unwrap();
        for b in 0..test.len() {
            let mut near: Vec<(f64, u32)> = (0..train.len())
                .map(|i| (cosine(train.row(i), test.row(b)), train.labels[i]))
                .collect();
            near.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut votes = [0.0; 7];
            for (similarity, label) in near.into_iter().take(k) {
                votes[label as usize] += (similarity / 0.2).exp();
            }
            let wanted = (0..7).max_by(|&a, &b| f64::total_cmp(&votes[a], &votes[b])).unwrap();
            assert_eq!(got.labels[b], wanted as u32, "k {k}, row {b}");
        }
    }
}

fn scaled(features: &Features, scale: f32) -> Features {
    Features { rows: features.rows.iter().map(|x| scale * x).collect(), ..features.clone() }
}

/// Powers of two change no digit: 2^64 and 2^100 are 1.8e19 and 1.3e30.
#[test]
fn the_size_of_features_changes_no_vote() {
    let (train, test) = (clusters(5, 300, 16, 0.5, 2), clusters(5, 150, 16, 0.5, 3));
    let predict = |scale: f32, vote: Vote, temperature: f64| {
        let (train, test) = (scaled(&train, scale), scaled(&test, scale));
        let options = KnnOptions { k: 20, temperature };
        let scores = eval::knn_scores(&train, &test, (options, vote), &|| false).unwrap();
        scores.prediction(&test.labels).labels
    };
    for exponent in [-120, -100, -50, 30, 64, 100, 122] {
        let scale = 2.0_f32.powi(exponent);
        assert_eq!(predict(scale, Vote::Cosine, 0.07), predict(1.0, Vote::Cosine, 0.07));
        let euclidean = predict(scale, Vote::Euclidean, 0.07 * f64::from(scale));
        assert_eq!(euclidean, predict(1.0, Vote::Euclidean, 0.07), "2^{exponent}");
    }
}

/// A distance in f64, of rows divided by their lengths for cosines.
fn distance(vote: Vote, a: &[f32], b: &[f32]) -> f64 {
    let unit = |row: &[f32]| -> Vec<f64> {
        let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let length = if vote == Vote::Cosine { length } else { 1.0 };
        row.iter().map(|x| f64::from(*x) / length).collect()
    };
    unit(a).iter().zip(unit(b)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Two groups far apart, in each of which a ten-thousandth tells the classes apart: too little for
/// a product in f32, wherever its origin.
#[test]
fn neighbours_in_groups_far_apart_are_the_nearest() {
    let groups = |seed: u64| {
        let mut features = clusters(8, 400, 24, 1.0, seed);
        for (i, row) in features.rows.chunks_exact_mut(24).enumerate() {
            let sign = if (i / 8) % 2 == 0 { 1.0 } else { -1.0 };
            row.iter_mut().for_each(|x| *x = 0.2 * sign + 1e-5 * *x);
        }
        features
    };
    let (train, test) = (groups(2), groups(3));
    for vote in [Vote::Cosine, Vote::Euclidean] {
        let options = KnnOptions { k: 1, temperature: 0.07 };
        let scores = eval::knn_scores(&train, &test, (options, vote), &|| false).unwrap();
        let found = scores.prediction(&test.labels).labels;
        for (b, found) in found.iter().enumerate() {
            let apart = |i: &usize| distance(vote, train.row(*i), test.row(b));
            let nearest = (0..train.len()).min_by(|i, j| apart(i).total_cmp(&apart(j))).unwrap();
            assert_eq!(*found, train.labels[nearest], "{vote:?}, row {b}");
        }
    }
}

#[test]
fn short_rows_have_a_direction_too() {
    let (train, test) = (clusters(5, 200, 16, 0.5, 2), clusters(5, 100, 16, 0.5, 3));
    let wanted = knn(&train, &test, KnnOptions::default()).unwrap();
    let mut short = train.clone();
    for row in short.rows.chunks_exact_mut(16).step_by(3) {
        row.iter_mut().for_each(|x| *x *= 2.0_f32.powi(-60));
    }
    assert_eq!(knn(&short, &test, KnnOptions::default()).unwrap(), wanted);
}

/// Its place among training rows is far beyond what f32 holds.
#[test]
fn a_test_row_far_out_is_given_a_class_and_moves_no_other() {
    let (mut train, mut test) = (clusters(5, 200, 16, 0.5, 2), clusters(5, 100, 16, 0.5, 3));
    for features in [&mut train, &mut test] {
        features.rows.iter_mut().for_each(|x| *x *= 1e-3);
    }
    let options = (KnnOptions::default(), Vote::Euclidean);
    let at = |distance: f32| {
        let mut far = test.clone();
        far.rows[..16].iter_mut().for_each(|x| *x = distance * x.signum());
        far
    };
    // At 3e25 f32 still holds what it is standardised to, and b is lost beside it.
    let [near, far] = [at(3e25), at(3e38)];
    let probe = |test: &Features| linear(&train, test, &LinearOptions::default()).unwrap();
    let (wanted, found) = (probe(&near), probe(&far));
    assert!(found.scores.values.iter().all(|logit| logit.is_finite()));
    assert_eq!(found.prediction, wanted.prediction);
    let votes = |test: &Features| eval::knn_scores(&train, test, options, &|| false).unwrap();
    let (wanted, found) = (votes(&near), votes(&far));
    assert_eq!(found.prediction(&test.labels), wanted.prediction(&test.labels));
    assert_eq!(found.values[5..], votes(&test).values[5..]);
}

/// Two values of f32 next to 1 are 1.2e-7 apart.
#[test]
fn columns_that_differ_by_little_more_than_rounding_are_told_apart() {
    let near_one = |seed| {
        let mut features = clusters(2, 200, 4, 0.0, seed);
        for (row, label) in features.rows.chunks_exact_mut(4).zip(&features.labels) {
            let sign = if *label == 0 { -1.0 } else { 1.0 };
            row.iter_mut().for_each(|x| *x = 1.0 + 8e-7 * sign + 8e-8 * *x);
        }
        features
    };
    let found = linear(&near_one(2), &near_one(3), &LinearOptions::default()).unwrap();
    assert_eq!(found.prediction.accuracy, 1.0);
}

/// An encoder's features have much in common; what tells rows apart is a ten-thousandth of it.
#[test]
fn neighbours_are_told_apart_by_what_little_differs() {
    let offset = |features: Features| Features {
        rows: features.rows.iter().map(|x| 3000.0 + x).collect(),
        ..features
    };
    let (train, test) =
        (offset(clusters(4, 300, 24, 0.6, 2)), offset(clusters(4, 100, 24, 0.6, 3)));
    for vote in [Vote::Cosine, Vote::Euclidean] {
        let options = KnnOptions { k: 1, temperature: 0.07 };
        let scores = eval::knn_scores(&train, &test, (options, vote), &|| false).unwrap();
        let found = scores.prediction(&test.labels).labels;
        let nearest = |b: usize| {
            let apart = |i: &usize| distance(vote, train.row(*i), test.row(b));
            (0..train.len()).min_by(|i, j| apart(i).total_cmp(&apart(j)))
        };
        let wanted: Vec<u32> = (0..test.len()).map(|b| train.labels[nearest(b).unwrap()]).collect();
        assert_eq!(found, wanted, "{vote:?}");
    }
}

#[test]
fn a_row_of_zeros_is_near_nothing_and_everything_alike() {
    let rows = vec![0.0, 0.0, 1.0, 0.0, 0.0, 1.0];
    let train = Features { rows, dim: 2, labels: vec![7, 1, 2] };
    let test = Features { rows: vec![1.0, 0.1, 0.0, 0.0], dim: 2, labels: vec![1, 7] };
    let options = KnnOptions { k: 3, temperature: 0.5 };
    let scores = eval::knn_scores(&train, &test, (options, Vote::Cosine), &|| false).unwrap();
    let length = 1.01_f64.sqrt();
    // Votes against the nearest's: cosines are 1 / length, 0.1 / length, and 0 with the row of
    // zeros.
    let vote = |cosine: f64| ((cosine - 1.0 / length) / 0.5).exp();
    let wanted = [1.0, vote(0.1 / length), vote(0.0)];
    for (found, wanted) in scores.values[..3].iter().zip(wanted) {
        assert!((f64::from(*found) - wanted).abs() < 1e-6, "{:?} for {wanted:?}", scores.values);
    }
    assert_eq!(scores.values[3..], [1.0; 3]);
}

#[test]
fn a_low_temperature_leaves_the_vote_to_the_nearest() {
    let (train, test) = (clusters(3, 60, 5, 0.5, 1), clusters(3, 40, 5, 0.5, 2));
    let nearest = knn(&train, &test, KnnOptions { k: 1, temperature: 1.0 }).unwrap();
    // exp(1 / T) alone would be infinite.
    let got = knn(&train, &test, KnnOptions { k: 20, temperature: 1e-6 }).unwrap();
    assert_eq!(got.labels, nearest.labels);
}

#[test]
fn classes_far_apart_are_told_apart_without_an_error() {
    let (train, test) = (clusters(6, 300, 24, 4.0, 4), clusters(6, 120, 24, 4.0, 5));
    assert_eq!(knn(&train, &test, KnnOptions::default()).unwrap().accuracy, 1.0);
    let linear = linear(&train, &test, &LinearOptions::default()).unwrap();
    assert_eq!(linear.prediction.accuracy, 1.0);
}

/// As anybody would choose it: on every fifth row of a class, which is not fitted on.
#[test]
fn the_penalty_is_the_best_on_rows_held_out_of_the_training_rows() {
    let mut chosen = Vec::new();
    for seed in 0..6 {
        let (train, test) =
            (clusters(5, 120, 60, 0.25, 20 + seed), clusters(5, 200, 60, 0.25, 40 + seed));
        let held_out: Vec<usize> = (0..120).filter(|i| (i / 5) % 5 == 4).collect();
        let fit: Vec<usize> = (0..120).filter(|i| !held_out.contains(i)).collect();
        let (fit, held_out) = (train.select(&fit), train.select(&held_out));
        let grid = [1e0, 1e-2, 1e-4];
        let accuracy = |l2: f64| {
            let options = LinearOptions { l2: vec![l2], ..Default::default() };
            linear(&fit, &held_out, &options).unwrap().prediction.accuracy
        };
        let accuracies = grid.map(accuracy);
        let best = accuracies.iter().copied().fold(0.0, f64::max);
        let options = LinearOptions { l2: grid.into(), ..Default::default() };
        let found = linear(&train, &test, &options).unwrap();
        // Fits stop a little earlier while the penalty is chosen: a tie may fall either way.
        let behind = best - accuracy(found.l2);
        assert!(found.chosen && behind < 0.05, "{}: {behind} below the best", found.l2);
        // The last fit is on all rows.
        let alone = LinearOptions { l2: vec![found.l2], ..Default::default() };
        let alone = linear(&train, &test, &alone).unwrap();
        assert!((alone.loss - found.loss).abs() < 1e-3 * alone.loss && !alone.chosen);
        chosen.push(accuracies.iter().all(|accuracy| best - accuracy < 0.05));
    }
    assert!(chosen.iter().any(|alike| !alike), "some choice must matter");
}

/// Rows whose class is a small difference of two features that are nearly the same need large
/// weights. Where few rows have much noise, large weights fit the noise.
#[test]
fn a_penalty_beyond_the_grid_is_found_on_both_sides() {
    let small_difference = |rows: usize, seed: u64| {
        let mut random = Random::new(seed, "rows", 0);
        let labels: Vec<u32> = (0..rows as u32).map(|row| row % 2).collect();
        let row = |label: &u32| {
            let (common, noise) = (random.normal(), 1e-3 * random.normal());
            [common, common + noise + 4e-3 * *label as f32]
        };
        let rows = labels.iter().flat_map(row).collect();
        Features { rows, dim: 2, labels }
    };
    let cases = [
        (small_difference(400, 1), small_difference(400, 2), [1e-3, 1e-4]),
        (clusters(2, 500, 300, 0.1, 1), clusters(2, 1000, 300, 0.1, 2), [1e-3, 1e-4]),
    ];
    for (train, test, grid) in cases {
        let best = |l2: &[f64]| {
            let options = LinearOptions { l2: l2.into(), ..Default::default() };
            linear(&train, &test, &options).unwrap()
        };
        let found = best(&grid);
        let is_beyond =
            grid.iter().all(|l2| found.l2 < *l2) || grid.iter().all(|l2| found.l2 > *l2);
        assert!(found.chosen && is_beyond, "{}", found.l2);
        let within = grid.map(|l2| best(&[l2]).prediction.accuracy);
        assert!(within.iter().all(|within| found.prediction.accuracy > *within), "{within:?}");
        let [weakest, strongest] = eval::L2_BOUNDS;
        assert!((weakest..=strongest).contains(&found.l2));
    }
}

#[test]
fn of_classes_with_few_rows_no_penalty_is_chosen() {
    let (train, test) = (clusters(30, 120, 16, 0.8, 3), clusters(30, 60, 16, 0.8, 4));
    let found = linear(&train, &test, &LinearOptions::default()).unwrap();
    assert_eq!((found.chosen, found.l2), (false, 1.0 / 120.0));
}

#[test]
fn few_shots_are_draws_of_rows_and_fitted_as_scikit_learn_would() {
    let golden = Golden::read();
    let (all, test) = (golden.features("train"), golden.features("test"));
    let mut seen = [0; 5];
    let first = |&i: &usize| {
        seen[all.labels[i] as usize] += 1;
        seen[all.labels[i] as usize] <= 20
    };
    // The first twenty of each class.
    let train = all.select(&(0..all.len()).filter(first).collect::<Vec<_>>());
    let options = eval::FewShotOptions { shots: vec![2, 20], draws: 4, seed: 1 };
    let found = eval::few_shot(&train, &test, &options, &|| false).unwrap();
    // Twenty of each class are all rows, whatever the draw. scikit-learn 1.9.1:
    // LogisticRegression(C=1, tol=1e-12) on StandardScaler's rows has 125 of the 150 right.
    assert_eq!(found[1].accuracies, [125.0 / 150.0; 4]);
    let few = &found[0];
    assert!(few.accuracies.iter().any(|other| *other != few.accuracies[0]), "{few:?}");
    let mean = few.accuracies.iter().sum::<f64>() / 4.0;
    let squares: f64 = few.accuracies.iter().map(|x| (x - mean).powi(2)).sum();
    assert!((few.mean - mean).abs() < 1e-12);
    assert!((few.std.unwrap() - (squares / 3.0).sqrt()).abs() < 1e-12, "of a sample");
    assert!(few.mean < found[1].mean, "two images tell less than twenty");
}

#[test]
fn noise_and_a_constant_column_give_a_guess() {
    let mut train = clusters(2, 200, 150, 0.0, 6);
    let test = clusters(2, 2000, 150, 0.0, 7);
    train.rows.iter_mut().step_by(150).for_each(|x| *x = 3.0);
    let got = linear(&train, &test, &LinearOptions::default()).unwrap();
    // The share of heads in 2,000 throws of a coin has a deviation of 0.011.
    assert!((got.prediction.accuracy - 0.5).abs() < 0.05, "{}", got.prediction.accuracy);
}

#[test]
fn a_class_that_is_missing_from_the_training_rows_is_never_predicted() {
    let whole = clusters(4, 200, 12, 4.0, 8);
    let kept: Vec<usize> = (0..whole.len()).filter(|i| whole.labels[*i] != 1).collect();
    let train = whole.select(&kept);
    for got in [
        knn(&train, &whole, KnnOptions::default()).unwrap(),
        linear(&train, &whole, &LinearOptions::default()).unwrap().prediction,
    ] {
        assert!(got.labels.iter().all(|label| *label != 1));
        assert_eq!(got.accuracy, 0.75);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (train, test) = (clusters(5, 700, 70, 0.3, 9), clusters(5, 150, 70, 0.3, 10));
    let run = || {
        let knn = knn(&train, &test, KnnOptions::default()).unwrap();
        let linear = linear(&train, &test, &LinearOptions::default()).unwrap();
        let rank_me = eval::rank_me(&train).unwrap().to_bits();
        let lidar = eval::lidar(&train, LidarOptions::default()).unwrap().unwrap().to_bits();
        (knn, linear.loss.to_bits(), linear, rank_me, lidar)
    };
    let alone = on_threads(1, run);
    assert_eq!(alone, on_threads(2, run));
    assert_eq!(alone, on_threads(5, run));
}

#[test]
fn a_probe_that_is_asked_to_stop_does_so_wherever_it_is() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let (train, test) = (clusters(5, 700, 70, 0.3, 9), clusters(5, 150, 70, 0.3, 10));
    let asked = AtomicUsize::new(0);
    let never = || asked.fetch_add(1, Ordering::Relaxed) == usize::MAX;
    eval::knn(&train, &test, KnnOptions::default(), &never).unwrap();
    assert!(asked.swap(0, Ordering::Relaxed) > 1);
    eval::linear(&train, &test, &LinearOptions::default(), &never).unwrap();
    let times = asked.into_inner();
    assert!(times > 100, "{times}");
    for after in [0, 1, 5, times / 2, times - 2] {
        let asked = AtomicUsize::new(0);
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= after;
        let ended = eval::linear(&train, &test, &LinearOptions::default(), &stop);
        assert!(matches!(ended, Err(Error::Stopped)), "after {after}");
        // Nothing of note is done any more.
        let more = asked.into_inner() - after;
        assert!(more < 100, "{more} after {after}");
    }
    let ended = eval::knn(&train, &test, KnnOptions::default(), &|| true);
    assert!(matches!(ended, Err(Error::Stopped)));
}

#[test]
fn what_cannot_be_probed_is_refused_with_a_reason() {
    let good = clusters(3, 30, 4, 1.0, 11);
    let mut broken = good.clone();
    broken.rows[5] = f32::INFINITY;
    let one = Features { labels: vec![2; 30], ..good.clone() };
    let options = LinearOptions::default();
    let message = knn(&broken, &good, KnnOptions::default()).unwrap_err().to_string();
    assert!(message.contains("training features: row 1, column 1 is inf"), "{message}");
    assert!(linear(&good, &broken, &options).unwrap_err().to_string().contains("test features"));
    assert!(matches!(linear(&one, &good, &options), Err(Error::OneClass { label: 2, .. })));
    let none = KnnOptions { k: 0, ..KnnOptions::default() };
    assert!(matches!(knn(&good, &good, none), Err(Error::Setting { setting: "k", .. })));
    let free = LinearOptions { l2: vec![1e-3, 0.0], ..options };
    assert!(matches!(linear(&good, &good, &free), Err(Error::Setting { setting: "l2", .. })));
}
