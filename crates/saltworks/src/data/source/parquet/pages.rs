//! The pages of a column, located by their headers. Headers claim sizes and lengths, and the crate
//! takes memory for what they claim. So all of them are checked first, and no page may be larger
//! than [`MOST_PAGE_BYTES`].

use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader as _, Length as _, SerializedPageReader};

use super::at::At;
use super::thrift::{ThriftError, ThriftEvent, walk};

/// The most bytes of a decompressed page. An image may have as many.
pub(super) const MOST_PAGE_BYTES: usize = 1 << 30;

/// A larger page is read by one thread at a time, so that threads do not multiply it. (guess)
const LARGE_PAGE_BYTES: usize = 64 << 20;

/// Bytes that are read for a header at first. Most have about fifty.
const HEADER_BYTES: u64 = 512;

/// The most bytes of a header. It may hold the smallest and the largest value of its page.
const MOST_HEADER_BYTES: u64 = 64 << 20;

/// The most values of a column of lists in a row group. One row may have all of them, and it is
/// read at once. (guess) Row groups of images have a thousand rows.
const MOST_LIST_VALUES: usize = 16 << 20;

/// The memory that the crate takes for a value, beside its bytes.
const VALUE_BYTES: usize = size_of::<ByteArray>();

/// The most that gzip can expand: 258 bytes of two bits.
const GZIP_EXPANSION: usize = 1032;

/// The most that LZ4 can expand: 255 bytes of one.
const LZ4_EXPANSION: usize = 255;

pub(super) type ParquetResult<T> = Result<T, ParquetError>;

/// A problem of a file, in the crate's type.
pub(super) fn damaged(problem: impl Into<String>) -> ParquetError {
    ParquetError::General(problem.into())
}

/// What a file has too much of, with advice.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct PageLimit(pub(super) String);

/// A limit that a file exceeds, in the crate's type.
pub(super) fn too_large(problem: String) -> ParquetError {
    ParquetError::External(Box::new(PageLimit(problem)))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PageKind {
    #[default]
    Data,
    Index,
    Dictionary,
}

/// What the header of a page states.
#[derive(Clone, Copy, Debug, Default)]
struct PageHead {
    kind: PageKind,
    /// Where its bytes begin, after the header.
    at: u64,
    /// Bytes as stored.
    stored: usize,
    /// Bytes when decompressed.
    size: usize,
    /// Bytes of levels before the compressed part, in pages of version 2.
    levels: usize,
    /// Its values and nulls, or the values of a dictionary.
    values: usize,
    /// Its rows, if it is a data page of a column that repeats nothing.
    rows: usize,
}

impl PageHead {
    /// The memory of a dictionary's values, which are all decoded at once.
    fn value_bytes(&self) -> usize {
        let is_dictionary = self.kind == PageKind::Dictionary;
        if is_dictionary { self.values.saturating_mul(VALUE_BYTES) } else { 0 }
    }
}

/// The pages of a row group's column.
pub(super) struct ColumnPages {
    chunk: ColumnChunkMetaData,
    /// Rows as the row group states.
    group_rows: usize,
    heads: Arc<[PageHead]>,
    /// The first row of each data page.
    first_rows: Vec<usize>,
}

impl ColumnPages {
    /// Reads and checks the headers of a column's pages.
    pub(super) fn find(file: &At, group: &RowGroupMetaData, column: usize) -> ParquetResult<Self> {
        let chunk = group.columns().get(column).ok_or_else(|| damaged("a column is missing"))?;
        let group_rows = usize::try_from(group.num_rows()).map_err(|_| damaged("rows below 0"))?;
        let (mut heads, mut first_rows, mut rows) = (Vec::new(), Vec::new(), 0_usize);
        // Groups without rows have no pages, and some writers give them no place either.
        let (mut at, end) = if group_rows == 0 { (0, 0) } else { chunk_range(chunk, file.len())? };
        while at < end {
            let head = read_head(file, at, end)?;
            at = head.at + head.stored as u64;
            if head.kind == PageKind::Data {
                first_rows.push(rows);
                rows = rows.checked_add(head.rows).ok_or_else(|| damaged("too many rows"))?;
            }
            heads.push(head);
        }
        if first_rows.is_empty() && group_rows > 0 {
            return Err(damaged("a row group without pages"));
        }
        let repeats = chunk.column_descr().max_rep_level() > 0;
        if !repeats && rows != group_rows {
            return Err(damaged(format!("pages of {rows} rows, expected {group_rows} as stated")));
        }
        check_values(&heads, repeats)?;
        Ok(Self { chunk: chunk.clone(), group_rows, heads: heads.into(), first_rows })
    }

    /// The data page of a row.
    pub(super) fn page_of(&self, row: usize) -> usize {
        self.first_rows.partition_point(|&first| first <= row).saturating_sub(1)
    }

    /// How many data pages.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.first_rows.len()
    }

    /// The rows of a data page.
    pub(super) fn rows_of(&self, page: usize) -> std::ops::Range<usize> {
        self.first_rows[page]..self.first_rows.get(page + 1).copied().unwrap_or(self.group_rows)
    }

    /// The bytes that the values of a data page are parts of: the page's and the dictionary's.
    pub(super) fn bytes_behind(&self, page: usize) -> usize {
        let of_kind = |kind| self.heads.iter().filter(move |head| head.kind == kind);
        // A page that is not compressed is as long as it is stored, whatever it states.
        let bytes = |head: &PageHead| head.size.max(head.stored);
        let data = of_kind(PageKind::Data).nth(page).map_or(0, bytes);
        data + of_kind(PageKind::Dictionary).map(bytes).sum::<usize>()
    }

    /// A turn to read pages that are large when decompressed.
    pub(super) fn turn(&self) -> Option<MutexGuard<'static, ()>> {
        static TURN: Mutex<()> = Mutex::new(());
        // A frame of LZ4 does not state its length.
        let is_framed = self.chunk.compression() == Compression::LZ4;
        let expansion = if is_framed { LZ4_EXPANSION } else { 1 };
        let most = |head: &PageHead| {
            let bytes = head.size.max(head.stored.saturating_mul(expansion));
            bytes.saturating_add(head.value_bytes())
        };
        let is_large = self.heads.iter().any(|head| most(head) > LARGE_PAGE_BYTES);
        let repeats = self.chunk.column_descr().max_rep_level() > 0;
        let is_long = repeats && list_values(&self.heads) > LARGE_PAGE_BYTES / VALUE_BYTES;
        (is_large || is_long).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A reader of the column's values.
    pub(super) fn reader(&self, file: &At) -> ParquetResult<ColumnReader> {
        let (chunk, heads) = (&self.chunk, Arc::clone(&self.heads));
        let file = Arc::new(file.clone());
        let inner = SerializedPageReader::new(Arc::clone(&file), chunk, self.group_rows, None)?;
        let column = chunk.column_descr_ptr();
        let checked = CheckedPages { inner, file, chunk: chunk.clone(), heads, next: 0 };
        Ok(get_column_reader(column, Box::new(checked)))
    }
}

