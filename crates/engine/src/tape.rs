//! The tape: the recorded operations in order, and the backward pass.
//!
//! Every operation computes its result at once. If an input needs a gradient and the tape records,
//! the operation adds a node: a closure that holds what the backward formula needs. `backward` runs
//! the nodes from last to first, so each buffer returns to the pool once its node is done. An
//! operation on untracked tensors (a frozen teacher, evaluation) adds no node.

use crate::device::{ViewMut, Write};
use crate::shape::{expect_count, expect_dtype};
use crate::slot::{Home, Slot};
use crate::watch::{Trouble, Watch};
use crate::{Error, Parameter, Result, Tensor};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// `Send`: the thread of the backward pass may differ from the thread that recorded.
type Backward = Box<dyn FnOnce(&mut Gradients, Tensor) -> Result<()> + Send>;

struct Node {
    op: &'static str,
    shape: Vec<usize>,
    /// A parameter near the operation in the model, on a watched tape.
    near: Option<Arc<Parameter>>,
    backward: Backward,
}

/// Records operations for one backward pass.
pub struct Tape {
    recording: Cell<bool>,
    checkpointing: bool,
    /// The number of this recording. Each tape has its own, and a new one after each backward pass.
    number: Cell<u64>,
    nodes: RefCell<Vec<Node>>,
    timed: bool,
    costs: RefCell<Vec<OpCost>>,
    watch: Option<RefCell<Watch>>,
    stopped: Option<StopCheck>,
}

/// Whether the work is no longer wanted.
type StopCheck = Arc<dyn Fn() -> bool + Send + Sync>;

/// Cost of all operations of one name, forward and backward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpCost {
    /// The operation's name.
    pub op: &'static str,
    /// Seconds, if the tape is timed.
    pub seconds: [f64; 2],
    /// Floating-point operations of its matrix products, two per multiply-add. The scores that
    /// attention's backward pass recomputes are not counted.
    pub flops: [f64; 2],
}

/// A number that no other recording has.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Default for Tape {
    fn default() -> Self {
        Self::new()
    }
}

impl Tape {
    /// A tape that records. A tape has no device: operations run on the device of their tensors.
    pub fn new() -> Self {
        Self::that(true)
    }

    /// A tape that never records. The numbers are the same, and nothing is saved.
    pub fn inference() -> Self {
        Self::that(false)
    }

    fn that(records: bool) -> Self {
        let number = Cell::new(next_number());
        Self {
            recording: Cell::new(records),
            checkpointing: false,
            number,
            nodes: RefCell::default(),
            timed: false,
            costs: RefCell::default(),
            watch: None,
            stopped: None,
        }
    }

    /// Ends with [`Error::Stopped`] soon after `stopped` returns true: before the next
    /// [checkpoint](Tape::checkpoint), or the next operation of the backward pass.
    pub fn stopping(self, stopped: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { stopped: Some(Arc::new(stopped)), ..self }
    }

