//! Converts labels as written to class numbers.

use std::collections::BTreeMap;

/// The most classes that are allowed: each has a name in memory.
const MOST_CLASSES: i32 = 1_000_000;

/// Collects the labels of images in order, each text once.
#[derive(Default)]
pub(in crate::data) struct Labels {
    texts: BTreeMap<String, i32>,
    /// Number of the text of each image, -1 without one.
    numbers: Vec<i32>,
}

impl Labels {
    /// Adds the next image's label, if it has one.
    pub(in crate::data) fn push(&mut self, label: Option<&str>) {
        let label = label.map(str::trim).filter(|label| !label.is_empty());
        let next = self.texts.len() as i32;
        self.numbers.push(match label {
            None => -1,
            Some(text) => match self.texts.get(text) {
                Some(&number) => number,
                None => *self.texts.entry(text.to_owned()).or_insert(next),
            },
        });
    }

    /// The class of each image, and the names of the classes. If all labels are whole numbers, they
    /// are the classes (-1 for none). Otherwise the sorted texts are the classes.
    pub(in crate::data) fn finish(self) -> (Vec<i32>, Vec<String>) {
        let number = |text: &String| {
            let number: i32 = text.parse().ok()?;
            (-1..MOST_CLASSES).contains(&number).then_some(number)
        };
        let numbers: Option<Vec<i32>> = self.texts.keys().map(number).collect();
        let (classes, names) = match numbers {
            Some(numbers) => {
                let most = numbers.iter().max().map_or(0, |&most| most + 1);
                (numbers, (0..most).map(|class| class.to_string()).collect())
            }
            None => ((0..self.texts.len() as i32).collect(), self.texts.keys().cloned().collect()),
        };
        let mut class_of = vec![-1; self.texts.len()];
        for (&text, &class) in self.texts.values().zip(&classes) {
            class_of[text as usize] = class;
        }
        let class = |&text: &i32| usize::try_from(text).map_or(-1, |text| class_of[text]);
        (self.numbers.iter().map(class).collect(), names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(labels: &[&str]) -> (Vec<i32>, Vec<String>) {
        let mut all = Labels::default();
        labels.iter().for_each(|label| all.push(Some(label)));
        all.push(None);
        all.finish()
    }

    #[test]
    fn numbers_are_classes_and_names_are_sorted() {
        let (classes, names) = finish(&["2", " 0", "-1", "", "2"]);
        assert_eq!((classes, names.join(" ")), (vec![2, 0, -1, -1, 2, -1], "0 1 2".into()));
        let (classes, names) = finish(&["dog", "cat", "10", "dog"]);
        assert_eq!((classes, names.join(" ")), (vec![2, 1, 0, 2, -1], "10 cat dog".into()));
    }

    #[test]
    fn a_number_too_large_for_a_class_is_a_name() {
        let (classes, names) = finish(&["2000000000", "1"]);
        assert_eq!((classes, names.len()), (vec![1, 0, -1], 2));
        assert_eq!(finish(&[]), (vec![-1], Vec::new()));
    }
}
