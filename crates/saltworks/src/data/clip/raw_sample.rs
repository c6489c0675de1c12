//! A sample before it is decoded.

use crate::data::clip::decode::{check_blocks, check_jpeg, decode, fits_memory, stored_values};
use crate::data::clip::jpeg::JpegHeader;
use crate::data::clip::region::{Extent, Region};
use crate::data::clip::tiff_bands::interleaved;
use crate::data::{Clip, Decoding, Error, Numbers, Result, Sample, StoredValues};
use crate::range::Range;

/// One image or clip before it is decoded.
#[derive(Clone, Debug)]
pub struct RawSample {
    /// Its bytes.
    pub stored_as: StoredAs,
    /// Its class, -1 without one.
    pub label: i32,
    /// Its file, or its number in its file.
    pub name: String,
}

/// How a source stores an image.
#[derive(Clone, Debug)]
pub enum StoredAs {
    /// Decoded.
    Clip(Clip),
    /// As the bytes of an image file.
    File {
        /// All of them.
        bytes: Vec<u8>,
        /// How they become pixels.
        decoding: Decoding,
    },
    /// As numbers of any kind.
    Array {
        /// T·H·W·C numbers.
        numbers: Numbers,
        /// T, H, W, C
        shape: [usize; 4],
        /// Whether each frame is stored as [C, H, W], not as [H, W, C].
        channels_first: bool,
        /// See [`Decoding::depth`].
        depth: Option<Range>,
    },
}

impl From<Sample> for RawSample {
    fn from(Sample { clip, label, name }: Sample) -> Self {
        Self { stored_as: StoredAs::Clip(clip), label, name }
    }
}

impl RawSample {
    /// The whole clip.
    pub(in crate::data) fn decode(self) -> Result<Sample> {
        let clip = match self.stored_as {
            StoredAs::Clip(clip) => clip,
            StoredAs::File { bytes, decoding } => decode(&bytes, &self.name, decoding)?,
            StoredAs::Array { numbers, shape, channels_first, depth } => {
                let [frames, height, width, channels] = shape;
                let mut data = numbers.to_bytes(depth, &self.name)?;
                if channels_first {
                    let frame_len = height * width * channels;
                    let frames = data.chunks_exact(frame_len);
                    data = frames.flat_map(|frame| interleaved(frame, channels, 1)).collect();
                }
                Clip { frames, height, width, channels, data }
            }
        };
        Ok(Sample { clip, label: self.label, name: self.name })
    }

    /// The numbers of an image of more than eight bits. None for other images.
    pub(in crate::data) fn stored_values(&self) -> Result<Option<StoredValues>> {
        match &self.stored_as {
            StoredAs::Clip(_) => Ok(None),
            StoredAs::File { bytes, .. } => stored_values(bytes, &self.name),
            StoredAs::Array { numbers, .. } => Ok(numbers.stored_values()),
        }
    }

    /// Decodes the part that `choose` returns for the clip's size. Rows below the part may be
    /// missing. All other rows have the same bits as in the whole clip.
    pub(in crate::data) fn decode_part(
        mut self,
        choose: impl FnOnce(Extent) -> Region,
    ) -> Result<(Clip, Region)> {
        if let StoredAs::File { bytes, decoding } = &mut self.stored_as
            && let Some(header) =
                JpegHeader::read(bytes).filter(|header| fits_memory(header.decoded_bytes()))
        {
            check_jpeg(bytes, &self.name, *decoding)?;
            let size = [header.height, header.width];
            check_blocks(bytes.len(), size, &self.name, *decoding)?;
            let extent = Extent { frames: 1, height: header.height, width: header.width };
            let region = choose(extent);
            if let Some(image) = header.decode(bytes, region.rows.end) {
                return Ok((image, region));
            }
            // The decoder refused the image. It is decoded again to get the reason.
            let Sample { clip, name, .. } = self.decode()?;
            if clip.extent() != extent {
                let Extent { height, width, .. } = extent;
                let problem = format!(
                    "holds an image that is not {height} x {width}, the size in its header"
                );
                return Err(Error::Image { name, problem });
            }
            return Ok((clip, region));
        }
        let clip = self.decode()?.clip;
        let region = choose(clip.extent());
        Ok((clip, region))
    }
}
