//! The images of a page, and the pages that were used last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;

use super::at::At;
use super::pages::{ColumnPages, MOST_PAGE_BYTES, ParquetResult, damaged};

/// The most bytes of pages that are cached for the next images of the same page. (guess) About
/// fifty of Hugging Face's row groups of a hundred images.
pub(super) const MOST_CACHED_BYTES: usize = 512 << 20;

/// Bytes that an image takes beside its own.
const IMAGE_BYTES: usize = size_of::<Option<ByteArray>>();

/// The images of a data page.
#[derive(Default)]
pub(super) struct PageImages {
    /// One for each row, None if it is null.
    images: Vec<Option<ByteArray>>,
    /// The bytes that are kept for them.
    bytes: usize,
}

impl PageImages {
    /// Reads a data page of a column of bytes.
    pub(super) fn read(file: &At, pages: &ColumnPages, page: usize) -> ParquetResult<Self> {
        let ColumnReader::ByteArrayColumnReader(mut reader) = pages.reader(file)? else {
            // The column was chosen by its type. Another file may have another type.
            return Err(damaged("a column of images that holds no bytes"));
        };
        let rows = pages.rows_of(page);
        let fewer = || damaged("a page with fewer rows than it states");
        if reader.skip_records(rows.start)? != rows.start {
            return Err(fewer());
        }
        let mut distinct = DistinctBytes::default();
        let (mut images, mut values, mut levels) = (Vec::new(), Vec::new(), Vec::new());
        for _ in rows {
            levels.clear();
            // One by one: a page may state few bytes and yet give values that are long together.
            let (read, _, _) = reader.read_records(1, Some(&mut levels), None, &mut values)?;
            if read == 0 {
                return Err(fewer());
            }
            let image = values.pop();
            image.iter().for_each(|image| distinct.add(image));
            if distinct.bytes > MOST_PAGE_BYTES {
                return Err(damaged(format!(
                    "the images of a page take more than {} MiB",
                    MOST_PAGE_BYTES >> 20
                )));
            }
            images.push(image);
        }
        Ok(distinct.keep(images, pages.bytes_behind(page)))
    }

    /// The bytes of an image.
    pub(super) fn get(&self, row: usize) -> Option<&ByteArray> {
        self.images.get(row)?.as_ref()
    }
}

/// The parts of memory that values lie in. Rows of a dictionary may share theirs.
#[derive(Default)]
struct DistinctBytes {
    /// The values by their place.
    values: HashMap<(usize, usize), ByteArray>,
    bytes: usize,
}

impl DistinctBytes {
    fn place(value: &ByteArray) -> (usize, usize) {
        (value.data().as_ptr() as usize, value.len())
    }

    fn add(&mut self, value: &ByteArray) {
        if self.values.insert(Self::place(value), value.clone()).is_none() {
            self.bytes += value.len();
        }
    }

    /// Images that keep little beside themselves. Each lies in its page, all of which stays in
    /// memory with it: `behind` bytes. If less than half of them are images, these are copied.
    fn keep(mut self, mut images: Vec<Option<ByteArray>>, behind: usize) -> PageImages {
        let bytes = images.len() * IMAGE_BYTES + self.bytes.max(behind);
        if 2 * self.bytes >= behind {
            return PageImages { images, bytes };
        }
        self.values.values_mut().for_each(|value| *value = value.data().to_vec().into());
        for image in images.iter_mut().flatten() {
            *image = self.values[&Self::place(image)].clone();
        }
        let bytes = images.len() * IMAGE_BYTES + self.bytes;
        PageImages { images, bytes }
    }
}

/// The most recently used pages, shared by all threads.
#[derive(Default)]
pub(super) struct PageCache(Mutex<CachedPages>);

#[derive(Default)]
struct CachedPages {
    pages: HashMap<(usize, usize), CacheEntry>,
    bytes: usize,
    clock: u64,
}

#[derive(Default)]
struct CacheEntry {
    page: Arc<Mutex<Option<Arc<PageImages>>>>,
    bytes: usize,
    used: u64,
}

impl PageCache {
    /// The page with this row group and number. One thread reads it. Others that need it wait.
    pub(super) fn page(
        &self,
        key: (usize, usize),
        read: impl FnOnce() -> ParquetResult<PageImages>,
    ) -> ParquetResult<Arc<PageImages>> {
        let slot = self.slot(key);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = &*slot {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(read()?);
        *slot = Some(Arc::clone(&page));
        self.note(key, page.bytes);
        Ok(page)
    }

    /// How many pages are cached, and their bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let state = self.0.lock().unwrap();
        (state.pages.len(), state.bytes)
    }

    fn slot(&self, key: (usize, usize)) -> Arc<Mutex<Option<Arc<PageImages>>>> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        let clock = cache.clock;
        let page = cache.pages.entry(key).or_default();
        page.used = clock;
        Arc::clone(&page.page)
    }

    /// Counts a page's bytes, and drops the least recently used pages if the cache is full.
    fn note(&self, key: (usize, usize), bytes: usize) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = cache.pages.get_mut(&key) {
            page.bytes = bytes;
            cache.bytes += bytes;
        }
        while cache.bytes > MOST_CACHED_BYTES {
            let others =
                cache.pages.iter().filter(|(other, page)| **other != key && page.bytes > 0);
            let Some(oldest) = others.min_by_key(|(_, page)| page.used).map(|(&oldest, _)| oldest)
            else {
                break;
            };
            let gone = cache.pages.remove(&oldest).map_or(0, |page| page.bytes);
            cache.bytes -= gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_small_image_does_not_keep_its_large_page() {
        let page = Bytes::from(vec![7; 1 << 20]);
        let image = ByteArray::from(page.slice(10..30));
        let mut distinct = DistinctBytes::default();
        let images = vec![Some(image.clone()), None, Some(image.clone())];
        images.iter().flatten().for_each(|image| distinct.add(image));
        let kept = distinct.keep(images, page.len());
        assert_eq!(kept.bytes, 3 * IMAGE_BYTES + 20, "two rows share one image");
        let first = kept.get(0).unwrap();
        assert!(first.data() == image.data() && first.data().as_ptr() != image.data().as_ptr());
        assert_eq!(DistinctBytes::place(first), DistinctBytes::place(kept.get(2).unwrap()));
        assert!(kept.get(1).is_none());
    }

    #[test]
    fn what_is_counted_of_a_page_is_all_that_stays_in_memory() {
        let page = Bytes::from(vec![7; 1000]);
        let image = ByteArray::from(page.slice(0..600));
        let mut distinct = DistinctBytes::default();
        distinct.add(&image);
        let kept = distinct.keep(vec![Some(image.clone())], page.len());
        assert_eq!(kept.bytes, IMAGE_BYTES + 1000);
        assert_eq!(kept.get(0).unwrap().data().as_ptr(), image.data().as_ptr());
    }

    #[test]
    fn old_pages_go_when_memory_is_full() {
        let cache = PageCache::default();
        let half = || Ok(PageImages { bytes: MOST_CACHED_BYTES / 2, ..PageImages::default() });
        for at in [0, 1, 0, 2] {
            cache.page((at, 0), half).unwrap();
        }
        let state = cache.0.lock().unwrap();
        assert!(state.bytes <= MOST_CACHED_BYTES);
        assert!(state.pages.contains_key(&(0, 0)) && !state.pages.contains_key(&(1, 0)));
    }
}