    fn check_stopped(&self) -> Result<()> {
        match &self.stopped {
            Some(stopped) if stopped() => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Also measures the time of each operation.
    pub fn timed(self) -> Self {
        Self { timed: true, ..self }
    }

    /// Also checks every result and gradient for values that are not finite. This is slow.
    pub fn watched(self) -> Self {
        Self { watch: Some(RefCell::default()), ..self }
    }

    /// The first value that was not finite, if this tape is [watched](Tape::watched) and found one.
    pub fn trouble(&self) -> Option<Trouble> {
        self.watch.as_ref()?.borrow_mut().take()
    }

    /// Saves less at calls of [`Tape::checkpoint`], which reduces memory but needs more time.
    pub fn checkpointing(self, checkpointing: bool) -> Self {
        Self { checkpointing, ..self }
    }

    /// Costs so far by operation, in the order of their first use.
    pub fn costs(&self) -> Vec<OpCost> {
        self.costs.borrow().clone()
    }

    /// Counts products of `multiply_adds` in the forward pass of `op`.
    pub(crate) fn count(&self, op: &'static str, multiply_adds: usize) {
        self.add_cost(op, |cost| cost.flops[0] += 2.0 * multiply_adds as f64);
    }

    fn add_cost(&self, op: &'static str, add: impl FnOnce(&mut OpCost)) {
        let mut costs = self.costs.borrow_mut();
        let index = costs.iter().position(|cost| cost.op == op).unwrap_or_else(|| {
            costs.push(OpCost { op, seconds: [0.0; 2], flops: [0.0; 2] });
            costs.len() - 1
        });
        add(&mut costs[index]);
    }

    /// Whether an operation on these inputs is recorded, and so must save what its backward pass
    /// needs.
    pub(crate) fn tracks(&self, inputs: &[&Tensor]) -> bool {
        self.recording.get() && inputs.iter().any(|input| input.slot().is_some())
    }

    /// Runs `compute` and adds its time to `op`.
    pub(crate) fn run<T>(&self, op: &'static str, compute: impl FnOnce() -> T) -> T {
        let start = self.timed.then(Instant::now);
        let result = compute();
        if let Some(start) = start {
            self.add_cost(op, |cost| cost.seconds[0] += start.elapsed().as_secs_f64());
        }
        result
    }

    /// Returns an operation's result. If an input needs a gradient, records how to compute it:
    /// `backward` gets the gradient of the result.
    pub(crate) fn record(
        &self,
        op: &'static str,
        tensor: Tensor,
        inputs: &[&Tensor],
        backward: impl FnOnce(&mut Gradients, Tensor) -> Result<()> + Send + 'static,
    ) -> Tensor {
        if let Some(watch) = &self.watch {
            watch.borrow_mut().result(op, &tensor, inputs);
        }
        if self.tracks(inputs) { self.push(op, tensor, backward) } else { tensor }
    }

    fn push(
        &self,
        op: &'static str,
        tensor: Tensor,
        backward: impl FnOnce(&mut Gradients, Tensor) -> Result<()> + Send + 'static,
    ) -> Tensor {
        let near = self.watch.as_ref().and_then(|watch| watch.borrow().last_read());
        let mut nodes = self.nodes.borrow_mut();
        let shape = tensor.shape().to_vec();
        nodes.push(Node { op, shape, near, backward: Box::new(backward) });
        let home = Home::Node { recording: self.number.get(), index: nodes.len() - 1 };
        tensor.with_slot(Some(Slot::new(home)))
    }

    /// The values of `x` as an input that needs a gradient, and the place of this gradient.
    pub fn input(&self, x: &Tensor) -> (Tensor, InputGradient) {
        let gradient = InputGradient::default();
        if !self.recording.get() {
            return (x.detach(), gradient);
        }
        let kept = gradient.clone();
        let x = self.push("input", x.detach(), move |_, dx| {
            *lock(&kept.0) = Some(dx);
            Ok(())
        });
        (x, gradient)
    }

    /// `forward(x)`. A [checkpointing](Tape::checkpointing) tape saves x instead of everything that
    /// `forward` would record, and runs `forward` again in the backward pass (Chen et al. 2016,
    /// Training deep nets with sublinear memory cost). `forward` must be a function of x and of
    /// parameters.
    ///
    /// The bits are the same either way if nothing else reads x. Otherwise the gradient of x is the
    /// same sum in another order. If x has no gradient, `forward` records as on any other tape. It
    /// also does so inside a checkpoint that is recomputed.
    pub fn checkpoint(
        &self,
        x: &Tensor,
        forward: impl Fn(&Self, &Tensor) -> Result<Tensor> + Send + 'static,
    ) -> Result<Tensor> {
        self.check_stopped()?;
        if !self.checkpointing || !self.tracks(&[x]) {
            return forward(self, x);
        }
        let y = {
            let _paused = Paused::new(&self.recording);
            forward(self, x)?
        };
        let (x, timed) = (x.clone(), self.timed);
        Ok(self.push("checkpoint", y, move |gradients, dy| {
            let again = Self { timed, ..Self::new() };
            let (input, dx) = again.input(&x);
            let y = forward(&again, &input)?;
            if y.slot().is_some() {
                again.backward_from([(&y, dy)])?;
            }
            gradients.again = again.costs();
            dx.take().map_or(Ok(()), |dx| gradients.add(&x, dx))
        }))
    }

    /// Number of recorded operations without a backward pass so far.
    pub fn recorded(&self) -> usize {
        self.nodes.borrow().len()
    }

    /// Adds d loss / d p to the gradient of every parameter p that `loss` (one element) depends
    /// on, and empties the tape.
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        self.backward_scaled(loss, 1.0)
    }

    /// [`Tape::backward`] of `scale` times the loss. For each of n parts of a batch, `scale` is
    /// 1/n.
    pub fn backward_scaled(&self, loss: &Tensor, scale: f32) -> Result<()> {
        expect_count("backward", "the size of the loss", loss.len(), 1)?;
        self.backward_from([(loss, Tensor::uploaded(loss.device(), &[scale], &[1]))])
    }

    /// The backward pass from results y of this tape with their gradients dy: adds Σ dy · dy / d p
    /// to the gradient of every parameter p, and empties the tape.
    pub fn backward_from<'a>(
        &self,
        results: impl IntoIterator<Item = (&'a Tensor, Tensor)>,
    ) -> Result<()> {
        let results: Vec<_> = results.into_iter().collect();
        if results.iter().any(|(y, _)| y.slot().is_none()) {
            return Err(Error::Untracked);
        }
        let nodes = self.nodes.take();
        let mut gradients = Gradients::new(&nodes, self.number.replace(next_number()));
        for (y, dy) in results {
            gradients.add(y, dy)?;
        }
        for (index, node) in nodes.into_iter().enumerate().rev() {
            self.check_stopped()?;
            let Some(gradient) = gradients.of_node[index].take() else { continue };
            if let Some(watch) = &self.watch {
                watch.borrow_mut().gradient(node.op, &gradient, node.near.as_ref());
            }
            let start = self.timed.then(Instant::now);
            gradients.flops = 0.0;
            (node.backward)(&mut gradients, gradient)?;
            let mut seconds = start.map_or(0.0, |start| start.elapsed().as_secs_f64());
            for again in gradients.again.drain(..) {
                let spent = again.seconds.iter().sum::<f64>();
                seconds -= spent;
                self.add_cost(again.op, |cost| {
                    cost.seconds[1] += spent;
                    cost.flops[1] += again.flops.iter().sum::<f64>();
                });
            }
            self.add_cost(node.op, |cost| {
                cost.seconds[1] += seconds;
                cost.flops[1] += gradients.flops;
            });
        }
        Ok(())
    }
}

/// The gradient of a [`Tape::input`], once the backward pass has computed it.
#[derive(Clone, Default)]
pub struct InputGradient(Arc<Mutex<Option<Tensor>>>);

impl InputGradient {
    /// Takes it. None before the backward pass, and if no result depends on the input.
    pub fn take(&self) -> Option<Tensor> {
        lock(&self.0).take()
    }
}

/// Each write is one assignment, so a panic elsewhere leaves no partial value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a tape from recording while it lives.
struct Paused<'a>(&'a Cell<bool>);

