//! Rotary positions over time, row and column: V-JEPA 2, src/models/utils/modules.py,
//! RoPEAttention.
//!
//! A head of E values begins with three parts of d = 2⌊⌊E/3⌋/2⌋ values, for time, row and column.
//! What is left over is not turned. Pair i of a part has the frequency ω_i = 10000^(-2i/d). Places
//! are whole numbers from 0. The class token and registers are not turned.

use crate::mask::Grid;
use engine::{Constant, Index, Result, Tape, Tensor, ops};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Which angle turns which value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rope {
    /// Both values of pair i are turned by p ω_i: a rotation, as in V-JEPA 2.1.
    Interleaved,
    /// Value j is turned by p ω_(j mod d/2), as in V-JEPA 2 and in transformers. This is no
    /// rotation: the two values of a pair have different angles. Their checkpoints need it.
    Tiled,
}

/// d, the values of a head of width `head_dim` that each axis turns.
pub fn values_per_axis(head_dim: usize) -> usize {
    2 * (head_dim / 3 / 2)
}

/// The factors of every place of a grid for heads of width E: [N + 1, 2E], c and s as
/// [`ops::rope`] reads them. The last row turns nothing.
pub fn factors(form: Rope, grid: Grid, head_dim: usize) -> Tensor {
    let part = values_per_axis(head_dim);
    let mut table = Vec::with_capacity((grid.len() + 1) * 2 * head_dim);
    for n in 0..=grid.len() {
        let place = [n / grid.plane(), n / grid.w % grid.h, n % grid.w];
        let angle = |j: usize| match place.get(j / part.max(1)) {
            Some(&index) if part > 0 && n < grid.len() => {
                index as f64 * frequency(form, j % part, part)
            }
            _ => 0.0,
        };
        let sine = |j: usize| if j.is_multiple_of(2) { -angle(j).sin() } else { angle(j).sin() };
        table.extend((0..head_dim).map(|j| angle(j).cos() as f32));
        table.extend((0..head_dim).map(|j| sine(j) as f32));
    }
    Tensor::from_vec(table, &[grid.len() + 1, 2 * head_dim])
}

/// ω of value `j` of a part.
fn frequency(form: Rope, j: usize, part: usize) -> f64 {
    let half = part / 2;
    let i = match form {
        Rope::Interleaved => j / 2,
        Rope::Tiled => j % half,
    };
    10_000f64.powf(-(i as f64) / half as f64)
}

/// The factors of a model.
pub(crate) struct RotaryTable(Constant);

impl RotaryTable {
    pub(crate) fn new(form: Rope, grid: Grid, head_dim: usize) -> Self {
        Self(Constant::new(&factors(form, grid, head_dim)))
    }

    /// The rows of `x`, each at a patch of the grid, or at no place if it is negative.
    pub(crate) fn at(&self, patches: &[i32], x: &Tensor) -> Rotary {
        let factors = self.0.beside(x);
        let nowhere = factors.rows() as u32 - 1;
        let place = |&patch: &i32| u32::try_from(patch).unwrap_or(nowhere);
        Rotary { places: patches.iter().map(place).collect::<Vec<_>>().into(), factors }
    }
}

/// Packed rows and their places.
#[derive(Clone)]
pub(crate) struct Rotary {
    /// [N + 1, 2E]
    factors: Tensor,
    /// The row of `factors` of each packed row.
    places: Index,
}

impl Rotary {
    /// Turns the heads in `columns` of x [R, S] by the places of its rows.
    pub(crate) fn turn(&self, tape: &Tape, x: &Tensor, columns: Range<usize>) -> Result<Tensor> {
        ops::rope(tape, x, columns, &self.factors, &self.places)
    }

    /// Only these rows.
    pub(crate) fn rows(&self, rows: &[u32]) -> Self {
        let all = self.places.as_slice();
        let places: Vec<u32> = rows.iter().map(|&row| all[row as usize]).collect();
        Self { factors: self.factors.clone(), places: places.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid { t: 2, h: 3, w: 2 };

    /// c and s of the value `j` at token `n`.
    fn of(table: &[f32], head_dim: usize, n: usize, j: usize) -> [f32; 2] {
        [table[2 * n * head_dim + j], table[(2 * n + 1) * head_dim + j]]
    }

    #[test]
    fn each_axis_turns_its_part_of_a_head_and_the_rest_stays() {
        let table = factors(Rope::Interleaved, GRID, 16).to_vec(); // d = 4, and 4 left over
        let n = GRID.index(1, 2, 1);
        // Values 2 and 3 are the second pair of time: ω = 10000^-½ = 0.01.
        let [c, s] = of(&table, 16, n, 2);
        assert!((c - 0.01f32.cos()).abs() < 1e-6 && (s + 0.01f32.sin()).abs() < 1e-6);
        let [c, s] = of(&table, 16, n, 5); // the first pair of rows: 2 · 1
        assert!((c - 2f32.cos()).abs() < 1e-6 && (s - 2f32.sin()).abs() < 1e-6);
        for j in 12..16 {
            assert_eq!(of(&table, 16, n, j).map(f32::abs), [1.0, 0.0]);
        }
        for j in 0..16 {
            assert_eq!(of(&table, 16, GRID.len(), j).map(f32::abs), [1.0, 0.0], "the last row");
        }
    }

    /// Scores after a rotation depend on the distance alone. After the tiled form they do not.
    #[test]
    fn a_rotation_depends_on_distances_only() {
        let line = Grid { t: 8, h: 1, w: 1 };
        let score = |form, [p, q]: [usize; 2]| {
            let table = factors(form, line, 24).to_vec();
            let x = |j: usize| (0.3 * j as f32).sin() + 0.1;
            let turned = |n: usize, j: usize| {
                let [c, s] = of(&table, 24, n, j);
                c * x(j) + s * x(j ^ 1)
            };
            (0..24).map(|j| turned(p, j) * turned(q, j)).sum::<f32>()
        };
        let differs = |form| (score(form, [0, 2]) - score(form, [5, 7])).abs();
        assert!(differs(Rope::Interleaved) < 1e-5);
        assert!(differs(Rope::Tiled) > 1e-2);
    }

    #[test]
    fn a_head_narrower_than_six_values_has_no_part_to_turn() {
        assert_eq!([5, 6, 24, 32, 64, 88, 104].map(values_per_axis), [0, 2, 8, 10, 20, 28, 34]);
        let table = factors(Rope::Tiled, GRID, 4).to_vec();
        assert!(table.chunks(8).all(|row| row.iter().all(|x| [0.0, 1.0].contains(&x.abs()))));
    }
}
