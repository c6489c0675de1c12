use super::*;
use std::collections::BTreeSet;

fn maskings(per_sample: bool) -> [Masking; 5] {
    let multi_block = MultiBlockMasking { per_sample, ..MultiBlockMasking::default() };
    let independent = MultiBlockMasking {
        draw: Draw::Independent,
        side_limit: SideLimit::Grid,
        ..multi_block.clone()
    };
    [
        Masking::MultiBlock(multi_block),
        Masking::MultiBlock(independent),
        Masking::Random(RandomMasking { per_sample, ..RandomMasking::default() }),
        Masking::Block(BlockMasking { per_sample, ..BlockMasking::default() }),
        Masking::IJepa(IJepaMasking { per_sample, ..IJepaMasking::default() }),
    ]
}

const GRIDS: [Grid; 5] = [
    Grid::image(14, 14),
    Grid::image(7, 7),
    Grid::image(5, 16),
    Grid { t: 8, h: 14, w: 14 },
    Grid { t: 2, h: 4, w: 4 },
];

#[test]
fn masks_are_disjoint_ascending_in_range_and_never_empty() {
    for masking in maskings(true) {
        for grid in GRIDS {
            masking.validate(grid).unwrap();
            for step in 0..50 {
                let Masks { context, target, .. } = masking.sample(grid, 8, 3, step).unwrap();
                Masks::new(grid, context, target).unwrap_or_else(|e| panic!("{masking:?}: {e}"));
            }
        }
    }
}

#[test]
fn the_same_seed_and_step_give_the_same_masks_and_others_do_not() {
    let grid = Grid::image(14, 14);
    for masking in maskings(true) {
        let masks = |seed, step| masking.sample(grid, 4, seed, step).unwrap();
        assert_eq!(masks(1, 5), masks(1, 5));
        assert_ne!(masks(1, 5), masks(2, 5));
        assert_ne!(masks(1, 5), masks(1, 6));
    }
}

/// Each step has 2^20 random streams, so 2^12 steps have 2^32.
#[test]
fn masks_do_not_come_again_after_2_to_the_32_streams() {
    let grid = Grid::image(14, 14);
    for masking in maskings(true) {
        let masks = |step| masking.sample(grid, 2, 1, step).unwrap();
        assert!([1 << 12, 1 << 20, 1 << 32].iter().all(|&step| masks(step) != masks(0)));
    }
}

#[test]
fn samples_differ_unless_the_batch_shares_a_mask() {
    let grid = Grid::image(14, 14);
    for masking in maskings(true) {
        let masks = masking.sample(grid, 4, 1, 0).unwrap();
        assert!((1..4).all(|b| masks.context[b] != masks.context[0]), "{masking:?}");
    }
    for masking in maskings(false) {
        let masks = masking.sample(grid, 4, 1, 0).unwrap();
        assert!((1..4).all(|b| masks.context[b] == masks.context[0]), "{masking:?}");
        assert!((1..4).all(|b| masks.target[b] == masks.target[0]), "{masking:?}");
        assert_ne!(masks, masking.sample(grid, 4, 1, 1).unwrap());
    }
}

#[test]
fn the_parts_of_a_batch_have_its_masks_and_all_its_targets() {
    let grid = Grid::image(7, 7);
    for masking in maskings(true).into_iter().chain(maskings(false)) {
        let whole = masking.sample(grid, 6, 9, 4).unwrap();
        let parts = [whole.part(0..2), whole.part(2..6)];
        assert_eq!(parts[1].context, whole.context[2..]);
        assert_eq!(parts[1].target, whole.target[2..]);
        let counts = parts.map(|part| part.target_count());
        assert_eq!(counts[0] + counts[1], whole.target_count());
    }
}

#[test]
fn tubes_mask_a_patch_in_all_frames() {
    let grid = Grid { t: 3, h: 6, w: 6 };
    for masking in maskings(true) {
        let masks = masking.sample(grid, 1, 0, 0).unwrap();
        let plane = |t: u32| masks.target[0].iter().filter(move |&n| n / 36 == t).map(|n| n % 36);
        assert!(plane(0).eq(plane(1)) && plane(0).eq(plane(2)), "{masking:?}");
    }
    let tokens =
        Masking::Random(RandomMasking { spread: MaskSpread::Tokens, ..RandomMasking::default() });
    let masks = tokens.sample(grid, 1, 0, 0).unwrap();
    assert_eq!(masks.target[0].len(), 81);
    let at = |t: u32| masks.target[0].iter().filter(|&n| n / 36 == t).map(|n| n % 36).collect();
    let (first, second): (Vec<u32>, Vec<u32>) = (at(0), at(1));
    assert_ne!(first, second);
}

