//! The order of samples: (seed, epoch) -> permutation.

use engine::random::Random;

/// The order of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Every image once per epoch, without end. Each epoch has its own order.
    Shuffled {
        /// The seed of the orders.
        seed: u64,
    },
    /// The images in the source's order, once.
    Once,
}

/// The image of sample number i of a run, with epoch = i / len.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// How many times all images were seen before.
    pub epoch: u64,
    /// The image's number in the source.
    pub index: usize,
}

/// Looks up positions. Keeps the permutation of the last requested epoch.
#[derive(Debug)]
pub struct Sampler {
    len: usize,
    order: Order,
    epoch: Option<u64>,
    permutation: Vec<u32>,
}

impl Sampler {
    /// A sampler over `len` images, at least 1 and fewer than 2³².
    pub fn new(len: usize, order: Order) -> Self {
        assert!(len > 0 && u32::try_from(len).is_ok(), "a sampler over {len} images");
        Self { len, order, epoch: None, permutation: Vec::new() }
    }

    /// The position of sample number `sample` of the run. None after the end.
    pub fn position(&mut self, sample: u64) -> Option<Position> {
        let (epoch, offset) = (sample / self.len as u64, (sample % self.len as u64) as usize);
        match self.order {
            Order::Once => (epoch == 0).then_some(Position { epoch, index: offset }),
            Order::Shuffled { seed } => {
                self.shuffle(seed, epoch);
                Some(Position { epoch, index: self.permutation[offset] as usize })
            }
        }
    }

    fn shuffle(&mut self, seed: u64, epoch: u64) {
        if self.epoch == Some(epoch) {
            return;
        }
        self.permutation.clear();
        self.permutation.extend(0..self.len as u32);
        Random::new(seed, "order", epoch).shuffle(&mut self.permutation);
        self.epoch = Some(epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_sees_every_image_once_in_its_own_order() {
        let mut sampler = Sampler::new(10, Order::Shuffled { seed: 4 });
        let mut epoch = |epoch: u64| -> Vec<usize> {
            let samples = epoch * 10..(epoch + 1) * 10;
            samples.map(|sample| sampler.position(sample).unwrap().index).collect()
        };
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        assert_eq!(epoch(0), first);
        for mut order in [first, second] {
            order.sort_unstable();
            assert!(order.into_iter().eq(0..10));
        }
    }

    #[test]
    fn once_ends_after_the_last() {
        let mut sampler = Sampler::new(3, Order::Once);
        let indices: Vec<_> = (0..4).map(|i| sampler.position(i).map(|p| p.index)).collect();
        assert_eq!(indices, [Some(0), Some(1), Some(2), None]);
    }
}
