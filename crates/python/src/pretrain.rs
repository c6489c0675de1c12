//! `saltworks.pretrain`: a whole run.

use crate::compute::on_threads;
use crate::errors::of_kind;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping};
use saltworks::failure::Failure;
use saltworks::recipe::{self, Recipe};
use saltworks::run::{self, RunTarget, recipe_for};
use saltworks::train::{StepReport, Stop};
use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

/// The signal number of Ctrl-C on all systems.
const SIGINT: i32 = 2;

/// How often Python is checked for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often a run checks for its callback's answer.
const ANSWER_EVERY: Duration = Duration::from_micros(100);

/// A stage, a report of its step, and the channel for the answer: whether to continue.
type StepMessage = (String, StepReport, Sender<bool>);

/// Trains and probes all stages of a recipe, like `saltworks pretrain`. The keys are in
/// crates/saltworks/src/recipe/schema.rs (`threads` is RAYON_NUM_THREADS here). `recipe` is a
/// dictionary of these keys, a TOML file or its text, or the path of images, for which a recipe is
/// chosen. None means the quickstart, or with `resume` the run's own recipe. `set` holds changes,
/// "key=value". With `resume`, an unfinished run in `out` is resumed. `callback(step)` gets a
/// dictionary of numbers after every step. If it raises, or on KeyboardInterrupt, the run ends
/// after a checkpoint. Returns {"out", "encoders", "probes"}.
#[pyfunction]
#[pyo3(signature = (recipe=None, *, out="runs/quickstart".into(), callback=None, set=None,
    resume=false, overwrite=false))]
pub(crate) fn pretrain<'py>(
    py: Python<'py>,
    recipe: Option<&Bound<'py, PyAny>>,
    out: PathBuf,
    callback: Option<&Bound<'py, PyAny>>,
    set: Option<&Bound<'py, PyAny>>,
    resume: bool,
    overwrite: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let own = resume.then(|| out.join("recipe.toml"));
    let set = set.map_or_else(|| Ok(Vec::new()), changes)?;
    let recipe = recipe_of(py, recipe, own, &set)?;
    let target = RunTarget { out, resume, overwrite };
    let stop = Stop::default();
    let (told, mut hear) = channel::<StepMessage>();
    let told = callback.is_some().then_some(told);
    let mut failed = None;
    let ended = thread::scope(|scope| {
        let run = scope.spawn(|| on_threads(|| run(&recipe, &target, &stop, told)));
        while !run.is_finished() {
            let heard;
            (hear, heard) = py.detach(|| {
                let heard = hear.recv_timeout(LOOK_EVERY);
                if matches!(heard, Err(RecvTimeoutError::Disconnected)) {
                    thread::sleep(LOOK_EVERY);
                }
                (hear, heard)
            });
            let answered = match (heard, callback) {
                (Ok(told), Some(callback)) => answer(callback, &told),
                _ => Ok(()),
            };
            if let Err(error) = answered.and_then(|()| py.check_signals()) {
                stop.ask(SIGINT);
                failed.get_or_insert(error);
            }
        }
        py.detach(|| run.join())
    });
    // Frees the run's memory, because it may not be needed again.
    engine::pool::release();
    match (failed, ended) {
        (Some(error), _) => Err(error),
        (None, Ok(ended)) => ended.and_then(|()| results(py, &recipe, &target.out)),
        (None, Err(_)) => Err(PyRuntimeError::new_err("the run panicked: a bug in saltworks")),
    }
}

/// Reads and checks a recipe.
fn recipe_of(
    py: Python<'_>,
    given: Option<&Bound<'_, PyAny>>,
    own: Option<PathBuf>,
    set: &[String],
) -> PyResult<Recipe> {
    let chosen = |path: Option<&Path>| {
        recipe_for(path, None, set, None).map(|chosen| chosen.recipe).map_err(failed)
    };
    let Some(given) = given else { return chosen(own.as_deref()) };
    if given.cast::<PyMapping>().is_ok() {
        let plain = py.import("saltworks._recipe")?;
        let text: String = plain.call_method1("as_json", (given,))?.extract()?;
        let keys = serde_json::from_str(&text)
            .map_err(|problem| PyValueError::new_err(format!("the recipe given: {problem}")))?;
        return recipe::from_json(&keys, set).map_err(asked);
    }
    match given.extract::<String>() {
        // No file has such a name.
        Ok(text) if text.contains('\n') => {
            recipe::from_text("the recipe given", &text, set).map_err(asked)
        }
        _ => chosen(Some(&given.extract::<PathBuf>()?)),
    }
}