impl<'a> Paused<'a> {
    fn new(recording: &'a Cell<bool>) -> Self {
        recording.set(false);
        Self(recording)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// Gradients during a backward pass.
pub(crate) struct Gradients {
    /// FLOPs of the current node.
    flops: f64,
    /// Costs of the operations that the node recomputed, forward and backward.
    again: Vec<OpCost>,
    recording: u64,
    of_node: Vec<Option<Tensor>>,
    shapes: Vec<Vec<usize>>,
}

impl Gradients {
    fn new(nodes: &[Node], recording: u64) -> Self {
        let shapes = nodes.iter().map(|node| node.shape.clone()).collect();
        let of_node = vec![None; nodes.len()];
        Self { flops: 0.0, again: Vec::new(), recording, of_node, shapes }
    }

    /// The index of a node, if the node belongs to this recording.
    fn node(&self, recording: u64, index: usize) -> Result<usize> {
        if recording == self.recording { Ok(index) } else { Err(Error::OtherTape) }
    }

    /// Counts products of `multiply_adds`.
    pub(crate) fn count(&mut self, multiply_adds: usize) {
        self.flops += 2.0 * multiply_adds as f64;
    }

    /// Adds `gradient`, of the same shape as `tensor`, to the gradient of `tensor`. The first
    /// gradient's buffer is kept.
    pub(crate) fn add(&mut self, tensor: &Tensor, gradient: Tensor) -> Result<()> {
        expect_count("gradient", "its size", gradient.len(), tensor.len())?;
        expect_dtype("gradient", "it", &gradient, tensor.dtype())?;
        match self.first_of(tensor)? {
            Some(node) => self.of_node[node] = Some(gradient),
            None => {
                let device = gradient.device();
                self.accumulate(tensor, |sum| device.add_assign(sum, gradient.view()))?;
            }
        }
        Ok(())
    }

    /// Calls `write` with the gradient of `tensor` if `tensor` needs one. It sets the first
    /// gradient and adds later ones.
    pub(crate) fn write(
        &mut self,
        tensor: &Tensor,
        write: impl FnOnce(Write<ViewMut<'_>>),
    ) -> Result<()> {
        let Some(node) = self.first_of(tensor)? else {
            return self.accumulate(tensor, |sum| write(Write::Add(sum)));
        };
        let device = tensor.device();
        let mut buffer = device.buffer(tensor.dtype(), tensor.len());
        write(Write::Set(buffer.view_mut()));
        self.of_node[node] = Some(Tensor::new(device, buffer, tensor.shape()));
        Ok(())
    }

    /// [`Gradients::write`] for a kernel that also computes other gradients. It is called even if
    /// `tensor` needs no gradient, with a buffer that is then dropped.
    pub(crate) fn write_even_if_untracked(
        &mut self,
        tensor: &Tensor,
        write: impl FnOnce(Write<ViewMut<'_>>),
    ) -> Result<()> {
        if tensor.slot().is_some() {
            return self.write(tensor, write);
        }
        write(Write::Set(tensor.device().buffer(tensor.dtype(), tensor.len()).view_mut()));
        Ok(())
    }

    /// The node whose whole output is `tensor`, if it has no gradient yet.
    fn first_of(&self, tensor: &Tensor) -> Result<Option<usize>> {
        let Some(Slot { home: Home::Node { recording, index }, .. }) = tensor.slot() else {
            return Ok(None);
        };
        let node = self.node(*recording, *index)?;
        let whole = self.shapes[node].iter().product::<usize>() == tensor.len();
        Ok((whole && self.of_node[node].is_none()).then_some(node))
    }

    /// Calls `add` (which does `+=`) with the gradient of `tensor` if `tensor` needs one.
    pub(crate) fn accumulate(
        &mut self,
        tensor: &Tensor,
        add: impl FnOnce(ViewMut<'_>),
    ) -> Result<()> {
        let Some(slot) = tensor.slot() else { return Ok(()) };
        let node = match &slot.home {
            Home::Parameter(cell) => {
                cell.accumulate(slot.offset, tensor.len(), add);
                return Ok(());
            }
            Home::Node { recording, index } => self.node(*recording, *index)?,
        };
        let shape = &self.shapes[node];
        let (device, dtype) = (tensor.device(), tensor.dtype());
        let sum = self.of_node[node].get_or_insert_with(|| Tensor::zeros_on(device, dtype, shape));
        sum.make_unique();
        // After make_unique this is the only handle.
        let view = sum.view_mut().expect("a unique sum");
        add(view.range(slot.offset..slot.offset + tensor.len()));
        Ok(())
    }
}
