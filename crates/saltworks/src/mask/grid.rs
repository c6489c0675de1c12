//! The grid of tokens of a clip.

use std::fmt;

/// T × H × W tokens, time first: an image is a clip with T = 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// T: tokens along time.
    pub t: usize,
    /// H: tokens along the height.
    pub h: usize,
    /// W: tokens along the width.
    pub w: usize,
}

impl Grid {
    /// The grid of an image of `h` × `w` tokens.
    pub const fn image(h: usize, w: usize) -> Self {
        Self { t: 1, h, w }
    }

    /// N = T·H·W, the number of tokens.
    pub const fn len(self) -> usize {
        self.t * self.h * self.w
    }

    /// Whether there is no token at all.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// H·W, the tokens at one time.
    pub const fn plane(self) -> usize {
        self.h * self.w
    }

    /// The token at (t, h, w): (t·H + h)·W + w.
    pub const fn index(self, t: usize, h: usize, w: usize) -> usize {
        (t * self.h + h) * self.w + w
    }

    /// The tokens, at all times, of the chosen cells of the plane, ascending.
    ///
    /// `plane` [H·W] -> token indices, a multiple of T of them.
    pub(super) fn tubes(self, plane: &[bool]) -> Vec<u32> {
        let tubes = (0..self.t).flat_map(|t| {
            let chosen = plane.iter().enumerate().filter(|&(_, &chosen)| chosen);
            chosen.map(move |(cell, _)| (t * self.plane() + cell) as u32)
        });
        tubes.collect()
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.t {
            1 => write!(f, "{} x {}", self.h, self.w),
            t => write!(f, "{t} x {} x {}", self.h, self.w),
        }
    }
}

/// A rectangle of the plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub(super) top: usize,
    pub(super) left: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Rectangle {
    /// Its cells in the plane [H·W].
    pub(super) fn cells(self, grid: Grid) -> impl Iterator<Item = usize> {
        let rows = self.top..self.top + self.height;
        rows.flat_map(move |h| {
            (self.left..self.left + self.width).map(move |w| grid.index(0, h, w))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_count_time_first() {
        let grid = Grid { t: 2, h: 3, w: 4 };
        assert_eq!((grid.len(), grid.plane(), grid.index(1, 2, 3)), (24, 12, 23));
        let corner = Rectangle { top: 1, left: 2, height: 2, width: 2 };
        let cells: Vec<_> = corner.cells(grid).collect();
        assert_eq!(cells, [6, 7, 10, 11]);
        let mut plane = [false; 12];
        cells.iter().for_each(|&cell| plane[cell] = true);
        assert_eq!(grid.tubes(&plane), [6, 7, 10, 11, 18, 19, 22, 23]);
    }

    #[test]
    fn a_grid_is_shown_as_its_sides() {
        assert_eq!(Grid::image(7, 14).to_string(), "7 x 14");
        assert_eq!(Grid { t: 8, h: 14, w: 14 }.to_string(), "8 x 14 x 14");
    }
}