/// Where a column begins and ends. The crate panics if these are no places in the file.
fn chunk_range(chunk: &ColumnChunkMetaData, file_len: u64) -> ParquetResult<(u64, u64)> {
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    let range = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
    let range = range.and_then(|(start, len)| Some((start, start.checked_add(len)?)));
    range.filter(|&(_, end)| end <= file_len).ok_or_else(|| damaged("a column beyond the file"))
}

/// Reads the column's bytes ahead if they are few.
pub(super) fn read_ahead(file: &At, group: &RowGroupMetaData, column: usize) -> ParquetResult<At> {
    let chunk = group.columns().get(column).ok_or_else(|| damaged("a column is missing"))?;
    let (start, end) = chunk_range(chunk, file.len())?;
    file.with_ahead(start, end - start)
}

fn read_head(file: &At, at: u64, end: u64) -> ParquetResult<PageHead> {
    let mut most = HEADER_BYTES;
    loop {
        let bytes = file.get_bytes(at, most.min(end - at) as usize)?;
        match parse_head(&bytes) {
            Ok((head, len)) => {
                let at = at + len as u64;
                return check_head(PageHead { at, ..head }, end - at);
            }
            Err(ThriftError::Short) if most < end - at && most < MOST_HEADER_BYTES => {
                most = (most * 16).min(MOST_HEADER_BYTES);
            }
            Err(_) => return Err(damaged("a page with a damaged header")),
        }
    }
}

