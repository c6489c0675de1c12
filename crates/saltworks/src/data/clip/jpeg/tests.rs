use super::*;
use crate::data::clip::region::{Extent, Region};
use crate::data::{Crop, Transform, decode};
use crate::data::{RawSample, StoredAs};
use crate::fuzz;
use crate::range::Range;
use engine::random::Random;
use fast_image_resize::Resizer;

/// Pillow's files of one picture, 61 x 70 (tests/golden/make_jpeg.py), by name.
const FILES: [(&str, &[u8]); 6] = [
    ("420", include_bytes!("../../../../../../tests/golden/jpeg_420.jpg")),
    ("420_restart", include_bytes!("../../../../../../tests/golden/jpeg_420_restart.jpg")),
    ("422", include_bytes!("../../../../../../tests/golden/jpeg_422.jpg")),
    ("444", include_bytes!("../../../../../../tests/golden/jpeg_444.jpg")),
    ("grey", include_bytes!("../../../../../../tests/golden/jpeg_grey.jpg")),
    ("rgb", include_bytes!("../../../../../../tests/golden/jpeg_rgb.jpg")),
];
const PROGRESSIVE: &[u8] = include_bytes!("../../../../../../tests/golden/jpeg_progressive.jpg");
const TURNED: &[u8] = include_bytes!("../../../../../../tests/golden/jpeg_turned.jpg");

fn stored(bytes: &[u8]) -> RawSample {
    let stored_as = StoredAs::File { bytes: bytes.to_vec(), decoding: [0; 3].into() };
    RawSample { stored_as, label: 3, name: "a.jpg".to_owned() }
}

/// The rows from `top` to `end`, all columns.
fn rows(top: usize, end: usize) -> impl FnOnce(Extent) -> Region {
    move |extent| Region { rows: top..end, ..Region::whole(extent) }
}

#[test]
fn upper_rows_have_the_bits_of_the_whole_image() {
    for (name, bytes) in FILES {
        let whole = decode(bytes, name, [0; 3]).unwrap();
        let header = JpegHeader::read(bytes).unwrap();
        assert_eq!((header.height, header.width), (70, 61), "{name}");
        for end in 1..=70 {
            let mut copy = bytes.to_vec();
            let part = header.decode(&mut copy, end).unwrap();
            assert_eq!(copy, bytes, "{name}: the file's bytes stay");
            assert!(part.height >= end && part.width == 61, "{name} {end}: {} rows", part.height);
            let end = end * 61 * part.channels;
            assert_eq!(part.data[..end], whole.data[..end], "{name}");
        }
        let upper = header.decode(&mut bytes.to_vec(), 1).unwrap();
        assert!(upper.height <= 32, "{name}: {} rows decoded for one", upper.height);
    }
}

#[test]
fn a_crop_chosen_before_decoding_gives_the_same_picture() {
    let crop = Crop::RandomResized { scale: Range::new(0.1, 0.6), ratio: Range::new(0.75, 1.33) };
    let transform = Transform { crop, flip: 0.5, ..Transform::center([20, 24]) };
    let mut resizer = Resizer::new();
    for (name, bytes) in FILES.into_iter().chain([("progressive", PROGRESSIVE), ("turned", TURNED)])
    {
        let whole = decode(bytes, name, [0; 3]).unwrap();
        for index in 0..50 {
            let [mut first, mut second] = [(); 2].map(|()| Random::new(0, "test", index));
            let wanted = transform.apply(&whole, &mut first, &mut resizer);
            let choose = |extent| transform.region(extent, &mut second);
            let (image, region) = stored(bytes).decode_part(choose).unwrap();
            let got = transform.show(&image, &region, &mut second, &mut resizer);
            assert_eq!(got, wanted, "{name} {index}");
        }
    }
}

#[test]
fn files_of_another_kind_are_decoded_whole() {
    for (bytes, size) in [(PROGRESSIVE, [70, 61]), (TURNED, [61, 70])] {
        assert_eq!(JpegHeader::read(bytes), None);
        let whole = decode(bytes, "a.jpg", [0; 3]).unwrap();
        let (image, region) = stored(bytes).decode_part(rows(0, 5)).unwrap();
        assert_eq!((image, region.rows.len()), (whole, 5));
        let mut seen = None;
        stored(bytes)
            .decode_part(|extent| {
                seen = Some(extent);
                rows(0, 1)(extent)
            })
            .unwrap();
        assert_eq!(seen, Some(Extent { frames: 1, height: size[0], width: size[1] }));
    }
    assert_eq!(JpegHeader::read(b"no JPEG"), None);
}

#[test]
fn a_cut_file_is_refused_even_if_the_missing_rows_are_not_needed() {
    let (_, bytes) = FILES[0];
    for kept in [bytes.len() - 1, bytes.len() * 3 / 4] {
        let message = stored(&bytes[..kept]).decode_part(rows(0, 1)).unwrap_err().to_string();
        assert!(message.starts_with("a.jpg: JPEG is cut off after"), "{message}");
    }
}

#[test]
fn no_changed_file_makes_the_decoder_panic() {
    for (name, bytes) in [FILES[0], FILES[1], FILES[4]] {
        fuzz::mutate(name, bytes, |input| {
            let upper = |extent: Extent| rows(0, extent.height.div_ceil(2))(extent);
            if let Ok((image, region)) = stored(input).decode_part(upper) {
                assert!(image.height >= region.rows.end && image.width == region.columns.end);
                assert_eq!(image.data.len(), image.height * image.width * image.channels);
            }
        });
    }
}
