use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::data::{Clip, Crop, Sample, builtin, open};
use crate::range::Range;

fn options() -> LoaderOptions {
    let (scale, ratio) = (Range::new(0.3, 1.0), Range::new(0.75, 4.0 / 3.0));
    let transform = Transform {
        crop: Crop::RandomResized { scale, ratio },
        flip: 0.5,
        ..Transform::center([28, 28])
    };
    LoaderOptions {
        batch: 32,
        threads: 1,
        prefetch: 3,
        order: Order::Shuffled { seed: 1 },
        first_sample: 0,
        augment_seed: 2,
        transform,
        channels: 1,
        normalize: builtin::fashion_mnist_normalize(),
        max_unreadable: 0.0,
    }
}

fn fashion() -> Arc<dyn Source> {
    Arc::new(builtin::fashion_mnist().unwrap())
}

/// Bytes, labels and indices of the next batches.
fn batches(loader: &mut Loader, count: usize) -> Vec<(Vec<u8>, Vec<i32>, Vec<u64>)> {
    let batches = (0..count).map(|_| {
        let Batch { images, labels, indices, .. } = loader.next_batch().unwrap().unwrap().batch;
        (bytes(&images), labels, indices)
    });
    batches.collect()
}

/// The pixels of images. They are read by patchify with one patch per image, as normalised values,
/// and mapped back.
fn bytes(images: &Images) -> Vec<u8> {
    let [samples, channels, t, h, w] = images.shape();
    let tape = engine::Tape::inference();
    let all: Vec<u32> = (0..samples as u32).collect();
    let order = engine::ops::PatchOrder::ChannelsFirst;
    let rows = engine::ops::patchify(&tape, images, [t, h, w], order, &all).unwrap().to_vec();
    let normalize = builtin::fashion_mnist_normalize();
    let back = |(at, value): (usize, f32)| {
        let channel = at / (h * w) % channels % normalize.mean.len();
        ((value * normalize.std[channel] + normalize.mean[channel]) * 255.0).round() as u8
    };
    rows.into_iter().enumerate().map(back).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_batches() {
    let load = |threads, prefetch| {
        let options = LoaderOptions { threads, prefetch, ..options() };
        batches(&mut Loader::new(fashion(), options).unwrap(), 20)
    };
    let one = load(1, 1);
    assert_eq!(one, load(4, 5));
    assert_eq!(one, load(3, 2));
    assert_ne!(one[0], one[1]);
}

#[test]
fn a_resumed_run_gets_the_same_batches() {
    let all = batches(&mut Loader::new(fashion(), options()).unwrap(), 6);
    let later = LoaderOptions { first_sample: 4 * 32, ..options() };
    assert_eq!(batches(&mut Loader::new(fashion(), later).unwrap(), 2), all[4..]);
}

#[test]
fn an_image_is_augmented_differently_in_each_epoch() {
    let whole = LoaderOptions { batch: 10_000, ..options() };
    let mut loader = Loader::new(fashion(), whole).unwrap();
    let mut epochs = batches(&mut loader, 2).into_iter().map(|(bytes, labels, indices)| {
        let row = indices.iter().position(|&index| index == 7).unwrap();
        (bytes[row * 784..][..784].to_vec(), labels[row])
    });
    let (first, second) = (epochs.next().unwrap(), epochs.next().unwrap());
    assert_eq!(first.1, second.1);
    assert_ne!(first.0, second.0);
}

#[test]
fn once_gives_every_image_as_it_is_and_ends() {
    let source = fashion();
    let once = LoaderOptions {
        batch: 3000,
        order: Order::Once,
        transform: Transform::center([28, 28]),
        threads: 2,
        ..options()
    };
    let mut loader = Loader::new(Arc::clone(&source), once).unwrap();
    let batches = batches(&mut loader, 4);
    assert_eq!(batches[3].1.len(), 1000);
    assert!(batches.iter().flat_map(|batch| &batch.2).copied().eq(0..10_000));
    assert_eq!(batches[2].0[5 * 784..6 * 784], source.read(6005).unwrap().clip.data);
    assert!(loader.next_batch().unwrap().is_none());
    assert!(loader.next_batch().unwrap().is_none());
}

#[test]
fn folders_of_png_and_jpeg_load_with_their_labels() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("a/1.png", 10), ("a/2.jpg", 20), ("b/3.png", 30), ("b/4.JPEG", 40)] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(50, 40, image::Rgb([value; 3])).save(path).unwrap();
    }
    let source = open(folder.path(), [0; 3]).unwrap();
    let once = LoaderOptions {
        batch: 4,
        order: Order::Once,
        transform: Transform::center([16, 16]),
        ..options()
    };
    let [(bytes, labels, indices)] =
        batches(&mut Loader::new(source, once).unwrap(), 1).try_into().unwrap();
    assert_eq!((labels, indices), (vec![0, 0, 1, 1], vec![0, 1, 2, 3]));
    for (image, value) in bytes.chunks(256).zip([10, 20, 30, 40]) {
        assert!(image.iter().all(|&byte: &u8| byte.abs_diff(value) <= 2), "{image:?}");
    }
}

