//! Parameters and FLOPs from sizes only, before anything is built. FLOPs are those of the matrix
//! products, two per multiply-add, as the engine's tape counts them.

use super::{TransformerSpec, VitSpec};

/// A stack of equal blocks.
#[derive(Clone, Copy)]
struct Stack {
    width: usize,
    hidden: usize,
    depth: usize,
    /// Matrices of width x hidden: three with SwiGLU, else two.
    of_mlp: usize,
}

impl Stack {
    /// Matrices, biases and norms.
    fn parameters(self) -> usize {
        let Self { width, hidden, depth, of_mlp } = self;
        let matrices = 4 * width * width + of_mlp * width * hidden;
        depth * (matrices + 9 * width + (of_mlp - 1) * hidden)
    }

    /// Forward FLOPs of a sample of `rows` tokens: first of all blocks before the last, then of the
    /// last block. The last block computes only `outputs` tokens.
    fn flops(self, rows: usize, outputs: usize) -> [f64; 2] {
        let [d, f, mlp] = [self.width, self.hidden, self.of_mlp].map(|size| size as f64);
        // Keys and values are computed for all rows. Queries, scores, mix, projection and MLP are
        // computed only for the outputs.
        let block = |outputs: usize| {
            let (n, w) = (rows as f64, outputs as f64);
            4.0 * n * d * d + w * (4.0 * d * d + 2.0 * mlp * d * f) + 4.0 * w * n * d
        };
        match self.depth {
            0 => [0.0; 2],
            depth => [(depth - 1) as f64 * block(rows), block(outputs)],
        }
    }
}

impl VitSpec {
    fn stack(&self) -> Stack {
        let of_mlp = if self.swiglu { 3 } else { 2 };
        Stack { width: self.width, hidden: self.hidden, depth: self.depth, of_mlp }
    }

    /// Number of values in all its parameters.
    pub fn parameters(&self) -> usize {
        let Self { width, heads, depth, registers, .. } = *self;
        let embedding = (self.patch_len() + 1) * width;
        let tokens = usize::from(self.class_token) + registers + self.position_rows();
        let scales = if self.layer_scale.is_some() { 2 * width } else { 0 };
        let head_norms = if self.qk_norm { 4 * (width / heads) } else { 0 };
        let more = depth * (scales + head_norms);
        let norms = if self.pre_norm { 4 } else { 2 };
        embedding + (tokens + norms) * width + self.stack().parameters() + more
    }

    /// FLOPs of embedding `seen` patches of an image.
    pub fn embedding_flops(&self, seen: usize) -> f64 {
        2.0 * (seen * self.patch_len() * self.width) as f64
    }

    /// Forward FLOPs of the blocks for `seen` patches of an image and its prefix. The last block
    /// computes `outputs` tokens, or all of them if this is none.
    pub fn block_flops(&self, seen: usize, outputs: Option<usize>) -> f64 {
        let rows = self.prefix() + seen;
        self.stack().flops(rows, outputs.unwrap_or(rows)).iter().sum()
    }
}

impl TransformerSpec {
    fn stack(self) -> Stack {
        Stack { width: self.width, hidden: 4 * self.width, depth: self.depth, of_mlp: 2 }
    }

    /// Number of values in its parameters without its mask token, for tokens of width `input` and
    /// outputs of width `output`.
    pub fn parameters(self, [input, output]: [usize; 2]) -> usize {
        let width = self.width;
        self.stack().parameters() + (input + 1) * width + 2 * width + (width + 1) * output
    }

    /// Forward FLOPs for an image's `context` and `target` tokens: first of all blocks before the
    /// last, then of the last block.
    pub fn block_flops(self, context: usize, target: usize) -> [f64; 2] {
        self.stack().flops(context + target, target)
    }

    /// Forward FLOPs of the input and output projections.
    pub fn projection_flops(
        self,
        [input, output]: [usize; 2],
        context: usize,
        target: usize,
    ) -> f64 {
        2.0 * (self.width * (input * context + output * target)) as f64
    }
}
