use super::*;
use crate::data::clip::decode::info;
use crate::data::{Decoding, decode};

/// What a file states of its numbers.
#[derive(Clone, Copy)]
struct Stated {
    photometric: u16,
    bands: u16,
    bits: u16,
    /// 1 unsigned, 2 signed, 3 floating-point.
    format: u16,
    /// What the first band beyond grey or colours is. None without such a band.
    extra: Option<u16>,
    /// One band after the other.
    planar: bool,
    /// Which sides of the image the first row and column are. None if the file does not say.
    orientation: Option<u16>,
}

const BYTES: Stated = Stated {
    photometric: RGB,
    bands: 12,
    bits: 8,
    format: UNSIGNED,
    extra: Some(0),
    planar: false,
    orientation: None,
};

/// A little-endian file of 3 x 2 pixels, uncompressed (TIFF 6.0, section 2).
fn tiff(stated: Stated, numbers: &[u8]) -> Vec<u8> {
    let Stated { photometric, bands, bits, format, extra, planar, orientation } = stated;
    let base = if photometric == RGB { 3 } else { 1 };
    let extras = extra.map_or(Vec::new(), |first| {
        let mut kinds = vec![0_u32; usize::from(bands - base)];
        kinds[0] = first.into();
        kinds
    });
    let strips = if planar { bands } else { 1 };
    let strip = (numbers.len() / usize::from(strips)) as u32;
    let mut tags: Vec<(u16, Vec<u32>)> = vec![
        (256, vec![3]),
        (257, vec![2]),
        (258, vec![bits.into(); bands.into()]),
        (259, vec![1]),
        (262, vec![photometric.into()]),
        (273, Vec::new()),
        (274, orientation.into_iter().map(u32::from).collect()),
        (277, vec![bands.into()]),
        (278, vec![2]),
        (279, vec![strip; strips.into()]),
        (284, vec![if planar { 2 } else { 1 }]),
        (338, extras),
        (339, vec![format.into(); bands.into()]),
    ];
    tags.retain(|(tag, values)| *tag == 273 || !values.is_empty());
    let mut far = 8 + 2 + 12 * tags.len() + 4;
    let begin = far + 4 * tags.iter().map(|(_, values)| values.len()).sum::<usize>() + 4 * 256;
    for (tag, values) in &mut tags {
        if *tag == 273 {
            *values = (0..strips).map(|n| begin as u32 + u32::from(n) * strip).collect();
        }
    }
    let mut file =
        [&b"II*\0"[..], &8_u32.to_le_bytes(), &(tags.len() as u16).to_le_bytes()].concat();
    let mut values_behind = Vec::new();
    for (tag, values) in &tags {
        // Places are of 32 bits, all other numbers of 16.
        let size = if [273, 279].contains(tag) { 4 } else { 2 };
        let bytes = |value: &u32| value.to_le_bytes().into_iter().take(size);
        let mut values_here: Vec<u8> = values.iter().flat_map(bytes).collect();
        file.extend(tag.to_le_bytes());
        file.extend((size as u16 / 2 + 2).to_le_bytes());
        file.extend((values.len() as u32).to_le_bytes());
        if values_here.len() > 4 {
            file.extend((far as u32).to_le_bytes());
            far += values_here.len();
            values_behind.extend(values_here);
        } else {
            values_here.resize(4, 0);
            file.extend(values_here);
        }
    }
    file.extend([0; 4]);
    file.extend(values_behind);
    file.resize(begin, 0);
    file.extend(numbers);
    file
}

#[test]
fn twelve_bands_are_all_read_not_the_first_three() {
    let numbers: Vec<u8> = (0..72).collect();
    for photometric in [BLACK_IS_ZERO, RGB] {
        let file = tiff(Stated { photometric, ..BYTES }, &numbers);
        let clip = decode(&file, "a.tif", [0; 3]).unwrap();
        assert_eq!((clip.height, clip.width, clip.channels), (2, 3, 12));
        assert_eq!(clip.data, numbers);
        let info = info(&file, "a.tif", Decoding::default()).unwrap();
        assert_eq!((info.height, info.width, info.channels, info.is_deep), (2, 3, 12, false));
    }
}

#[test]
fn an_orientation_turns_the_sides_that_are_stated_and_those_that_are_decoded() {
    for orientation in 1..=8 {
        let stated = Stated { orientation: Some(orientation), ..BYTES };
        let file = tiff(stated, &(0..72).collect::<Vec<u8>>());
        // From 5 on, rows are shown as columns (TIFF 6.0, section 8).
        let sides = if orientation < 5 { (2, 3) } else { (3, 2) };
        let clip = decode(&file, "a.tif", [0; 3]).unwrap();
        assert_eq!((clip.height, clip.width), sides, "{orientation}");
        let info = info(&file, "a.tif", Decoding::default()).unwrap();
        assert_eq!((info.height, info.width), sides, "{orientation}");
    }
}

#[test]
fn bands_one_after_the_other_are_joined() {
    let planes: Vec<u8> = (0..12).flat_map(|band| (0..6).map(move |at| at * 12 + band)).collect();
    let file = tiff(Stated { planar: true, ..BYTES }, &planes);
    assert_eq!(decode(&file, "a.tif", [0; 3]).unwrap().data, (0..72).collect::<Vec<u8>>());
}