/// What a header states, and its length.
fn parse_head(bytes: &[u8]) -> Result<(PageHead, usize), ThriftError> {
    let (mut kind, mut stored, mut size) = (None, None, None);
    let (mut values, mut rows, mut levels) = ([None; 4], None, [None; 2]);
    let len = walk(bytes, &mut |fields, event| {
        let ThriftEvent::Integer(value) = event else { return };
        // The numbers of parquet.thrift, PageHeader and below.
        match fields {
            [1] => kind = Some(value),
            [2] => size = Some(value),
            [3] => stored = Some(value),
            // By the number of the kind.
            [5, 1] => values[0] = Some(value),
            [7, 1] => values[2] = Some(value),
            [8, 1] => values[3] = Some(value),
            [8, 3] => rows = Some(value),
            [8, 5] => levels[0] = Some(value),
            [8, 6] => levels[1] = Some(value),
            _ => {}
        }
    })?;
    let number = |value: Option<i64>| {
        let value = value.and_then(|value| i32::try_from(value).ok());
        value.and_then(|value| usize::try_from(value).ok()).ok_or(ThriftError::Damaged)
    };
    let (stored, size) = (number(stored)?, number(size)?);
    let head = PageHead { stored, size, ..PageHead::default() };
    // The parts of other kinds in the header say nothing.
    let head = match number(kind)? {
        0 => {
            let values = number(values[0])?;
            PageHead { kind: PageKind::Data, values, rows: values, ..head }
        }
        1 => PageHead { kind: PageKind::Index, ..head },
        2 => PageHead { kind: PageKind::Dictionary, values: number(values[2])?, ..head },
        3 => {
            let [defined, repeated] = levels.map(|level| number(level.or(Some(0))));
            let (values, rows) = (number(values[3])?, number(rows)?);
            let levels = defined? + repeated?;
            PageHead { kind: PageKind::Data, levels, values, rows, ..head }
        }
        _ => return Err(ThriftError::Damaged),
    };
    Ok((head, len))
}

/// Refuses a page that does not fit in its column or in memory.
fn check_head(head: PageHead, left: u64) -> ParquetResult<PageHead> {
    if head.stored as u64 > left {
        return Err(damaged("a page beyond the end of its column"));
    }
    if head.size > MOST_PAGE_BYTES || head.stored > MOST_PAGE_BYTES {
        let (found, most) = (head.size.max(head.stored) >> 20, MOST_PAGE_BYTES >> 20);
        return Err(too_large(format!(
            "has a page of {found} MiB, expected at most {most} MiB. Write it again with smaller \
             pages, in Python: pyarrow.parquet.write_table(table, path, row_group_size=100)"
        )));
    }
    let (found, most) = (head.size.saturating_add(head.value_bytes()) >> 20, MOST_PAGE_BYTES >> 20);
    if head.kind == PageKind::Dictionary && found > most {
        let values = head.values;
        return Err(too_large(format!(
            "has a dictionary of {values} values, which takes {found} MiB of memory, expected at \
             most {most}. Write it again without, in Python: pyarrow.parquet.write_table(table, \
             path, row_group_size=100, use_dictionary=False)"
        )));
    }
    Ok(head)
}

/// The values of a column of lists.
fn list_values(heads: &[PageHead]) -> usize {
    let data = heads.iter().filter(|head| head.kind == PageKind::Data);
    data.fold(0, |sum, head| sum.saturating_add(head.values))
}

/// Refuses pages with too many values if rows are lists, and otherwise with more or fewer values
/// than rows: a row after them would get the image of another one.
fn check_values(heads: &[PageHead], repeats: bool) -> ParquetResult<()> {
    if !repeats {
        let wrong =
            heads.iter().find(|head| head.kind == PageKind::Data && head.values != head.rows);
        return wrong.map_or(Ok(()), |PageHead { values, rows, .. }| {
            Err(damaged(format!("a page of {values} values, expected {rows}, one for each row")))
        });
    }
    let (found, most) = (list_values(heads), MOST_LIST_VALUES);
    if found <= most {
        return Ok(());
    }
    Err(too_large(format!(
        "has lists of {found} labels in a row group, expected at most {most}. Write it again with \
         smaller ones, in Python: pyarrow.parquet.write_table(table, path, row_group_size=100)"
    )))
}

/// The crate's pages, each checked before the values in it are counted on.
struct CheckedPages {
    inner: SerializedPageReader<At>,
    file: Arc<At>,
    chunk: ColumnChunkMetaData,
    heads: Arc<[PageHead]>,
    /// The next page to read or skip.
    next: usize,
}

impl CheckedPages {
    /// The head of the next page. Index pages are passed over, as by the crate.
    fn next_head(&mut self) -> Option<PageHead> {
        let rest = &self.heads[self.next.min(self.heads.len())..];
        let skipped = rest.iter().position(|head| head.kind != PageKind::Index)?;
        self.next += skipped + 1;
        Some(rest[skipped])
    }

