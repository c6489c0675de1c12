//! Images that are too large to decode, or much larger than a model needs, found by their headers.

use crate::console::seconds_text;
use crate::data::{Source, Survey};
use crate::recipe::{Data, ImageSize};
use std::time::Duration;

/// Headers that are read before a run begins, and the time for them. (guess)
const MOST_HEADERS: usize = 2000;
const HEADERS_TIME: Duration = Duration::from_secs(2);

/// An image with this many times the model's pixels is worth resizing. (guess)
const MUCH_LARGER: f64 = 16.0;

/// Images that decode faster are not worth a word. (guess)
const SLOW_SECONDS: f64 = 0.01;

/// Pixels that one thread decodes in a second. (measured: 2026-11-30, one thread of a Zen 3,
/// `saltworks bench data`, JPEGs of 12 megapixels. PNGs reach 26 million.)
const PIXELS_PER_SECOND: f64 = 7e7;

/// What a run should know about the sizes of its images before it begins.
pub(crate) fn size_doubts(source: &dyn Source, data: &Data) -> Vec<String> {
    // Headers in a store are not read ahead: each would be a request for a whole image.
    if source.requests() > 1 {
        return Vec::new();
    }
    let survey = Survey::of_some(source, MOST_HEADERS, HEADERS_TIME);
    size_notes(&survey, source.len(), data.size, data.threads)
}

/// What a survey says about the sizes of `images` images for a model that sees `size`.
pub(crate) fn size_notes(
    survey: &Survey,
    images: usize,
    size: ImageSize,
    threads: usize,
) -> Vec<String> {
    let (known, mut notes) = (survey.heights.len(), Vec::new());
    let read = known + survey.unreadable;
    if survey.too_large > 0 {
        let names = survey.names_too_large.join(", ");
        let more = if survey.too_large > survey.names_too_large.len() { ", ..." } else { "" };
        let of = if read == images { "images" } else { "images whose headers were read" };
        notes.push(format!(
            "{} of {read} {of} need too much memory to decode: {names}{more}. They count as \
             unreadable and are left out. Resize them once to keep them",
            survey.too_large
        ));
    }
    if survey.cut > 0 {
        let names = survey.names_cut.join(", ");
        let more = if survey.cut > survey.names_cut.len() { ", ..." } else { "" };
        notes.push(format!(
            "{} of {read} images whose headers were read are JPEGs that are cut off: \
             {names}{more}. They are kept, and what is missing is grey",
            survey.cut
        ));
    }
    if survey.several > 0 {
        let names = survey.names_several.join(", ");
        let more = if survey.several > survey.names_several.len() { ", ..." } else { "" };
        notes.push(format!(
            "{} of {read} images whose headers were read are files with several frames or pages: \
             {names}{more}. The first of each is read. Split them to train on all",
            survey.several
        ));
    }
    let pixels = survey.pixels as f64 / known.max(1) as f64;
    let times = pixels / (size.height * size.width) as f64;
    let seconds = pixels / PIXELS_PER_SECOND;
    if times > MUCH_LARGER && seconds > SLOW_SECONDS {
        let ImageSize { height, width } = size;
        let pass = seconds_text(seconds * images as f64 / threads.max(1) as f64);
        notes.push(format!(
            "images have {:.1} megapixels on average, {times:.0} times {height} x {width}. Each \
             pass decodes them again, about {pass} or more with data.threads = {threads}. Resize \
             them once to about twice the model's size, or raise data.threads",
            pixels / 1e6
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(images: usize, pixels: u64) -> Survey {
        let sides = vec![1; images];
        let pixels = pixels * images as u64;
        Survey { heights: sides.clone(), widths: sides, pixels, ..Survey::default() }
    }

    fn notes(survey: &Survey, images: usize) -> String {
        size_notes(survey, images, ImageSize::square(224), 2).join("\n")
    }

    #[test]
    fn photographs_of_usual_size_are_not_worth_a_word() {
        for pixels in [0, 50_000, 500 * 375, 800_000] {
            assert_eq!(notes(&survey(10, pixels), 10), "");
        }
    }

    #[test]
    fn images_much_larger_than_the_model_are_reported_with_the_time_of_a_pass() {
        // 140 megapixels take two seconds, and two threads share 3,000 of them.
        let text = notes(&survey(100, 140_000_000), 3000);
        for words in ["140.0 megapixels on average, 2790 times 224 x 224", "about 50 min"] {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
    }

    #[test]
    fn images_that_take_too_much_memory_are_counted_and_named() {
        let names_too_large = vec!["a.png".to_owned(), "b.png".to_owned()];
        let mut found = survey(7, 1000);
        (found.unreadable, found.too_large, found.names_too_large) = (3, 3, names_too_large);
        let text = notes(&found, 10);
        assert!(text.starts_with("3 of 10 images need too much memory"), "{text}");
        assert!(text.contains("a.png, b.png, ...") && text.contains("Resize them once"), "{text}");
        let some = notes(&found, 5000);
        assert!(some.starts_with("3 of 10 images whose headers were read need"), "{some}");
    }
}