/// `set`: a list of changes, or one change.
fn changes(set: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    match set.extract::<String>() {
        Ok(one) => Ok(vec![one]),
        Err(_) => set.extract(),
    }
}

/// A ValueError for a wrong argument.
fn asked(error: impl Error + 'static) -> PyErr {
    in_our_words(&error, PyValueError::new_err)
}

/// The library's errors name the program's options. Python's arguments have other names.
fn in_our_words(error: &(dyn Error + 'static), kind: fn(String) -> PyErr) -> PyErr {
    of_kind(error, kind, &our_words)
}

fn our_words(text: &str) -> String {
    const WORDS: [(&str, &str); 7] = [
        ("`saltworks pretrain --resume --out", "`saltworks.pretrain(resume=True) with out="),
        ("--resume --out", "resume=True with out"),
        ("--overwrite", "overwrite=True"),
        ("--resume", "resume=True"),
        ("--out", "out"),
        ("--set ", "set "),
        ("saltworks pretrain", "saltworks.pretrain"),
    ];
    WORDS.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// The run, on the engine's threads.
fn run(
    recipe: &Recipe,
    target: &RunTarget,
    stop: &Stop,
    told: Option<Sender<StepMessage>>,
) -> PyResult<()> {
    let done = run::pretrain(recipe, target, stop, &mut |stage, report| match &told {
        Some(told) if !goes_on(told, stage, report) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    done.map_err(failed)
}

fn failed(failure: Failure) -> PyErr {
    match failure {
        Failure::Input(error) => in_our_words(&*error, PyValueError::new_err),
        Failure::Run(error) => in_our_words(&*error, PyRuntimeError::new_err),
        Failure::Interrupted { text, .. } => PyKeyboardInterrupt::new_err(our_words(&text)),
    }
}

/// Reports a step and waits for the answer. The callback may need this thread to compute, so this
/// thread works while it waits.
fn goes_on(told: &Sender<StepMessage>, stage: &str, report: &StepReport) -> bool {
    let (answer, answered) = channel();
    if told.send((stage.to_owned(), *report, answer)).is_err() {
        return false;
    }
    loop {
        match answered.try_recv() {
            Ok(goes_on) => return goes_on,
            Err(TryRecvError::Disconnected) => return false,
            Err(TryRecvError::Empty) => {}
        }
        if rayon::yield_now() != Some(rayon::Yield::Executed) {
            thread::sleep(ANSWER_EVERY);
        }
    }
}

/// Calls the callback and answers the run.
fn answer(callback: &Bound<'_, PyAny>, (stage, report, answer): &StepMessage) -> PyResult<()> {
    let step = PyDict::new(callback.py());
    step.set_item("stage", stage)?;
    step.set_item("step", report.step)?;
    step.set_item("loss", report.loss)?;
    step.set_item("lr", report.lr)?;
    step.set_item("weight_decay", report.weight_decay)?;
    step.set_item("grad_norm", report.grad_norm)?;
    step.set_item("images", report.images)?;
    step.set_item("context_tokens", report.context_tokens)?;
    step.set_item("target_tokens", report.target_tokens)?;
    step.set_item("seconds", report.time.as_secs_f64())?;
    step.set_item("waited", report.waited.as_secs_f64())?;
    let called = callback.call1((step,));
    // A run that has already ended needs no answer.
    let _ = answer.send(called.is_ok());
    called.map(drop)
}

/// The results of a run.
fn results<'py>(py: Python<'py>, recipe: &Recipe, out: &Path) -> PyResult<Bound<'py, PyDict>> {
    let encoders = PyDict::new(py);
    for stage in &recipe.stage {
        encoders.set_item(&stage.name, out.join(&stage.name).join("encoder.safetensors"))?;
    }
    let probes = match std::fs::read_to_string(out.join("probes.json")) {
        Ok(text) => py.import("json")?.call_method1("loads", (text,))?,
        // No image was held out.
        Err(_) => PyList::empty(py).into_any(),
    };
    let made = PyDict::new(py);
    made.set_item("out", out)?;
    made.set_item("encoders", encoders)?;
    made.set_item("probes", probes)?;
    Ok(made)
}