#[test]
fn a_bad_file_stops_the_loader_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..6 {
        let path = folder.path().join(format!("{index}.jpg"));
        image::RgbImage::from_pixel(50, 40, image::Rgb([9; 3])).save(&path).unwrap();
        if index == 3 {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 40).unwrap();
        }
    }
    let source = open(folder.path(), [0; 3]).unwrap();
    let once = LoaderOptions { batch: 1, order: Order::Once, threads: 2, ..options() };
    let mut loader = Loader::new(source, once).unwrap();
    batches(&mut loader, 3);
    let message = loader.next_batch().err().unwrap().to_string();
    assert!(message.contains("3.jpg: JPEG is cut off after"), "{message}");
    assert!(loader.next_batch().unwrap().is_none());
}

/// Counts reads, or panics.
struct Counting {
    reads: AtomicUsize,
    panics: bool,
}

impl Source for Counting {
    fn len(&self) -> usize {
        1000
    }

    fn read(&self, index: usize) -> Result<Sample> {
        assert!(!self.panics, "a panic made by a test");
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(Sample {
            clip: Clip::image(8, 8, 3, vec![0; 8 * 8 * 3]),
            label: -1,
            name: index.to_string(),
        })
    }

    fn label(&self, _: usize) -> i32 {
        -1
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn describe(&self) -> String {
        "counted images".to_owned()
    }
}

#[test]
fn no_more_than_the_prefetched_batches_are_read_ahead() {
    let source = Arc::new(Counting { reads: AtomicUsize::new(0), panics: false });
    let few = LoaderOptions { batch: 10, threads: 4, prefetch: 2, ..options() };
    let mut loader = Loader::new(Arc::clone(&source) as Arc<dyn Source>, few).unwrap();
    loader.next_batch().unwrap().unwrap();
    // Time for threads that did not stop at the bound to read more.
    thread::sleep(Duration::from_millis(100));
    assert!(source.reads.load(Ordering::SeqCst) <= 30);
    drop(loader);
    assert_eq!(Arc::strong_count(&source), 1);
}

#[test]
fn a_panic_of_a_thread_reaches_the_reader() {
    let source = Arc::new(Counting { reads: AtomicUsize::new(0), panics: true });
    let mut loader = Loader::new(source, options()).unwrap();
    assert!(matches!(loader.next_batch(), Err(Error::Worker)));
}

#[test]
fn settings_out_of_range_are_named() {
    let message = |options| Loader::new(fashion(), options).err().unwrap().to_string();
    assert!(message(LoaderOptions { batch: 0, ..options() }).contains("batch is 0"));
    assert!(message(LoaderOptions { channels: 300, ..options() }).contains("channels is 300"));
    let colour = LoaderOptions { channels: 3, ..options() };
    assert!(message(colour).contains("expected 3 values, one per channel"));
    assert!(open(Path::new("missing"), [0; 3]).is_err());
}

/// Images whose shade is their number. Some cannot be read.
struct Broken(&'static [usize]);

impl Source for Broken {
    fn len(&self) -> usize {
        100
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let name = index.to_string();
        if self.0.contains(&index) {
            return Err(Error::Image { name, problem: "is broken".to_owned() });
        }
        let clip = Clip::image(28, 28, 1, vec![index as u8; 28 * 28]);
        Ok(Sample { clip, label: index as i32, name })
    }

    fn label(&self, index: usize) -> i32 {
        index as i32
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn describe(&self) -> String {
        "a hundred images".to_owned()
    }
}

#[test]
fn the_next_image_replaces_one_that_cannot_be_read() {
    for threads in [1, 3] {
        let max_unreadable = 0.03;
        let order = Order::Once;
        let options = LoaderOptions { batch: 50, threads, max_unreadable, order, ..options() };
        let mut loader = Loader::new(Arc::new(Broken(&[7, 8, 99])), options).unwrap();
        let [first, last] = [0, 1].map(|_| loader.next_batch().unwrap().unwrap().batch);
        assert_eq!(first.labels[6..10], [6, 9, 9, 9]);
        assert_eq!(bytes(&first.images)[7 * 28 * 28], 9);
        assert_eq!(first.indices[7], 7);
        assert_eq!(last.labels[49], 0, "after the last comes the first");
        let names = |batch: &Batch| -> Vec<_> {
            batch.unreadable.iter().map(|image| (image.index, image.problem.clone())).collect()
        };
        let broken =
            |index: usize| (index, format!("{index}: is broken. Replace or remove the file"));
        assert_eq!(names(&first), [broken(7), broken(8), broken(8)]);
        assert_eq!(names(&last), [broken(99)]);
    }
}

#[test]
fn unreadable_images_stay_black_if_nothing_may_replace_them() {
    let (batch, order, max_unreadable) = (100, Order::Once, 1.0);
    let options = LoaderOptions { batch, order, max_unreadable, ..options() };
    let mut loader = Loader::leaving_blank(Arc::new(Broken(&[7, 8, 99])), options).unwrap();
    let batch = loader.next_batch().unwrap().unwrap().batch;
    let index = batch.unreadable.iter().map(|image| image.index);
    assert_eq!(index.collect::<Vec<_>>(), [7, 8, 99], "each once");
    assert!(bytes(&batch.images)[7 * 28 * 28..9 * 28 * 28].iter().all(|&value| value == 0));
    assert_eq!(batch.labels[6..10], [6, 7, 8, 9]);
}

#[test]
fn too_many_unreadable_images_end_at_the_same_batch_for_any_number_of_threads() {
    for threads in [1, 4] {
        let (order, max_unreadable) = (Order::Once, 0.011);
        let options = LoaderOptions { batch: 10, threads, max_unreadable, order, ..options() };
        let mut loader = Loader::new(Arc::new(Broken(&[3, 35, 36, 77])), options).unwrap();
        let whole = (0..3).filter(|_| loader.next_batch().unwrap().is_some()).count();
        assert_eq!(whole, 3);
        let message = loader.next_batch().err().unwrap().to_string();
        let words = [
            "3 of 100 images cannot be read, expected at most 2",
            "\n  3: is broken",
            "\n  35: is broken",
            "raise data.max_unreadable",
        ];
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert!(loader.next_batch().unwrap().is_none());
    }
}

#[test]
fn a_source_without_readable_images_is_an_error() {
    static ALL: [usize; 100] = {
        let mut all = [0; 100];
        let mut index = 0;
        while index < 100 {
            all[index] = index;
            index += 1;
        }
        all
    };
    let options = LoaderOptions { max_unreadable: 1.0, ..options() };
    let mut loader = Loader::new(Arc::new(Broken(&ALL)), options).unwrap();
    assert!(loader.next_batch().err().unwrap().to_string().contains("is broken"));
}

#[test]
fn patches_of_an_image_that_is_not_square_count_along_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    // 3 rows of 10 patches of 8 x 4 pixels. The shade is ten times the row plus the column.
    let shade = |x: u32, y: u32| image::Luma([(10 * (y / 8) + x / 4) as u8]);
    image::GrayImage::from_fn(40, 24, shade).save(folder.path().join("1.png")).unwrap();
    let transform = Transform::center([24, 40]);
    let once = LoaderOptions { batch: 1, order: Order::Once, transform, ..options() };
    let mut loader = Loader::new(open(folder.path(), [0; 3]).unwrap(), once).unwrap();
    let images = loader.next_batch().unwrap().unwrap().batch.images;
    assert_eq!(images.shape(), [1, 1, 1, 24, 40]);
    let (tape, order) = (engine::Tape::inference(), engine::ops::PatchOrder::ChannelsFirst);
    let all: Vec<u32> = (0..30).collect();
    let rows = engine::ops::patchify(&tape, &images, [1, 8, 4], order, &all).unwrap().to_vec();
    let builtin = builtin::fashion_mnist_normalize();
    let shade = |value: f32| ((value * builtin.std[0] + builtin.mean[0]) * 255.0).round();
    for (patch, row) in rows.chunks_exact(32).enumerate() {
        assert!(row.iter().all(|&value| shade(value) == patch as f32), "{patch}: {row:?}");
    }
}

/// Clips of 5 frames, each of one shade: ten times the clip's number plus the frame's.
struct Shades;

impl Source for Shades {
    fn len(&self) -> usize {
        10
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let data = (0..5).flat_map(|frame| vec![(10 * index + frame) as u8; 6 * 8]).collect();
        let clip = Clip { frames: 5, ..Clip::image(6, 8, 1, data) };
        Ok(Sample { clip, label: -1, name: index.to_string() })
    }

    fn label(&self, _: usize) -> i32 {
        -1
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn describe(&self) -> String {
        "shades".to_owned()
    }
}

#[test]
fn clips_come_frame_by_frame_within_a_channel() {
    let transform = Transform { frames: 3, ..Transform::center([4, 4]) };
    let normalize = Normalize::imagenet();
    let once = LoaderOptions { batch: 10, order: Order::Once, transform, ..options() };
    let once = LoaderOptions { channels: 3, normalize, ..once };
    let batch = Loader::new(Arc::new(Shades), once).unwrap().next_batch().unwrap().unwrap().batch;
    assert_eq!(batch.images.shape(), [10, 3, 3, 4, 4]);
    let tape = engine::Tape::inference();
    let order = engine::ops::PatchOrder::ChannelsFirst;
    let patches: Vec<u32> = (0..30).collect();
    // A patch is a frame, whose shade occurs three times.
    let rows = engine::ops::patchify(&tape, &batch.images, [1, 4, 4], order, &patches).unwrap();
    let red = |value: f32| ((value * 0.229 + 0.485) * 255.0).round() as usize;
    let shades: Vec<_> = rows.to_vec().chunks_exact(48).map(|frame| red(frame[0])).collect();
    let wanted: Vec<_> = (0..10).flat_map(|clip| (1..4).map(move |t| 10 * clip + t)).collect();
    assert_eq!(shades, wanted);
}
