//! An image as its source keeps it, not yet decoded.

use crate::data::clip::augment::Area;
use crate::data::clip::decode::{check_jpeg, decode, fits_memory};
use crate::data::clip::jpeg::Frame;
use crate::data::{Background, Error, Pixels, Result, Sample};

/// One image before it is decoded.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its bytes.
    pub form: Form,
    /// Its class, -1 without one.
    pub label: i32,
    /// Its file, or its number in its file.
    pub name: String,
}

/// How an image is kept.
#[derive(Clone, Debug)]
pub enum Form {
    /// As pixels.
    Pixels(Pixels),
    /// As the bytes of an image file.
    File {
        /// All of them.
        bytes: Vec<u8>,
        /// What transparent pixels show.
        background: Background,
    },
}

impl From<Sample> for Stored {
    fn from(Sample { image, label, name }: Sample) -> Self {
        Self { form: Form::Pixels(image), label, name }
    }
}

impl Stored {
    /// The whole image.
    pub(in crate::data) fn decode(self) -> Result<Sample> {
        let image = match self.form {
            Form::Pixels(pixels) => pixels,
            Form::File { bytes, background } => decode(&bytes, &self.name, background)?,
        };
        Ok(Sample { image, label: self.label, name: self.name })
    }

    /// The part of the image that `choose` names when it is told [H, W], and that part. Rows below it
    /// may be missing; all others have the bits of the whole image.
    pub(in crate::data) fn decode_part(
        mut self,
        choose: impl FnOnce([usize; 2]) -> Area,
    ) -> Result<(Pixels, Area)> {
        if let Form::File { bytes, .. } = &mut self.form
            && let Some(frame) =
                Frame::read(bytes).filter(|frame| fits_memory(frame.decoded_bytes()))
        {
            check_jpeg(bytes, &self.name)?;
            let size = [frame.height, frame.width];
            let area = choose(size);
            if let Some(image) = frame.decode(bytes, area.top + area.height) {
                return Ok((image, area));
            }
            // What the decoder refuses is refused again, with its reason.
            let Sample { image, name, .. } = self.decode()?;
            if [image.height, image.width] != size {
                let [height, width] = size;
                let problem = format!("holds an image that is not {height} x {width} as it states");
                return Err(Error::Image { name, problem });
            }
            return Ok((image, area));
        }
        let image = self.decode()?.image;
        let area = choose([image.height, image.width]);
        Ok((image, area))
    }
}