#[test]
fn four_bands_are_four_unless_the_fourth_is_transparency() {
    let numbers: Vec<u8> = (0..24).collect();
    let four = Stated { bands: 4, ..BYTES };
    let clip = decode(&tiff(four, &numbers), "a.tif", [0; 3]).unwrap();
    assert_eq!((clip.channels, clip.data), (4, numbers.clone()));
    let alpha = Stated { extra: Some(UNASSOCIATED_ALPHA), ..four };
    let clip = decode(&tiff(alpha, &numbers), "a.tif", [0; 3]).unwrap();
    assert_eq!(clip.channels, 3);
    let grey = Stated { photometric: BLACK_IS_ZERO, bands: 2, ..alpha };
    let clip = decode(&tiff(grey, &[200, 128, 9, 0, 80, 255, 0, 0, 0, 0, 0, 0]), "a", [0; 3]);
    let clip = clip.unwrap();
    assert_eq!((clip.channels, &clip.data[..3]), (1, &[100, 0, 80][..]));
    let red = decode(&tiff(grey, &[200, 128, 9, 0, 80, 255, 0, 0, 0, 0, 0, 0]), "a", [255, 0, 0]);
    assert_eq!(red.unwrap().data[..6], [227, 100, 100, 255, 0, 0]);
    let deep = Stated { bits: 16, ..grey };
    let numbers: Vec<u8> =
        [4095_u16, 65_535, 4095, 0].repeat(3).iter().flat_map(|n| n.to_le_bytes()).collect();
    let decoding = Decoding { depth: Some([0.0, 4095.0].into()), ..Decoding::default() };
    assert_eq!(decode(&tiff(deep, &numbers), "a", decoding).unwrap().data[..2], [255, 0]);
}

#[test]
fn thirteen_deep_bands_floats_and_signed_numbers_are_read_with_a_range() {
    let shown = |stated, numbers: &[u8], depth: Option<[f64; 2]>| {
        let decoding = Decoding { depth: depth.map(Into::into), ..Decoding::default() };
        decode(&tiff(stated, numbers), "a.tif", decoding).map(|clip| clip.data)
    };
    let deep = Stated { bands: 13, bits: 16, ..BYTES };
    let numbers: Vec<u8> = (0..78_u16).flat_map(|n| (n * 50).to_le_bytes()).collect();
    let found = shown(deep, &numbers, Some([0.0, 4095.0])).unwrap();
    // 77 · 50 · 255 / 4095 = 239.7
    assert_eq!((found.len(), found[0], found[77]), (78, 0, 240));
    let grey = Stated { photometric: BLACK_IS_ZERO, bands: 1, bits: 32, extra: None, ..BYTES };
    let floats: Vec<u8> =
        [-1_f32, 0.0, 1.0, 3.0, -9.0, 0.5].iter().flat_map(|n| n.to_le_bytes()).collect();
    let float = Stated { format: 3, ..grey };
    assert_eq!(shown(float, &floats, Some([-1.0, 1.0])).unwrap(), [0, 128, 255, 255, 0, 191]);
    let message = shown(float, &floats, None).unwrap_err().to_string();
    assert!(message.contains("32-bit floating-point numbers from -9 to 3"), "{message}");
    let whole: Vec<u8> = [-2_i32, 0, 2, 4, 6, 8].iter().flat_map(|n| n.to_le_bytes()).collect();
    let signed = Stated { format: 2, ..grey };
    assert_eq!(shown(signed, &whole, Some([-2.0, 8.0])).unwrap(), [0, 51, 102, 153, 204, 255]);
}

#[test]
fn a_deep_image_is_not_shown_black_where_its_depth_is_given() {
    let values: Vec<u16> = vec![0, 1000, 2000, 3000, 4000, 4095];
    let image = image::ImageBuffer::<image::Luma<u16>, _>::from_vec(3, 2, values).unwrap();
    for format in [image::ImageFormat::Png, image::ImageFormat::Tiff] {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).unwrap();
        let of = |depth: Option<[f64; 2]>| {
            let decoding = Decoding { depth: depth.map(Into::into), ..Decoding::default() };
            decode(file.get_ref(), "a", decoding).unwrap().data
        };
        assert_eq!(of(Some([0.0, 4095.0])), [0, 62, 125, 187, 249, 255]);
        assert_eq!(of(None), [0, 4, 8, 12, 16, 16]);
        let found = crate::data::clip::decode::stored_values(file.get_ref(), "a").unwrap();
        assert_eq!(found.map(|values| (values.range.min, values.range.max)), Some((0.0, 4095.0)));
    }
}

#[test]
fn no_bytes_make_the_reader_panic_or_take_much_memory() {
    let numbers: Vec<u8> = (0..72).collect();
    crate::fuzz::mutate("bands", &tiff(BYTES, &numbers), |bytes| {
        if let Ok(clip) = decode(bytes, "a.tif", [0; 3]) {
            assert_eq!(clip.data.len(), clip.height * clip.width * clip.channels);
        }
        let _ = info(bytes, "a.tif", Decoding::default());
    });
}