#[test]
fn ratio_masks_have_the_references_counts() {
    for (grid, masked) in [(Grid::image(14, 14), 147), (Grid::image(7, 7), 36)] {
        for masking in &maskings(true)[2..4] {
            let masks = masking.sample(grid, 16, 0, 0).unwrap();
            assert!(masks.target.iter().all(|target| target.len() == masked));
            assert!(masks.context.iter().all(|list| list.len() == grid.len() - masked));
        }
    }
}

#[test]
fn block_masks_are_more_connected_than_random_ones() {
    let grid = Grid::image(14, 14);
    let pairs = |masking: &Masking| -> usize {
        let masks = masking.sample(grid, 200, 0, 0).unwrap();
        let pairs = |target: &Vec<u32>| target.windows(2).filter(|w| w[0] + 1 == w[1]).count();
        masks.target.iter().map(pairs).sum()
    };
    let low = |masking| match masking {
        Masking::Block(block) => Masking::Block(BlockMasking { ratio: 0.4, ..block }),
        Masking::Random(random) => Masking::Random(RandomMasking { ratio: 0.4, ..random }),
        other => other,
    };
    let [_, _, random, block, _] = maskings(true).map(low);
    // At ratio 0.4, random masks mask a neighbour of a masked token with probability 0.4.
    assert!(pairs(&block) as f64 > 1.6 * pairs(&random) as f64);
}

/// Mean, standard deviation, and the 5, 25, 50, 75 and 95 % quantiles of a count.
struct Counts(f64, f64, [f64; 5]);

fn assert_counts_like(name: &str, mut counts: Vec<usize>, reference: &Counts) {
    let draws = counts.len() as f64;
    let mean = counts.iter().sum::<usize>() as f64 / draws;
    // Five standard errors of the difference of two such means.
    let tolerance = 5.0 * reference.1 * (2.0 / draws).sqrt();
    assert!((mean - reference.0).abs() < tolerance, "{name}: mean {mean}, {}", reference.0);
    counts.sort_unstable();
    for (share, want) in [0.05, 0.25, 0.5, 0.75, 0.95].into_iter().zip(reference.2) {
        let got = counts[(share * (draws - 1.0)) as usize] as f64;
        // Counts are integers, so a quantile at the edge of a step may fall on either side of it.
        assert!((got - want).abs() <= 1.0, "{name}: quantile {share} is {got}, reference {want}");
    }
}

fn assert_masks_like(masking: &Masking, grid: Grid, context: &Counts, target: &Counts) {
    let masks = masking.sample(grid, 20_000, 0, 0).unwrap();
    let lengths = |lists: &[Vec<u32>]| lists.iter().map(Vec::len).collect::<Vec<_>>();
    assert_counts_like(&format!("{grid} context"), lengths(&masks.context), context);
    assert_counts_like(&format!("{grid} target"), lengths(&masks.target), target);
}

/// 20,000 draws of `multi_block_mask(H, W)` of stable-pretraining 0.1.8 (data/masking.py). The
/// counts are of the context minus the union of targets, and of the union. torch's `rand` and
/// `randint` drew from numpy's default generator with seed 0. Quantiles: `numpy.quantile(counts,
/// [.05, .25, .5, .75, .95])`.
#[test]
fn multi_block_counts_are_distributed_as_the_references() {
    let masking = Masking::MultiBlock(MultiBlockMasking::default());
    let like = |h, w, context, target| {
        assert_masks_like(&masking, Grid::image(h, w), &context, &target);
    };
    like(
        14,
        14,
        Counts(81.0036, 13.7236, [59.0, 72.0, 81.0, 90.0, 104.0]),
        Counts(92.6548, 14.6864, [68.0, 83.0, 93.0, 103.0, 117.0]),
    );
    like(
        7,
        7,
        Counts(15.5872, 4.2794, [9.0, 12.0, 15.0, 18.0, 23.0]),
        Counts(24.3525, 4.7719, [17.0, 21.0, 24.0, 28.0, 32.0]),
    );
    like(
        8,
        12,
        Counts(26.9662, 7.8492, [15.0, 21.0, 27.0, 32.0, 40.0]),
        Counts(47.7024, 8.7750, [33.0, 42.0, 48.0, 54.0, 62.0]),
    );
}

