//! torch's files: the zip archives that `torch.save` writes since torch 1.6 (torch/serialization.py,
//! `_save` and `_load`).

mod archive;
mod write;

pub use write::save_torch;
