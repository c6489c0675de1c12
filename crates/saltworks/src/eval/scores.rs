//! The scores of a probe, and how accurate they are: overall, top-5 and per class.

use super::Prediction;
use super::knn::first_largest;
use serde::Serialize;

/// One number per row and class. The class with the largest number is given to the row.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// `[B, K]`. Minus infinity if a class has no vote.
    pub values: Vec<f32>,
    /// The class of each column, ascending `[K]`.
    pub classes: Vec<u32>,
}

/// How accurate the scores of a set are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// B
    pub images: usize,
    /// Share of rows whose class is right, 0 to 1.
    pub accuracy: f64,
    /// 95 % confidence interval of the accuracy ([`wilson`]). It covers the choice of test images,
    /// but not the choice of training images, penalty or seed.
    pub interval: [f64; 2],
    /// Share of rows whose class is among the five with the largest scores. None for five classes
    /// or fewer.
    pub top5: Option<f64>,
    /// One entry for each known or occurring class.
    pub classes: Vec<ClassReport>,
    /// Rows of each true class, in the order of `classes`, that were given each class. None for
    /// more than [`MOST_CONFUSED`] classes.
    pub confusion: Option<Vec<Vec<u32>>>,
}

/// How accurate the scores are on one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassReport {
    /// The class's number.
    pub class: u32,
    /// Number of its rows.
    pub count: usize,
    /// Share of the rows given this class that belong to it. None if no row was given it.
    pub precision: Option<f64>,
    /// Share of its rows that were given this class. None if it has no rows.
    pub recall: Option<f64>,
}

/// Largest number of classes with a confusion matrix, which then has a million numbers.
pub const MOST_CONFUSED: usize = 1000;

impl Scores {
    /// The class with the largest score of each row. Of equal scores the first class is chosen.
    pub fn prediction(&self, truth: &[u32]) -> Prediction {
        let given = self.rows().map(|row| self.classes[first_largest(row)]);
        Prediction::new(given.collect(), truth)
    }

    /// Compares the scores with the `truth` `[B]`.
    pub fn report(&self, truth: &[u32]) -> Report {
        let Prediction { labels, accuracy } = self.prediction(truth);
        let mut all = [&self.classes, truth].concat();
        all.sort_unstable();
        all.dedup();
        let right = labels.iter().zip(truth).filter(|(given, truth)| given == truth).count();
        let top5 = || {
            let among =
                self.rows().zip(truth).filter(|(row, truth)| self.is_among(row, **truth, 5));
            among.count() as f64 / truth.len() as f64
        };
        Report {
            images: truth.len(),
            accuracy,
            interval: wilson(right, truth.len()),
            top5: (self.classes.len() > 5).then(top5),
            classes: class_reports(&all, &labels, truth),
            confusion: (all.len() <= MOST_CONFUSED).then(|| confusion(&all, &labels, truth)),
        }
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.classes.len())
    }

    /// Whether a class is among the `most` with the largest scores of a row. Of equal scores the
    /// first ones count.
    fn is_among(&self, row: &[f32], class: u32, most: usize) -> bool {
        let Ok(column) = self.classes.binary_search(&class) else { return false };
        let score = row[column];
        let before = |(i, other): (usize, &f32)| *other > score || (*other == score && i < column);
        score > f32::NEG_INFINITY && row.iter().enumerate().filter(|x| before(*x)).count() < most
    }
}

/// The 95 % confidence interval of a share of `right` in `count`. Wilson 1927. Unlike p ± 1.96 s it
/// stays within 0 and 1, and is valid for shares near 0 or 1.
pub fn wilson(right: usize, count: usize) -> [f64; 2] {
    // The normal distribution's 97.5 % quantile.
    const Z: f64 = 1.959_963_984_540_054;
    let n = count as f64;
    let share = right as f64 / n;
    let middle = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    [-1.0, 1.0].map(|sign| ((middle + sign * spread) / (1.0 + Z * Z / n)).clamp(0.0, 1.0))
}

fn class_reports(all: &[u32], given: &[u32], truth: &[u32]) -> Vec<ClassReport> {
    let mut counts = vec![[0; 3]; all.len()];
    for (given, truth) in given.iter().zip(truth) {
        let [given, truth] = [given, truth].map(|class| column(all, *class));
        counts[truth][0] += 1;
        counts[given][1] += 1;
        counts[truth][2] += usize::from(given == truth);
    }
    let share = |part: usize, of: usize| (of > 0).then(|| part as f64 / of as f64);
    let report = |(&class, &[count, given, right]): (&u32, &[usize; 3])| ClassReport {
        class,
        count,
        precision: share(right, given),
        recall: share(right, count),
    };
    all.iter().zip(&counts).map(report).collect()
}

fn confusion(all: &[u32], given: &[u32], truth: &[u32]) -> Vec<Vec<u32>> {
    let mut rows = vec![vec![0; all.len()]; all.len()];
    for (given, truth) in given.iter().zip(truth) {
        rows[column(all, *truth)][column(all, *given)] += 1;
    }
    rows
}

fn column(all: &[u32], class: u32) -> usize {
    // `all` holds every class that is given or true.
    all.binary_search(&class).expect("a class of all")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_small_set_are_right() {
        let none = f32::NEG_INFINITY;
        let scores = Scores {
            classes: vec![0, 1, 2, 4, 5, 6],
            values: [
                [9.0, 1.0, 2.0, 3.0, 4.0, 5.0],    // given 0
                [9.0, 8.0, 7.0, 6.0, 5.0, 4.0],    // given 0, and 6 is the sixth
                [2.0, 2.0, 1.0, none, none, none], // given 0, the first of equal ones
                [0.0, 3.0, 1.0, none, none, none], // given 1, and 4 has no vote
            ]
            .concat(),
        };
        let report = scores.report(&[0, 6, 1, 4]);
        assert_eq!((report.images, report.accuracy, report.top5), (4, 0.25, Some(0.5)));
        let class = |class: u32| report.classes.iter().find(|c| c.class == class).unwrap();
        assert_eq!((class(0).count, class(0).precision), (1, Some(1.0 / 3.0)));
        assert_eq!((class(0).recall, class(1).precision), (Some(1.0), Some(0.0)));
        assert_eq!((class(2).precision, class(2).recall), (None, None));
        let confusion = report.confusion.unwrap();
        assert_eq!(confusion[0], [1, 0, 0, 0, 0, 0]);
        assert_eq!(confusion[3], [0, 1, 0, 0, 0, 0]);
        assert_eq!(confusion.concat().iter().sum::<u32>(), 4);
        // A class of the truth that no training row had, and too few classes for top-5.
        let few = Scores { classes: vec![3], values: vec![0.5] }.report(&[7]);
        assert_eq!((few.accuracy, few.top5, few.classes.len()), (0.0, None, 2));
    }

    #[test]
    fn wilsons_interval_is_the_published_one() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        let known = [
            (81, 263, [0.2553, 0.3662]),
            (15, 148, [0.0624, 0.1605]),
            (0, 20, [0.0, 0.1611]),
            (1, 29, [0.0061, 0.1718]),
        ];
        for (right, count, wanted) in known {
            let got = wilson(right, count).map(|x| (x * 1e4).round() / 1e4);
            assert_eq!(got, wanted, "{right} of {count}");
        }
    }
}