/// The same for `IJEPAMasking` (backbone/patch_masking.py): its `_sample_block_params`,
/// `_create_block_mask` and the loop of `forward`.
#[test]
fn ijepa_counts_are_distributed_as_the_references() {
    let masking = Masking::IJepa(IJepaMasking::default());
    assert_masks_like(
        &masking,
        Grid::image(14, 14),
        &Counts(78.3359, 19.7919, [50.0, 61.0, 82.0, 91.0, 115.0]),
        &Counts(110.7711, 20.9376, [71.0, 97.0, 107.0, 131.0, 142.0]),
    );
    assert_masks_like(
        &masking,
        Grid::image(7, 7),
        &Counts(16.0178, 3.8706, [11.0, 13.0, 15.0, 19.0, 23.0]),
        &Counts(31.1077, 4.0896, [24.0, 27.0, 32.0, 33.0, 36.0]),
    );
}

#[test]
fn masks_that_leave_no_context_are_refused_before_training() {
    let whole = Range::new(1.0, 1.0);
    let targets = BlockOptions { count: 4, scale: whole, aspect_ratio: whole };
    let masking = Masking::MultiBlock(MultiBlockMasking {
        targets,
        side_limit: SideLimit::Grid,
        ..MultiBlockMasking::default()
    });
    let message = masking.validate(Grid::image(7, 7)).unwrap_err().to_string();
    assert_eq!(
        message,
        "masks leave no context in 256 of 256 draws: a grid of 7 x 7 tokens with a context block \
         of scale [0.85, 1] minus 4 target blocks of scale [1, 1]. Use fewer or smaller targets, a \
         lower ratio, or a smaller patch"
    );
    assert!(masking.sample(Grid::image(7, 7), 1, 0, 0).is_err());
    for masking in maskings(true) {
        let message = masking.validate(Grid::image(1, 1)).unwrap_err().to_string();
        assert!(message.starts_with("masks leave no "), "{message}");
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let grid = Grid::image(7, 7);
    let message = |masking: Masking| masking.validate(grid).unwrap_err().to_string();
    let scale = Range::new(0.4, 0.2);
    let targets = BlockOptions { scale, ..MultiBlockMasking::default().targets };
    assert_eq!(
        message(Masking::MultiBlock(MultiBlockMasking { targets, ..MultiBlockMasking::default() })),
        "masks: targets.scale is [0.4, 0.2], expected [min, max] with 0 < min <= max <= 1"
    );
    let random = RandomMasking { ratio: f64::NAN, ..RandomMasking::default() };
    assert!(message(Masking::Random(random)).contains("ratio is NaN"));
    let block = BlockMasking { size: 0, ..BlockMasking::default() };
    assert!(message(Masking::Block(block)).contains("size is 0"));
    assert!(message(vjepa(|masking| masking.blocks = 0)).contains("blocks is 0"));
    assert!(message(vjepa(|masking| masking.max_keep = Some(0))).contains("max_keep is 0"));
    let never = message(vjepa(|masking| masking.max_temporal_keep = 0.0));
    assert!(never.contains("max_temporal_keep is 0"), "{never}");
}

#[test]
fn equal_blocks_have_one_size_and_fill_a_rectangle() {
    let grid = Grid::image(14, 14);
    let [large, small] = [Range::new(0.85, 1.0), Range::new(0.15, 0.2)];
    let blocks = [(large, Range::new(1.0, 1.0)), (small, Range::new(0.75, 1.5))];
    let list = [blocks[0], blocks[1], blocks[1], blocks[1]];
    for seed in 0..50 {
        let planes = block_masks(grid, &list, seed).unwrap();
        let areas: Vec<_> =
            planes.iter().map(|plane| plane.iter().filter(|&&x| x).count()).collect();
        assert!(areas[0] > 130 && (20..50).contains(&areas[1]), "{areas:?}");
        assert!(areas[1..].iter().all(|&area| area == areas[1]), "{areas:?}");
        for (plane, area) in planes.iter().zip(areas) {
            let has = |place: &dyn Fn(usize) -> usize| {
                (0..14).filter(|&line| (0..196).any(|at| plane[at] && place(at) == line)).count()
            };
            assert_eq!(has(&|at| at / 14) * has(&|at| at % 14), area);
        }
    }
    let none = [(Range::new(0.0, 0.1), Range::new(1.0, 1.0))];
    assert!(block_masks(grid, &none, 0).is_err());
}

#[test]
fn blocks_of_a_high_aspect_ratio_are_tall_and_lie_anywhere_on_the_grid() {
    let grid = Grid::image(14, 14);
    // 0.16 · 196 = 31.4. √(31 · 1.5) = 6.8 rows, and √(31 / 1.5) = 4.5 columns.
    let block = (Range::new(0.16, 0.16), Range::new(1.5, 1.5));
    let (mut tops, mut lefts) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..300 {
        let plane = &block_masks(grid, &[block], seed).unwrap()[0];
        let lines = |place: &dyn Fn(usize) -> usize| -> BTreeSet<usize> {
            (0..196).filter(|&at| plane[at]).map(place).collect()
        };
        let (rows, columns) = (lines(&|at| at / 14), lines(&|at| at % 14));
        assert_eq!((rows.len(), columns.len()), (7, 5));
        tops.extend(rows.first().copied());
        lefts.extend(columns.first().copied());
    }
    assert!(tops.into_iter().eq(0..=14 - 7) && lefts.into_iter().eq(0..=14 - 5));
}

fn vjepa(change: impl FnOnce(&mut VjepaMasking)) -> Masking {
    let mut masking = VjepaMasking::default();
    change(&mut masking);
    Masking::Vjepa(masking)
}

/// The masking of a case of tests/golden/vjepa_masks.json, its grid, and the case.
fn vjepa_cases() -> Vec<(String, Masking, Grid, serde_json::Value)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/vjepa_masks.json");
    let all: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let case = |(name, case): (&String, &serde_json::Value)| {
        let range = |key: &str| {
            case[key].as_array().map(|r| Range::new(r[0].as_f64().unwrap(), r[1].as_f64().unwrap()))
        };
        let masking = vjepa(|masking| {
            masking.blocks = case["blocks"].as_u64().unwrap() as usize;
            masking.scale = range("scale").unwrap();
            masking.time = range("time").unwrap_or(masking.time);
            masking.max_temporal_keep = case["max_temporal_keep"].as_f64().unwrap_or(1.0);
        });
        let side = |axis: usize| case["grid"][axis].as_u64().unwrap() as usize;
        (name.clone(), masking, Grid { t: side(0), h: side(1), w: side(2) }, case.clone())
    };
    all.as_object().unwrap().iter().map(case).collect()
}

