//! The masks of a clip as a recipe states them: one, or a list of several.

use super::{Error, Grid, Masking, Masks, Result};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use std::fmt::{self, Formatter};

/// What each mask of a sample is called in random draws.
const PURPOSES: [&str; 8] =
    ["masks", "masks 2", "masks 3", "masks 4", "masks 5", "masks 6", "masks 7", "masks 8"];

/// How the masks of a sample are drawn. With several, the loss is the mean over them, and a teacher
/// encodes the sample once.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskList(Vec<Masking>);

impl From<Masking> for MaskList {
    fn from(masking: Masking) -> Self {
        Self(vec![masking])
    }
}

impl MaskList {
    /// The number of masks of a sample.
    pub fn per_sample(&self) -> usize {
        self.0.len()
    }

    /// Each way in which a mask of a sample is drawn.
    pub fn maskings(&self) -> &[Masking] {
        &self.0
    }

    /// Checks that there are 1 to 8 masks, and each by [`Masking::validate`].
    pub fn validate(&self, grid: Grid) -> Result<()> {
        if !(1..=PURPOSES.len()).contains(&self.0.len()) {
            let found = format!("a list of {}", self.0.len());
            return Err(Error::Setting { name: "masks", found, expected: "1 to 8 masks" });
        }
        self.0.iter().try_for_each(|masking| masking.validate(grid))
    }

    /// Masks of a batch at one step.
    pub fn sample(&self, grid: Grid, batch: usize, seed: u64, step: u64) -> Result<Masks> {
        let drawn = self.0.iter().zip(PURPOSES);
        let drawn =
            drawn.map(|(masking, purpose)| masking.draw_as(purpose, grid, batch, (seed, step)));
        Ok(Masks::several(drawn.collect::<Result<_>>()?))
    }
}

impl Serialize for MaskList {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for MaskList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(MaskListVisitor)
    }
}

struct MaskListVisitor;

impl<'de> Visitor<'de> for MaskListVisitor {
    type Value = MaskList;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("masks such as { kind = \"random\", ratio = 0.75 }, or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<MaskList, A::Error> {
        Masking::deserialize(MapAccessDeserializer::new(map)).map(MaskList::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> std::result::Result<MaskList, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(MaskList)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{MultiBlockMasking, RandomMasking, VjepaMasking};

    fn list() -> MaskList {
        let long = VjepaMasking {
            blocks: 2,
            scale: crate::range::Range::new(0.5, 0.5),
            ..VjepaMasking::default()
        };
        MaskList(vec![Masking::Vjepa(VjepaMasking::default()), Masking::Vjepa(long)])
    }

    #[test]
    fn one_mask_is_written_as_a_table_and_several_as_a_list() {
        let one = MaskList::from(Masking::Random(RandomMasking::default()));
        for masks in [one, list()] {
            let written = serde_json::to_value(&masks).unwrap();
            assert_eq!(written.is_array(), masks.per_sample() > 1);
            assert_eq!(serde_json::from_value::<MaskList>(written).unwrap(), masks);
        }
        let wrong = serde_json::from_str::<MaskList>("[{\"kind\": \"vjepa\", \"block\": 2}]");
        assert!(wrong.unwrap_err().to_string().contains("unknown field `block`"));
        let text = serde_json::from_str::<MaskList>("\"vjepa\"").unwrap_err().to_string();
        assert!(text.contains("or a list of them"), "{text}");
    }

    #[test]
    fn the_masks_of_a_sample_are_drawn_apart_and_the_first_as_if_alone() {
        let grid = Grid { t: 4, h: 6, w: 6 };
        let same = Masking::MultiBlock(MultiBlockMasking::default());
        let masks = MaskList(vec![same.clone(), same.clone()]).sample(grid, 3, 1, 5).unwrap();
        assert_eq!((masks.len(), masks.per_sample()), (3, 2));
        let alone = same.sample(grid, 3, 1, 5).unwrap();
        assert_eq!(masks.context[..3], alone.context);
        assert!((0..3).all(|b| masks.context[b] != masks.context[b + 3]));
    }

    #[test]
    fn no_masks_and_more_than_eight_are_refused() {
        let grid = Grid { t: 4, h: 6, w: 6 };
        list().validate(grid).unwrap();
        for count in [0, 9] {
            let many = MaskList(vec![Masking::Vjepa(VjepaMasking::default()); count]);
            let problem = many.validate(grid).unwrap_err().to_string();
            assert_eq!(
                problem,
                format!("masks: masks is a list of {count}, expected 1 to 8 masks")
            );
        }
    }
}
