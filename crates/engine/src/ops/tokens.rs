//! Selects, orders and joins token rows.

use crate::device::Row;
use crate::index::Index;
use crate::shape::{check_index, expect_count, expect_dtype, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Dtype, Error, Result, Tape, Tensor};

/// y_k = x[index_k]. x [R, D], K indices, which may repeat. y [K, D].
pub fn gather(tape: &Tape, x: &Tensor, index: impl Into<Index>) -> Result<Tensor> {
    let index = index.into();
    let (rows, width) = matrix("gather", "x", x)?;
    check_index("gather", "x", rows, &index)?;
    let (device, count) = (x.device(), index.len());
    let y = tape.run("gather", || {
        let mut y = device.buffer(x.dtype(), index.len() * width);
        device.gather(y.view_mut(), x.view(), &index, width);
        y
    });
    // dx[index_k] += dy_k
    let backward = {
        let x = x.clone();
        move |gradients: &mut Gradients, dy: Tensor| {
            gradients.accumulate(&x, |dx| device.gather_backward(dx, dy.view(), &index, width))
        }
    };
    let y = Tensor::new(device, y, &[count, width]);
    Ok(tape.record("gather", y, &[x], backward))
}

/// y_r = x row or token row, plus the position row if there is one.
///
/// x is [R, D], and each token table [P_i, D]. `rows` has one entry for each row of y. `position`
/// is a table [N, D] and, for each row of y, the row of this table or -1 for none.
pub fn assemble(
    tape: &Tape,
    x: &Tensor,
    tokens: &[&Tensor],
    rows: impl Into<Index<Row>>,
    position: Option<(&Tensor, &[i32])>,
) -> Result<Tensor> {
    let rows = &rows.into();
    let position = position.map(|(table, rows)| (table, Index::from(rows)));
    let position = position.as_ref().map(|(table, rows)| (*table, rows));
    let width = check(x, tokens, rows, position)?;
    let device = x.device();
    let y = tape.run("assemble", || {
        let mut y = device.buffer(x.dtype(), rows.len() * width);
        let views: Vec<_> = tokens.iter().map(|table| table.floats()).collect();
        let position = position.map(|(table, rows)| (table.floats(), rows));
        device.assemble(y.view_mut(), x.view(), views, rows, position, width);
        y
    });
    let mut inputs = vec![x];
    inputs.extend(tokens);
    inputs.extend(position.map(|(table, _)| table));
    let backward = {
        let sources = Sources::new(x, tokens, rows, position);
        move |gradients: &mut Gradients, dy: Tensor| sources.backward(gradients, &dy, width)
    };
    let y = Tensor::new(device, y, &[rows.len(), width]);
    Ok(tape.record("assemble", y, &inputs, backward))
}

fn check(
    x: &Tensor,
    tokens: &[&Tensor],
    rows: &Index<Row>,
    position: Option<(&Tensor, &Index<i32>)>,
) -> Result<usize> {
    let (x_rows, width) = matrix("assemble", "x", x)?;
    let mut token_rows = 0;
    for table in tokens {
        expect_shape("assemble", "a token table", table.shape(), &[table.rows(), width])?;
        expect_dtype("assemble", "a token table", table, Dtype::F32)?;
        token_rows += table.rows();
    }
    for (entry, row) in rows.as_slice().iter().enumerate() {
        let (arg, index, rows) = match *row {
            Row::X(index) => ("x", index, x_rows),
            Row::Token(index) => ("the token tables", index, token_rows),
        };
        if index as usize >= rows {
            let index = i64::from(index);
            return Err(Error::Index { op: "assemble", arg, index, entry, rows });
        }
    }
    if let Some((table, position)) = position {
        expect_shape("assemble", "the position table", table.shape(), &[table.rows(), width])?;
        expect_dtype("assemble", "the position table", table, Dtype::F32)?;
        expect_count("assemble", "the number of positions", position.len(), rows.len())?;
        check_index("assemble", "the position table", table.rows(), position)?;
    }
    Ok(width)
}

/// Every row of y that was copied from one table: (row of the table, row of y).
type Copies = Vec<(u32, u32)>;

/// The tables from which y was copied, each with its copies.
struct Sources(Vec<(Tensor, Copies)>);

impl Sources {
    fn new(
        x: &Tensor,
        tokens: &[&Tensor],
        rows: &Index<Row>,
        position: Option<(&Tensor, &Index<i32>)>,
    ) -> Self {
        let mut list = vec![(x.clone(), Copies::new())];
        let mut starts = Vec::new();
        let mut start = 0;
        for table in tokens {
            list.push(((*table).clone(), Copies::new()));
            starts.push(start);
            start += table.rows() as u32;
        }
        for (r, row) in rows.as_slice().iter().enumerate() {
            match *row {
                Row::X(index) => list[0].1.push((index, r as u32)),
                Row::Token(index) => {
                    // The last table that starts at or before the index. `check` verified that
                    // there is one.
                    let table = starts.partition_point(|&start| start <= index) - 1;
                    list[1 + table].1.push((index - starts[table], r as u32));
                }
            }
        }
        if let Some((table, position)) = position {
            let with = position.as_slice().iter().enumerate().filter(|(_, row)| **row >= 0);
            let copies = with.map(|(r, &row)| (row as u32, r as u32)).collect();
            list.push((table.clone(), copies));
        }
        Self(list)
    }

    /// dtable[row] += dy[r] for every copy
    fn backward(&self, gradients: &mut Gradients, dy: &Tensor, width: usize) -> Result<()> {
        let device = dy.device();
        for (table, copies) in &self.0 {
            if table.slot().is_none() || copies.is_empty() {
                continue;
            }
            let (to, from): (Vec<u32>, Vec<u32>) = copies.iter().copied().unzip();
            let (to, from) = (Index::from(to), Index::from(from));
            let mut part = device.buffer(dy.dtype(), from.len() * width);
            device.gather(part.view_mut(), dy.view(), &from, width);
            let part = Tensor::new(device, part, &[from.len(), width]).cast(table.dtype());
            gradients.accumulate(table, |sum| {
                device.gather_backward(sum, part.view(), &to, width);
            })?;
        }
        Ok(())
    }
}