/// Counts and places of targets are distributed as those of V-JEPA 2's own generator
/// (tests/golden/make_vjepa_masks.py).
#[test]
fn vjepas_masks_are_distributed_as_the_references() {
    for (name, masking, grid, case) in vjepa_cases() {
        let masks = masking.sample(grid, 4000, 1, 0).unwrap();
        for (list, lists) in [("context", &masks.context), ("target", &masks.target)] {
            let number = |key: &str| case[list][key].as_f64().unwrap();
            let quantile = |i: usize| case[list]["quantiles"][i].as_f64().unwrap();
            // 4,000 draws each. A step of a count is a cell at all times of the clip.
            let counts: Vec<usize> = lists.iter().map(Vec::len).collect();
            let mean = counts.iter().sum::<usize>() as f64 / 4000.0;
            let error = number("deviation") * (2.0 / 4000.0f64).sqrt();
            assert!((mean - number("mean")).abs() < 5.0 * error, "{name} {list}: mean {mean}");
            let mut sorted = counts;
            sorted.sort_unstable();
            for (i, share) in [0.05, 0.25, 0.5, 0.75, 0.95].into_iter().enumerate() {
                let got = sorted[(share * 3999.0) as usize] as f64;
                let near = 0.15 * number("deviation") + grid.t as f64;
                assert!((got - quantile(i)).abs() <= near, "{name} {list}: quantile {share} {got}");
            }
        }
        let mut cells = vec![0.0; grid.len()];
        masks.target.iter().flatten().for_each(|&token| cells[token as usize] += 1.0 / 4000.0);
        let scores = cells.iter().zip(case["cells"].as_array().unwrap()).map(|(got, want)| {
            let want = want.as_f64().unwrap();
            let variance = 2.0 * want * (1.0 - want) / 4000.0;
            if variance == 0.0 { f64::from(*got != want) } else { (got - want).powi(2) / variance }
        });
        let scores: Vec<f64> = scores.collect();
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        // Cells depend on each other, so the mean of chi-squares has no table. It is 1 if both
        // samplers are the same. Blocks one token off give 10 and more.
        assert!(mean < 2.0, "{name}: mean square of {mean} standard errors");
        assert!(scores.iter().all(|score| *score < 30.0), "{name}: {scores:?}");
    }
}

