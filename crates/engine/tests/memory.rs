//! What is kept in memory, and for how long. The pool is one for the process, so these tests have a
//! binary of their own and take turns.

mod common;

use common::{ContextLists, Model, images};
use engine::check::normal;
use engine::optim::{AdamW, clip_grad_norm, zero_grad};
use engine::{Module, Tape, ops, pool};
use std::sync::{Mutex, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// One step of training on masks drawn under `step`; lengths differ from step to step.
fn train(model: &Model, optimizer: &mut AdamW, step: u64) {
    let counts = [4 + step as usize % 5, 9, 5 + step as usize % 3, 7];
    let tape = Tape::new();
    let loss =
        model.loss(&tape, &images(engine::HOST, 4), &ContextLists::draw(&counts, step)).unwrap();
    let parameters = model.parameters();
    zero_grad(parameters.iter().map(|(_, p)| p));
    tape.backward(&loss).unwrap();
    clip_grad_norm(&parameters, 1.0).unwrap();
    optimizer.step(parameters.iter().map(|(name, p)| (name.as_str(), p, 1e-3, 0.05)));
}

#[test]
fn a_steady_step_allocates_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (model, mut optimizer) = (Model::new(engine::HOST), AdamW::new((0.9, 0.95), 1e-8));
    // 15 steps meet every combination of lengths. Buffers grow to the largest in a few rounds.
    (0..60).for_each(|step| train(&model, &mut optimizer, step));
    let warm = pool::stats();
    (60..120).for_each(|step| train(&model, &mut optimizer, step));
    assert_eq!(pool::stats(), warm);
}

#[test]
fn a_checkpoint_keeps_its_input_alone_and_counts_what_it_runs_again() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let w = engine::Parameter::new("w", normal("w", &[32, 32]));
    let tensor = 512 * 32 * size_of::<f32>();
    let run = |checkpointing: bool| {
        pool::release();
        let before = pool::stats().bytes;
        let tape = Tape::new().checkpointing(checkpointing);
        let mut x = normal("x", &[512, 32]);
        // The first block's input wants no gradient, so it records as always.
        for _ in 0..11 {
            let w = w.share();
            let block = move |tape: &Tape, x: &engine::Tensor| {
                let mut y = x.clone();
                for _ in 0..10 {
                    y = ops::linear(tape, &y, &w.tensor(), None)?;
                }
                Ok(y)
            };
            x = tape.checkpoint(&x, block).unwrap();
        }
        let kept = pool::stats().bytes - before;
        let loss = ops::loss(&tape, &x, &normal("target", &[512, 32]), ops::LossKind::Mse, None);
        tape.backward(&loss.unwrap()).unwrap();
        let costs = tape.costs();
        let linear = costs.iter().find(|cost| cost.op == "linear").unwrap();
        (kept, linear.flops)
    };
    let (all, [forward, backward]) = run(false);
    let (few, [again_forward, again_backward]) = run(true);
    assert!(all > 100 * tensor && few < 40 * tensor, "{all} and {few} bytes");
    assert_eq!(forward, again_forward);
    assert_eq!(again_backward, backward + forward * 10.0 / 11.0);
}

#[test]
fn inference_gives_each_buffer_back_at_once_and_a_recording_keeps_them() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let w = engine::Parameter::new("w", normal("w", &[32, 32]));
    let chain = |tape: &Tape| {
        pool::release();
        let before = pool::stats().bytes;
        let mut x = normal("x", &[512, 32]);
        for _ in 0..40 {
            x = ops::linear(tape, &x, &w.tensor(), None).unwrap();
            x = ops::layer_norm(tape, &x, None, 1e-6).unwrap();
        }
        pool::stats().bytes - before
    };
    let tensor = 512 * 32 * size_of::<f32>();
    // Input, output, what a kernel packs, moments: not a tensor for each of 80 operations.
    let inference = chain(&Tape::inference());
    assert!(inference < 5 * tensor, "{inference} bytes for tensors of {tensor}");
    let recorded = chain(&Tape::new());
    assert!(recorded > 80 * tensor, "{recorded} bytes for tensors of {tensor}");
}

#[test]
fn backward_gives_buffers_back_as_it_goes() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let w = engine::Parameter::new("w", normal("w", &[32, 32]));
    let tape = Tape::new();
    let mut x = normal("x", &[512, 32]);
    for _ in 0..40 {
        x = ops::linear(&tape, &x, &w.tensor(), None).unwrap();
    }
    let loss = ops::loss(&tape, &x, &normal("target", &[512, 32]), ops::LossKind::Mse, None);
    drop(x);
    pool::release();
    let before = pool::stats().bytes;
    tape.backward(&loss.unwrap()).unwrap();
    let grown = pool::stats().bytes - before;
    let tensor = 512 * 32 * size_of::<f32>();
    // Gradients of 40 operations reuse a few buffers.
    assert!(grown < 5 * tensor, "{grown} bytes for tensors of {tensor}");
}

#[test]
fn a_trained_model_that_is_gone_leaves_no_gradients_and_moments() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let train_one = || {
        train(&Model::new(engine::HOST), &mut AdamW::new((0.9, 0.95), 1e-8), 0);
        pool::stats().bytes
    };
    // Buffers find their sizes in a few models.
    let warm = (0..8).map(|_| train_one()).max();
    let later = (0..8).map(|_| train_one()).max();
    assert_eq!(later, warm);
}
