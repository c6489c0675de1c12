//! Computes without Python's lock, one call at a time per model.

use crate::errors::{raised, refused};
use engine::{InputGradient, Parameter, Result, Tape, Tensor};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// The process that started the engine's threads.
static HOME: OnceLock<u32> = OnceLock::new();

/// Refuses to compute in a child of a process that had computed, because it would wait forever.
pub(crate) fn not_forked() -> PyResult<()> {
    match HOME.get() {
        Some(&home) if home != process::id() => Err(PyRuntimeError::new_err(
            "this process was forked after saltworks had been used, and has no engine threads. \
             Start processes with spawn (multiprocessing_context=\"spawn\")",
        )),
        _ => Ok(()),
    }
}

/// Runs `work` on the engine's threads with Python's lock released. The first call starts the
/// threads (`RAYON_NUM_THREADS`, else one for each core).
pub(crate) fn compute<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(|| on_threads(work))
}

/// Runs `work` on the engine's threads. If called from outside, every operation would wait twice
/// for the kernel.
pub(crate) fn on_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    HOME.get_or_init(process::id);
    rayon::scope(|_| work())
}

/// A recording that waits for its backward pass.
pub(crate) enum Recording {
    /// The tape and its results.
    Ready(Box<(Tape, Results)>),
    /// The gradients were computed.
    Walked,
    /// The weights have changed since the recording.
    Stale,
    /// Nothing was recorded.
    None,
}

/// The results of a recording, which a backward pass starts from, and the inputs that get a
/// gradient.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) results: Vec<Tensor>,
    pub(crate) inputs: Vec<InputGradient>,
}

impl Results {
    /// The results of a model whose inputs get no gradient.
    pub(crate) fn of(results: impl IntoIterator<Item = Tensor>) -> Self {
        Self { results: results.into_iter().collect(), inputs: Vec::new() }
    }

    /// The backward pass. `gradients` has the gradient of each result, or none. Returns those of
    /// the inputs.
    fn backward(self, tape: &Tape, gradients: Vec<Option<Vec<f32>>>) -> Result<InputGradients> {
        let given = self.results.iter().zip(gradients);
        let given = given.filter_map(|(result, gradient)| {
            Some((result, Tensor::from_vec(gradient?, result.shape())))
        });
        tape.backward_from(given)?;
        Ok(self.inputs.iter().map(|input| input.take().map(|dx| dx.to_vec())).collect())
    }
}

/// The gradient of each input, if a result depends on it.
pub(crate) type InputGradients = Vec<Option<Vec<f32>>>;

/// A recording. An output holds it, and its model has a weak reference to it.
pub(crate) type Shared = Arc<Mutex<Recording>>;

/// Ensures that only one call at a time uses a model. Every call that computes with its weights or
/// changes them holds it. It is taken with Python's lock released, before the engine's threads.
/// Otherwise these threads could start a second call inside the first.
#[derive(Default)]
pub(crate) struct Turn(Mutex<Vec<Weak<Mutex<Recording>>>>);

/// A model in use, and its recordings.
pub(crate) type TurnGuard<'a> = MutexGuard<'a, Vec<Weak<Mutex<Recording>>>>;

impl Turn {
    /// Waits for the model. Python's lock is released.
    pub(crate) fn take(&self) -> TurnGuard<'_> {
        // A panic leaves no partial change behind this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in a turn of the model.
    pub(crate) fn compute<T: Send>(&self, py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
        py.detach(|| {
            let _held = self.take();
            on_threads(work)
        })
    }

    /// Runs `work`, which records results, in a turn of the model. `keep`: whether the recording is
    /// for a backward pass.
    pub(crate) fn record<T: Send>(
        self: &Arc<Self>,
        py: Python<'_>,
        keep: bool,
        work: impl FnOnce(&Tape) -> Result<(T, Results)> + Send,
    ) -> PyResult<(T, Recorded)> {
        not_forked()?;
        let done = py.detach(|| {
            let mut held = self.take();
            let (made, recording) = on_threads(|| {
                let tape = if keep { Tape::new() } else { Tape::inference() };
                let (made, results) = work(&tape)?;
                let ready = || Recording::Ready(Box::new((tape, results)));
                let recording = if keep { ready() } else { Recording::None };
                Ok((made, Arc::new(Mutex::new(recording))))
            })?;
            held.retain(|known| known.strong_count() > 0);
            held.push(Arc::downgrade(&recording));
            Ok((made, Recorded(Some((self.clone(), recording)))))
        });
        done.map_err(|error: engine::Error| raised(error))
    }

    /// The backward pass from the recorded results with these gradients.
    fn backward(
        &self,
        py: Python<'_>,
        recording: &Shared,
        gradients: Vec<Option<Vec<f32>>>,
    ) -> PyResult<InputGradients> {
        not_forked()?;
        let walked = py.detach(|| {
            let _held = self.take();
            let mut recording = lock(recording);
            let next = match *recording {
                Recording::Stale => Recording::Stale,
                _ => Recording::Walked,
            };
            match std::mem::replace(&mut *recording, next) {
                Recording::Ready(recorded) => {
                    let (tape, results) = *recorded;
                    Ok(on_threads(move || results.backward(&tape, gradients)))
                }
                other => Err(other),
            }
        });
        match walked {
            Ok(result) => result.map_err(raised),
            Err(Recording::Stale) => Err(refused(
                "backward: the weights were changed after this forward pass. Call backward before \
                 the optimizer's step or load_state_dict, or call the model again",
            )),
            Err(Recording::None) => Err(refused(
                "backward: nothing was recorded. Call the model in training mode, with record=True",
            )),
            Err(_) => Err(refused(
                "backward: this output's gradients were already computed. Call the model again",
            )),
        }
    }
}

/// The recording of an output and its model. None in eval mode.
pub(crate) struct Recorded(Option<(Arc<Turn>, Shared)>);

impl Recorded {
    /// For an output in eval mode.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// The backward pass from the results with these gradients, each of the size of its result.
    pub(crate) fn backward(
        &self,
        py: Python<'_>,
        gradients: Vec<Option<Vec<f32>>>,
    ) -> PyResult<InputGradients> {
        match &self.0 {
            Some((turn, recording)) => turn.backward(py, recording, gradients),
            None => {
                Err(refused("backward: an output of eval mode has no loss. Call train() first"))
            }
        }
    }
}

/// Drops the recordings before the weights change. Their tapes hold these weights. Gradients of old
/// losses at new weights would be wrong for both.
pub(crate) fn forget_recordings(held: &mut TurnGuard<'_>) {
    for recording in held.drain(..).filter_map(|known| known.upgrade()) {
        let mut recording = lock(&recording);
        if matches!(*recording, Recording::Ready(_)) {
            *recording = Recording::Stale;
        }
    }
}

fn lock(recording: &Shared) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes weights of one model by `change`, in a turn of the model.
pub(crate) fn change<T: Send>(py: Python<'_>, turn: &Turn, change: impl FnOnce() -> T + Send) -> T {
    py.detach(|| {
        let mut held = turn.take();
        forget_recordings(&mut held);
        on_threads(change)
    })
}

/// Parameters with their names.
pub(crate) type NamedParameters = Vec<(String, Parameter)>;
