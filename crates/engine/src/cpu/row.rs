//! Row kernels.

use super::math;
use crate::device::{HeadColumns, PatchLayout, PatchNorm, Pixels};
use crate::ops::{LossKind, PatchOrder, Row};

pub(crate) fn gelu_backward(ds: &mut [f32], dy: &[f32], s: &[f32]) {
    for ((ds, dy), s) in ds.iter_mut().zip(dy).zip(s) {
        *ds = dy * math::gelu_grad(*s);
    }
}
fn norm(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    (mean as f32, (1.0 / (var + f64::from(eps)).sqrt()) as f32)
}
pub(crate) fn layer_norm(
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    affine: Option<(&[f32], &[f32])>,
    width: usize,
    eps: f32,
) {
    for (r, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
        (mean[r], rstd[r]) = norm(x, eps);
        for d in 0..width {
            let h = (x[d] - mean[r]) * rstd[r];
            y[d] = affine.map_or(h, |(g, b)| h * g[d] + b[d]);
        }
    }
}
pub(crate) fn layer_norm_backward(
    dx: &mut [f32],
    mut d_affine: Option<(&mut [f32], &mut [f32])>,
    dy: &[f32],
    x: &[f32],
    saved: (&[f32], &[f32]),
    gamma: Option<&[f32]>,
    width: usize,
) {
    for r in 0..x.len() / width {
        let o = r * width;
        let (m, s) = (saved.0[r], saved.1[r]);
        let (mut a, mut b) = (0.0f64, 0.0f64);
        for d in 0..width {
            let h = (x[o + d] - m) * s;
            let g = dy[o + d] * gamma.map_or(1.0, |g| g[d]);
            a += f64::from(g);
            b += f64::from(g * h);
            if let Some((dg, db)) = &mut d_affine {
                dg[d] += dy[o + d] * h;
                db[d] += dy[o + d];
            }
        }
        let (a, b) = ((a / width as f64) as f32, (b / width as f64) as f32);
        for d in 0..width {
            let h = (x[o + d] - m) * s;
            let g = dy[o + d] * gamma.map_or(1.0, |g| g[d]);
            dx[o + d] = (g - a - h * b) * s;
        }
    }
}
pub(crate) fn head_norm(
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    affine: (&[f32], &[f32]),
    columns: &HeadColumns,
    eps: f32,
) {
    y.copy_from_slice(x);
    let heads = columns.columns.len() / columns.head_dim;
    for r in 0..x.len() / columns.stride {
        for h in 0..heads {
            let o = r * columns.stride + columns.columns.start + h * columns.head_dim;
            let i = r * heads + h;
            let range = o..o + columns.head_dim;
            layer_norm(
                &mut y[range.clone()],
                &mut mean[i..=i],
                &mut rstd[i..=i],
                &x[range],
                Some(affine),
                columns.head_dim,
                eps,
            );
        }
    }
}
pub(crate) fn head_norm_backward(
    dx: &mut [f32],
    d_affine: (&mut [f32], &mut [f32]),
    dy: &[f32],
    x: &[f32],
    saved: (&[f32], &[f32]),
    gamma: &[f32],
    columns: &HeadColumns,
) {
    dx.copy_from_slice(dy);
    let heads = columns.columns.len() / columns.head_dim;
    for r in 0..x.len() / columns.stride {
        for h in 0..heads {
            let o = r * columns.stride + columns.columns.start + h * columns.head_dim;
            let i = r * heads + h;
            let range = o..o + columns.head_dim;
            layer_norm_backward(
                &mut dx[range.clone()],
                Some((&mut *d_affine.0, &mut *d_affine.1)),
                &dy[range.clone()],
                &x[range],
                (&saved.0[i..=i], &saved.1[i..=i]),
                Some(gamma),
                columns.head_dim,
            );
        }
    }
}
pub(crate) fn add_assign(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}
pub(crate) fn scale(y: &mut [f32], a: f32) {
    y.iter_mut().for_each(|y| *y *= a);
}
pub(crate) fn residual(
    y: &mut [f32],
    skip: &[f32],
    branch: &[f32],
    scale: Option<&[f32]>,
    factor: Option<&[f32]>,
    width: usize,
) {
    for i in 0..y.len() {
        y[i] = skip[i]
            + branch[i]
                * scale.map_or(1.0, |s| s[i % width])
                * factor.map_or(1.0, |f| f[i / width]);
    }
}
pub(crate) fn residual_backward(
    d: &mut [f32],
    mut d_scale: Option<&mut [f32]>,
    dy: &[f32],
    branch: &[f32],
    scale: Option<&[f32]>,
    factor: Option<&[f32]>,
    width: usize,
) {
    for i in 0..d.len() {
        let f = factor.map_or(1.0, |f| f[i / width]);
        d[i] = dy[i] * f * scale.map_or(1.0, |s| s[i % width]);
        if let Some(ds) = &mut d_scale {
            ds[i % width] += dy[i] * f * branch[i];
        }
    }
}
pub(crate) fn gather(y: &mut [f32], x: &[f32], index: &[u32], width: usize) {
    for (y, &i) in y.chunks_exact_mut(width).zip(index) {
        y.copy_from_slice(&x[i as usize * width..][..width]);
    }
}
pub(crate) fn gather_backward(dx: &mut [f32], dy: &[f32], index: &[u32], width: usize) {
    for (dy, &i) in dy.chunks_exact(width).zip(index) {
        add_assign(&mut dx[i as usize * width..][..width], dy);
    }
}
pub(crate) fn assemble(
    y: &mut [f32],
    x: &[f32],
    tokens: &[&[f32]],
    rows: &[Row],
    position: Option<(&[f32], &[i32])>,
    width: usize,
) {
    for (r, (y, row)) in y.chunks_exact_mut(width).zip(rows).enumerate() {
        match *row {
            Row::X(i) => y.copy_from_slice(&x[i as usize * width..][..width]),
            Row::Token(i) => {
                let mut i = i as usize * width;
                for table in tokens {
                    if i < table.len() {
                        y.copy_from_slice(&table[i..i + width]);
                        break;
                    }
                    i -= table.len();
                }
            }
        }
        if let Some((table, places)) = position
            && places[r] >= 0
        {
            add_assign(y, &table[places[r] as usize * width..][..width]);
        }
    }
}
pub(crate) fn mean_pool(y: &mut [f32], x: &[f32], offsets: &[usize], skip: usize, width: usize) {
    for (y, o) in y.chunks_exact_mut(width).zip(offsets.windows(2)) {
        y.fill(0.0);
        for r in o[0] + skip..o[1] {
            add_assign(y, &x[r * width..][..width]);
        }
        scale(y, 1.0 / (o[1] - o[0] - skip) as f32);
    }
}
pub(crate) fn mean_pool_backward(
    dx: &mut [f32],
    dy: &[f32],
    offsets: &[usize],
    skip: usize,
    width: usize,
) {
    dx.fill(0.0);
    for (dy, o) in dy.chunks_exact(width).zip(offsets.windows(2)) {
        for r in o[0] + skip..o[1] {
            dx[r * width..][..width].copy_from_slice(dy);
            scale(&mut dx[r * width..][..width], 1.0 / (o[1] - o[0] - skip) as f32);
        }
    }
}
pub(crate) fn loss(p: &[f32], t: &[f32], kind: LossKind, w: Option<&[f32]>, width: usize) -> f32 {
    let rows = p.len() / width;
    let mut sum = 0.0f64;
    for i in 0..p.len() {
        let d = p[i] - t[i];
        let l = match kind {
            LossKind::L1 => d.abs(),
            LossKind::SmoothL1 { beta } if d.abs() < beta => 0.5 * d * d / beta,
            LossKind::SmoothL1 { beta } => d.abs() - 0.5 * beta,
            LossKind::Mse => d * d,
        };
        sum += f64::from(l) * w.map_or(1.0 / rows as f64, |w| f64::from(w[i / width]));
    }
    (sum / width as f64) as f32
}
pub(crate) fn loss_backward(
    d: &mut [f32],
    g: f32,
    p: &[f32],
    t: &[f32],
    kind: LossKind,
    w: Option<&[f32]>,
    width: usize,
) {
    let rows = p.len() / width;
    for i in 0..p.len() {
        let x = p[i] - t[i];
        let sign = if x == 0.0 { 0.0 } else { x.signum() };
        let l = match kind {
            LossKind::L1 => sign,
            LossKind::SmoothL1 { beta } if x.abs() < beta => x / beta,
            LossKind::SmoothL1 { .. } => sign,
            LossKind::Mse => 2.0 * x,
        };
        d[i] = g * l * w.map_or(1.0 / rows as f32, |w| w[i / width]) / width as f32;
    }
}
pub(crate) fn cross_entropy(l: &[f32], labels: &[u32], classes: usize) -> f32 {
    let mut sum = 0.0f64;
    for (row, &label) in l.chunks_exact(classes).zip(labels) {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let z: f64 = row.iter().map(|x| f64::from(x - top).exp()).sum();
        sum += z.ln() - f64::from(row[label as usize] - top);
    }
    (sum / labels.len() as f64) as f32
}
pub(crate) fn cross_entropy_backward(
    d: &mut [f32],
    g: f32,
    l: &[f32],
    labels: &[u32],
    classes: usize,
) {
    for ((d, row), &label) in d.chunks_exact_mut(classes).zip(l.chunks_exact(classes)).zip(labels) {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let z: f64 = row.iter().map(|x| f64::from(x - top).exp()).sum();
        for c in 0..classes {
            let p = (f64::from(row[c] - top).exp() / z) as f32;
            d[c] = g * (p - f32::from(u8::from(c == label as usize))) / labels.len() as f32;
        }
    }
}
pub(crate) fn patchify(y: &mut [f32], pixels: Pixels<'_>, l: PatchLayout, patches: &[u32]) {
    let [_, c, t, h, w] = l.shape;
    let [pt, ph, pw] = l.patch;
    let (gt, gh, gw) = (t / pt, h / ph, w / pw);
    let width = pt * ph * pw * c;
    for (y, &index) in y.chunks_exact_mut(width).zip(patches) {
        let (b, n) = (index as usize / (gt * gh * gw), index as usize % (gt * gh * gw));
        let (t0, h0, w0) = (n / (gh * gw) * pt, n / gw % gh * ph, n % gw * pw);
        for ci in 0..c {
            for ti in 0..pt {
                for hi in 0..ph {
                    for wi in 0..pw {
                        let from = (((b * c + ci) * t + t0 + ti) * h + h0 + hi) * w + w0 + wi;
                        let value = match pixels {
                            Pixels::U8 { data, mean, std } => {
                                (f32::from(data[from]) / 255.0 - mean[ci]) / std[ci]
                            }
                            Pixels::F32(data) => data[from],
                        };
                        let to = match l.order {
                            PatchOrder::ChannelsFirst => ((ci * pt + ti) * ph + hi) * pw + wi,
                            PatchOrder::ChannelsLast => ((ti * ph + hi) * pw + wi) * c + ci,
                        };
                        y[to] = value;
                    }
                }
            }
        }
    }
}
pub(crate) fn normalize_patches(y: &mut [f32], x: &[f32], width: usize, norm: PatchNorm) {
    let groups = if norm.per_channel { norm.channels } else { 1 };
    for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        for group in 0..groups {
            let values: Vec<f64> =
                x.iter().skip(group).step_by(groups).map(|&x| f64::from(x)).collect();
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let div = if norm.unbiased { n - 1.0 } else { n };
            let var = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / div;
            let eps = f64::from(norm.eps);
            let scale = if norm.eps_outside_sqrt {
                1.0 / (var.sqrt() + eps)
            } else {
                1.0 / (var + eps).sqrt()
            };
            for (y, x) in y.iter_mut().skip(group).step_by(groups).zip(&values) {
                *y = ((x - mean) * scale) as f32;
            }
        }
    }
}