    /// Refuses a page that would not stop where its header says. The crate stops only Snappy, Zstd
    /// and plain LZ4 there.
    fn check_expansion(&self, head: PageHead) -> ParquetResult<()> {
        let most = |expansion: usize| head.stored.saturating_mul(expansion);
        let problem = || damaged("a page that is longer than its header states");
        let bytes = |most: usize| self.file.get_bytes(head.at, head.stored.min(most));
        match self.chunk.compression() {
            Compression::GZIP(_) if most(GZIP_EXPANSION) > LARGE_PAGE_BYTES => {
                let bytes = bytes(head.stored)?;
                let packed = bytes.get(head.levels..).unwrap_or_default();
                let stated = head.size as u64;
                let mut inflated = MultiGzDecoder::new(packed).take(stated + 1);
                // Where this fails, the crate stops, too, or the page is not compressed.
                let found = io::copy(&mut inflated, &mut io::sink()).unwrap_or(0);
                if found > stated { Err(problem()) } else { Ok(()) }
            }
            // The first bytes of LZ4's frames, which the crate tries if no other form fits.
            Compression::LZ4
                if most(LZ4_EXPANSION) > MOST_PAGE_BYTES
                    && bytes(4)?.starts_with(&[0x04, 0x22, 0x4D, 0x18]) =>
            {
                Err(problem())
            }
            _ => Ok(()),
        }
    }

    fn check(&self, page: &Page) -> ParquetResult<()> {
        let problem = || damaged("a page with fewer values than it states");
        let column = self.chunk.column_descr();
        match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                let least = match column.physical_type() {
                    Type::INT64 | Type::DOUBLE => 8,
                    _ => 4,
                };
                let fits = *num_values as usize <= buf.len() / least;
                if fits { Ok(()) } else { Err(problem()) }
            }
            Page::DataPage { buf, num_values, encoding, .. } if is_delta(*encoding) => {
                let leveled = [column.max_rep_level(), column.max_def_level()];
                let mut values = buf.as_ref();
                for _ in leveled.iter().filter(|&&most| most > 0) {
                    let (len, rest) = values.split_first_chunk().ok_or_else(problem)?;
                    values = rest.get(u32::from_le_bytes(*len) as usize..).ok_or_else(problem)?;
                }
                check_delta(values, *encoding, *num_values).ok_or_else(problem)
            }
            Page::DataPage { .. } => Ok(()),
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => {
                let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                let values = buf.get(levels..).ok_or_else(problem)?;
                check_delta(values, *encoding, *num_values).ok_or_else(problem)
            }
        }
    }

    fn checked(&self, page: ParquetResult<Option<Page>>) -> ParquetResult<Option<Page>> {
        let page = page?;
        page.iter().try_for_each(|page| self.check(page))?;
        Ok(page)
    }
}

impl Iterator for CheckedPages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        if let Some(head) = self.next_head() {
            self.check_expansion(head)?;
        }
        let page = self.inner.get_next_page();
        self.checked(page)
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.next_head();
        self.inner.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.inner.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> ParquetResult<Option<Page>> {
        for head in self.heads.iter().filter(|head| head.kind == PageKind::Dictionary) {
            self.check_expansion(*head)?;
        }
        let page = self.inner.take_deferred_dictionary();
        self.checked(page)
    }

    fn at_record_boundary(&mut self) -> ParquetResult<bool> {
        self.inner.at_record_boundary()
    }
}

fn is_delta(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY)
}

/// Checks the lengths that delta encodings of texts state before their values. None if there are
/// more than values, or if they do not fit.
fn check_delta(values: &[u8], encoding: Encoding, most: u32) -> Option<()> {
    match encoding {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => delta_end(values, most).map(|_| ()),
        Encoding::DELTA_BYTE_ARRAY => {
            let prefixes = delta_end(values, most)?;
            delta_end(&values[prefixes..], most).map(|_| ())
        }
        _ => Some(()),
    }
}

