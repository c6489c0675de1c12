//! Tokens of a frozen encoder for the attentive probe: stored if they fit, else computed each time.

use super::{Subject, blank_loader, none_readable};
use crate::console::{Count, note};
use crate::data::{Part, Source, Unreadable};
use crate::eval::{self, TokenBatch, Tokens};
use crate::failure::{Failure, input_error, loading, run_error};
use crate::model::{Outputs, Patches};
use crate::train::Stop;
use engine::{Segments, Tape, Tensor};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Gets tokens [B N, D], classes [B], and which of the images could not be read [B].
type Each<'a> = dyn FnMut(&Tensor, &[u32], &[bool]) -> Result<(), Failure> + 'a;

/// The images of one set and their tokens.
pub(crate) struct FrozenTokens<'a> {
    subject: &'a Subject,
    source: Arc<dyn Source>,
    labels: Vec<u32>,
    stop: &'a Stop,
    /// [B, N, D], if they fit.
    kept: Option<StoredTokens>,
    /// Images that could not be read.
    pub(crate) unreadable: Vec<Unreadable>,
}

/// The tokens of all images.
struct StoredTokens {
    /// [B, N, D]
    values: Vec<f32>,
    /// Which could not be read [B].
    unreadable: Vec<bool>,
}

impl<'a> FrozenTokens<'a> {
    /// The images of a source. Tokens are kept if they take `most_bytes` or less.
    pub(crate) fn new(
        subject: &'a Subject,
        source: &Arc<dyn Source>,
        most_bytes: u64,
        stop: &'a Stop,
    ) -> Result<Self, Failure> {
        let (source, unreadable) = (source.clone(), Vec::new());
        let labels = (0..source.len()).map(|i| source.label(i) as u32).collect();
        let mut tokens = Self { subject, source, labels, stop, kept: None, unreadable };
        let bytes = (tokens.labels.len() * tokens.image_values() * 4) as u64;
        if bytes > most_bytes {
            let mib = bytes >> 20;
            note(&format!(
                "tokens of {} images would take {mib} MiB, so they are computed again each epoch. \
                 --token-memory raises the limit",
                tokens.labels.len()
            ));
            return Ok(tokens);
        }
        tokens.keep()?;
        Ok(tokens)
    }

    /// N D of an image.
    fn image_values(&self) -> usize {
        let spec = self.subject.encoder().0.spec();
        (spec.prefix() + spec.grid().len()) * spec.width
    }

    /// Computes and stores all tokens.
    fn keep(&mut self) -> Result<(), Failure> {
        let mut values = Vec::with_capacity(self.labels.len() * self.image_values());
        let mut unreadable = Vec::with_capacity(self.labels.len());
        let mut count = Count::new(self.labels.len());
        let order: Vec<usize> = (0..self.labels.len()).collect();
        self.encode(&order, &mut |tokens, read, which| {
            count.add(read.len());
            values.extend_from_slice(&tokens.to_host());
            unreadable.extend_from_slice(which);
            Ok(())
        })?;
        count.finish();
        if unreadable.iter().all(|unreadable| *unreadable) {
            return Err(none_readable(self.source.as_ref(), &self.unreadable));
        }
        self.kept = Some(StoredTokens { values, unreadable });
        Ok(())
    }

    /// Calls `each` with the images in this order, one loader batch at a time.
    fn encode(&mut self, order: &[usize], each: &mut Each<'_>) -> Result<(), Failure> {
        let part = Part::new(self.source.clone(), order.to_vec(), "in order");
        let data = &self.subject.recipe.data;
        let part: Arc<dyn Source> = Arc::new(part);
        let mut loader = blank_loader(data, data.size, &part)?;
        let mut first = 0;
        while let Some(loaded) = loader.next_batch().map_err(loading)? {
            if self.stop.signal().is_some() {
                return Err(eval::Error::Stopped.into());
            }
            let batch = loaded.batch;
            let bad: BTreeSet<usize> = batch.unreadable.iter().map(|image| image.index).collect();
            let unreadable: Vec<bool> =
                (first..first + batch.labels.len()).map(|index| bad.contains(&index)).collect();
            first += batch.labels.len();
            self.unreadable.extend(batch.unreadable);
            let (tape, (encoder, _)) = (Tape::inference(), self.subject.encoder());
            let encoded = encoder.forward(&tape, &batch.images, Patches::All, Outputs::All, None);
            let labels: Vec<u32> = batch.labels.iter().map(|&label| label as u32).collect();
            each(&encoded.map_err(run_error)?.tokens, &labels, &unreadable)?;
        }
        Ok(())
    }
}

impl Tokens for FrozenTokens<'_> {
    type Error = Failure;

    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn width(&self) -> usize {
        self.subject.encoder().0.spec().width
    }

    fn heads(&self) -> usize {
        self.subject.encoder().0.spec().heads
    }

    fn read(
        &mut self,
        order: &[usize],
        batch: usize,
        each: &mut dyn FnMut(&TokenBatch) -> eval::Result<()>,
    ) -> Result<(), Failure> {
        let (size, width) = (self.image_values(), self.width());
        let made = |values: &[f32], labels: &[u32]| TokenBatch {
            tokens: Tensor::from_vec(values, &[values.len() / width, width]),
            segments: Segments::uniform(labels.len(), size / width),
            labels: labels.to_vec(),
        };
        if let Some(StoredTokens { values, unreadable }) = &self.kept {
            let order: Vec<usize> = order.iter().copied().filter(|&i| !unreadable[i]).collect();
            for images in order.chunks(batch) {
                let values: Vec<f32> = images
                    .iter()
                    .flat_map(|&i| &values[i * size..(i + 1) * size])
                    .copied()
                    .collect();
                let labels: Vec<u32> = images.iter().map(|&i| self.labels[i]).collect();
                each(&made(&values, &labels))?;
            }
            return Ok(());
        }
        // A loader batch and the batch of a step may differ in size.
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        self.encode(order, &mut |tokens, read, unreadable| {
            let tokens = tokens.to_host();
            let images = tokens.chunks_exact(size).zip(read).zip(unreadable);
            for ((image, label), _) in images.filter(|(_, unreadable)| !**unreadable) {
                values.extend_from_slice(image);
                labels.push(*label);
            }
            while labels.len() >= batch {
                each(&made(&values[..batch * size], &labels[..batch]))?;
                values.drain(..batch * size);
                labels.drain(..batch);
            }
            Ok(())
        })?;
        if !labels.is_empty() {
            each(&made(&values, &labels))?;
        }
        Ok(())
    }
}

impl From<eval::Error> for Failure {
    fn from(error: eval::Error) -> Self {
        use eval::Error as E;
        match error {
            E::Stopped => {
                Self::Interrupted { signal: 0, text: "interrupted; nothing was written".to_owned() }
            }
            E::NotFinite { .. } | E::Diverged | E::Engine(_) => run_error(error),
            _ => input_error(error),
        }
    }
}