#[test]
fn truncated_lists_have_the_lengths_of_the_references() {
    let (_, masking, grid, case) =
        vjepa_cases().into_iter().find(|(name, ..)| name == "long").unwrap();
    let Masking::Vjepa(masking) = masking else { unreachable!() };
    let masking =
        Masking::Vjepa(VjepaMasking { truncate: true, size_per_sample: false, ..masking });
    let batch = case["batch"].as_u64().unwrap() as usize;
    let mut sums = [0.0; 2];
    for step in 0..300 {
        let masks = masking.sample(grid, batch, 1, step).unwrap();
        for (sum, lists) in sums.iter_mut().zip([&masks.context, &masks.target]) {
            assert!(lists.iter().all(|list| list.len() == lists[0].len()));
            *sum += lists[0].len() as f64 / 300.0;
        }
    }
    for (i, sum) in sums.into_iter().enumerate() {
        let number = |key: &str| case["truncated"][key][i].as_f64().unwrap();
        let tolerance = 5.0 * 2f64.sqrt() * number("error");
        assert!((sum - number("mean")).abs() < tolerance, "{i}: {sum}, {}", number("mean"));
    }
}

#[test]
fn a_truncated_list_keeps_its_first_tokens() {
    let grid = Grid { t: 4, h: 6, w: 6 };
    let sizes = |truncate| vjepa(|masking| masking.truncate = truncate);
    let [whole, cut] = [false, true].map(|truncate| sizes(truncate).sample(grid, 6, 2, 0).unwrap());
    let shortest = whole.context.iter().map(Vec::len).min().unwrap();
    for (whole, cut) in whole.context.iter().zip(&cut.context) {
        assert_eq!(cut[..], whole[..shortest]);
    }
    let few = vjepa(|masking| masking.max_keep = Some(5)).sample(grid, 6, 2, 0).unwrap();
    assert!(few.context.iter().zip(&whole.context).all(|(few, whole)| few[..] == whole[..5]));
    assert_eq!(few.target, whole.target);
}

#[test]
fn all_tokens_of_a_clip_are_context_or_target_of_vjepas_masks() {
    let grid = Grid { t: 4, h: 6, w: 6 };
    for size_per_sample in [true, false] {
        let masking = vjepa(|masking| {
            masking.scale = Range::new(0.2, 0.6);
            (masking.blocks, masking.size_per_sample) = (1, size_per_sample);
        });
        let masks = masking.sample(grid, 8, 3, 0).unwrap();
        let Masks { context, target, .. } = &masks;
        let both = context.iter().zip(target).map(|(context, target)| context.len() + target.len());
        assert!(both.into_iter().all(|tokens| tokens == grid.len()));
        let sizes: BTreeSet<usize> = target.iter().map(Vec::len).collect();
        assert_eq!(sizes.len() == 1, !size_per_sample, "{sizes:?}");
        assert!(target.iter().any(|list| *list != target[0]), "each has its own place");
        Masks::new(grid, context.clone(), target.clone()).unwrap();
    }
}

#[test]
fn causal_masks_show_the_start_of_a_clip() {
    let grid = Grid { t: 4, h: 2, w: 3 };
    let masking = Masking::Causal(CausalMasking::default());
    let masks = masking.sample(grid, 50, 0, 0).unwrap();
    let shown: BTreeSet<usize> = masks.context.iter().map(Vec::len).collect();
    assert!(shown.into_iter().eq([6, 12, 18]));
    for (context, target) in masks.context.iter().zip(&masks.target) {
        assert!(context.iter().chain(target).copied().eq(0..24));
    }
    let image = masking.validate(Grid::image(4, 4)).unwrap_err().to_string();
    assert!(image.starts_with("masks leave no target"), "{image}");
}