/// Where numbers in DELTA_BINARY_PACKED end (parquet-format, Encodings.md). None if there are more
/// than `most`, or if they do not fit.
fn delta_end(bytes: &[u8], most: u32) -> Option<usize> {
    let mut at = 0;
    let varint = |at: &mut usize| {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *bytes.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    let block = varint(&mut at)?;
    let parts = usize::try_from(varint(&mut at)?).ok().filter(|&parts| parts > 0)?;
    let count = varint(&mut at)?;
    varint(&mut at)?;
    let of_part = usize::try_from(block).ok()? / parts;
    if count > u64::from(most) || of_part == 0 {
        return None;
    }
    let mut left = (count as usize).saturating_sub(1);
    while left > 0 {
        varint(&mut at)?;
        let widths = bytes.get(at..at.checked_add(parts)?)?;
        at += parts;
        for &width in widths.iter().take(left.div_ceil(of_part)) {
            at = at.checked_add(usize::from(width).checked_mul(of_part)? / 8)?;
            left = left.saturating_sub(of_part);
        }
    }
    (at <= bytes.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_states_more_than_it_may_is_refused() {
        // 1: type 0, 2: size, 3: stored 5, 5: { 1: values 7 }
        let header = |size: &[u8]| {
            [&[0x15, 0x00, 0x15], size, &[0x15, 0x0A, 0x2C, 0x15, 0x0E, 0x00, 0x00]].concat()
        };
        let (head, len) = parse_head(&header(&[0x14])).unwrap();
        assert_eq!((head.size, head.stored, head.rows, len), (10, 5, 7, 11));
        assert!(check_head(head, 5).is_ok() && check_head(head, 4).is_err());
        let (head, _) = parse_head(&header(&[0xFE, 0xFF, 0xFF, 0xFF, 0x0F])).unwrap();
        let message = check_head(head, 5).unwrap_err().to_string();
        assert!(message.contains("a page of 2047 MiB, expected at most 1024 MiB"), "{message}");
        // 1: type 2, 2: size 0x7FFF, 3: stored 5, 7: { 1: values }
        let dictionary = |values: &[u8]| {
            let start = [0x15, 0x04, 0x15, 0xFE, 0xFF, 0x03, 0x15, 0x0A, 0x4C, 0x15];
            [&start[..], values, &[0x00, 0x00]].concat()
        };
        let (head, _) = parse_head(&dictionary(&[0x0E])).unwrap();
        assert_eq!((head.kind, head.values), (PageKind::Dictionary, 7));
        assert!(check_head(head, 5).is_ok());
        let (head, _) = parse_head(&dictionary(&[0x80, 0x80, 0x80, 0x28])).unwrap();
        let message = check_head(head, 5).unwrap_err().to_string();
        assert!(message.contains("a dictionary of 41943040 values, which takes 1280 MiB"));
        assert_eq!(parse_head(&header(&[0x13])).err(), Some(ThriftError::Damaged), "below 0");
        assert_eq!(parse_head(&header(&[0x14])[..7]).err(), Some(ThriftError::Short));
    }

    #[test]
    fn a_row_of_countless_nulls_is_refused_before_it_is_read() {
        let head = |values| PageHead { values, rows: values, ..PageHead::default() };
        assert!(check_values(&[head(MOST_LIST_VALUES / 2); 2], true).is_ok());
        let message = check_values(&[head(1), head(2_000_000_000)], true).unwrap_err().to_string();
        let words = "lists of 2000000001 labels in a row group, expected at most 16777216";
        assert!(message.contains(words), "{message}");
        assert!(check_values(&[head(2_000_000_000)], false).is_ok());
    }

    #[test]
    fn a_page_of_fewer_rows_than_values_does_not_shift_the_images() {
        let head = |values, rows| PageHead { values, rows, ..PageHead::default() };
        assert!(check_values(&[head(2, 2), head(3, 3)], false).is_ok());
        let message = check_values(&[head(2, 1), head(2, 3)], false).unwrap_err().to_string();
        assert!(message.contains("a page of 2 values, expected 1, one for each row"), "{message}");
    }

    #[test]
    fn delta_lengths_end_where_their_blocks_end_and_are_no_more_than_values() {
        // Blocks of 128 in 4 parts, 3 values, the first 5, then a least delta and four widths.
        let numbers = [0x80, 0x01, 0x04, 0x03, 0x0A, 0x00, 2, 9, 9, 9];
        let whole = [&numbers[..], &[0; 8]].concat();
        assert_eq!(delta_end(&whole, 3), Some(18));
        assert_eq!(delta_end(&whole, 2), None);
        assert_eq!(delta_end(&whole[..17], 3), None);
        assert_eq!(delta_end(&[0x80, 0x01, 0x04, 0x00, 0x00], 3), Some(5));
        let many = [0x80, 0x01, 0x04, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0x0A];
        assert_eq!(check_delta(&many, Encoding::DELTA_BYTE_ARRAY, 100), None);
        assert_eq!(check_delta(&many, Encoding::PLAIN, 100), Some(()));
    }
}
