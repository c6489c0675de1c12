//! Choosing, ordering and joining token rows.

use crate::shape::{expect_count, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Error, Result, Tape, Tensor};

/// Where a row of [`assemble`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A row of x.
    X(u32),
    /// A row of the token tables, counted through all of them in order.
    Token(u32),
}

fn check_index(
    op: &'static str,
    arg: &'static str,
    rows: usize,
    index: impl Iterator<Item = i64>,
) -> Result<()> {
    for (place, index) in index.enumerate() {
        if index >= rows as i64 {
            return Err(Error::Index { op, arg, index, place, rows });
        }
    }
    Ok(())
}

/// y_k = x[index_k]. x [R, D], K indices (repeats allowed); y [K, D].
pub fn gather(tape: &Tape, x: &Tensor, index: &[u32]) -> Result<Tensor> {
    let (rows, width) = matrix("gather", "x", x)?;
    check_index("gather", "x", rows, index.iter().map(|&i| i64::from(i)))?;
    let y = tape.run("gather", |device| {
        let mut y = device.buffer(index.len() * width);
        device.gather(y.view_mut(), x.view(), index, width);
        y
    });
    // dx[index_k] += dy_k
    let backward = {
        let (x, index) = (x.clone(), index.to_vec());
        move |gradients: &mut Gradients, dy: Tensor| {
            let device = gradients.device();
            gradients.accumulate(&x, |dx| device.gather_backward(dx, dy.view(), &index, width))
        }
    };
    Ok(tape.record("gather", y, &[index.len(), width], &[x], backward))
}

/// y_r = x row or token row, plus the position row where one is given.
///
/// x [R, D]; each token table [P_i, D]; `rows` has one entry for each row of y; `position` is a
/// table [N, D] and, for each row of y, its row there or -1 for none.
pub fn assemble(
    tape: &Tape,
    x: &Tensor,
    tokens: &[&Tensor],
    rows: &[Row],
    position: Option<(&Tensor, &[i32])>,
) -> Result<Tensor> {
    let width = check(x, tokens, rows, position)?;
    let y = tape.run("assemble", |device| {
        let mut y = device.buffer(rows.len() * width);
        let views: Vec<_> = tokens.iter().map(|table| table.view()).collect();
        let position = position.map(|(table, places)| (table.view(), places));
        device.assemble(y.view_mut(), x.view(), &views, rows, position, width);
        y
    });
    let mut inputs = vec![x];
    inputs.extend(tokens);
    inputs.extend(position.map(|(table, _)| table));
    let backward = {
        let sources = Sources::new(x, tokens, rows, position);
        move |gradients: &mut Gradients, dy: Tensor| sources.backward(gradients, &dy, width)
    };
    Ok(tape.record("assemble", y, &[rows.len(), width], &inputs, backward))
}

fn check(
    x: &Tensor,
    tokens: &[&Tensor],
    rows: &[Row],
    position: Option<(&Tensor, &[i32])>,
) -> Result<usize> {
    let (x_rows, width) = matrix("assemble", "x", x)?;
    let mut token_rows = 0;
    for table in tokens {
        expect_shape("assemble", "a token table", table.shape(), &[table.rows(), width])?;
        token_rows += table.rows();
    }
    for (place, row) in rows.iter().enumerate() {
        let (arg, index, rows) = match *row {
            Row::X(index) => ("x", index, x_rows),
            Row::Token(index) => ("the token tables", index, token_rows),
        };
        if index as usize >= rows {
            let index = i64::from(index);
            return Err(Error::Index { op: "assemble", arg, index, place, rows });
        }
    }
    if let Some((table, places)) = position {
        expect_shape("assemble", "the position table", table.shape(), &[table.rows(), width])?;
        expect_count("assemble", "the number of positions", places.len(), rows.len())?;
        let places = places.iter().map(|&place| i64::from(place));
        check_index("assemble", "the position table", table.rows(), places)?;
    }
    Ok(width)
}

/// Every row of y that came from one table: (its row there, the row of y).
type Copies = Vec<(u32, u32)>;

/// The tables y was copied from, each with its copies.
struct Sources(Vec<(Tensor, Copies)>);

impl Sources {
    fn new(
        x: &Tensor,
        tokens: &[&Tensor],
        rows: &[Row],
        position: Option<(&Tensor, &[i32])>,
    ) -> Self {
        let mut list = vec![(x.clone(), Copies::new())];
        let mut starts = Vec::new();
        let mut start = 0;
        for table in tokens {
            list.push(((*table).clone(), Copies::new()));
            starts.push(start);
            start += table.rows() as u32;
        }
        for (r, row) in rows.iter().enumerate() {
            match *row {
                Row::X(index) => list[0].1.push((index, r as u32)),
                Row::Token(index) => {
                    // The table that begins last at or before the index; `check` saw that it exists.
                    let table = starts.partition_point(|&start| start <= index) - 1;
                    list[1 + table].1.push((index - starts[table], r as u32));
                }
            }
        }
        if let Some((table, places)) = position {
            let places = places.iter().enumerate().filter(|(_, place)| **place >= 0);
            let copies = places.map(|(r, &place)| (place as u32, r as u32)).collect();
            list.push((table.clone(), copies));
        }
        Self(list)
    }

    /// dtable[row] += dy[r] for every copy
    fn backward(&self, gradients: &mut Gradients, dy: &Tensor, width: usize) -> Result<()> {
        let device = gradients.device();
        for (table, copies) in &self.0 {
            if table.slot().is_none() || copies.is_empty() {
                continue;
            }
            let (to, from): (Vec<u32>, Vec<u32>) = copies.iter().copied().unzip();
            let mut part = device.buffer(from.len() * width);
            device.gather(part.view_mut(), dy.view(), &from, width);
            gradients.accumulate(table, |sum| {
                device.gather_backward(sum, part.view(), &to, width);
            })?;
        }
        Ok(())
    }
}
