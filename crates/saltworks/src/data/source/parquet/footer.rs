//! The footer of a parquet file: its schema, row groups and metadata.

use std::path::Path;

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader as _, Length as _};

use super::at::At;
use super::thrift::{ThriftEvent, walk};
use super::{broken, damaged};
use crate::data::{Error, Result};

/// Bytes after the footer: its length, and `PAR1`.
const END_BYTES: u64 = 8;

/// The deepest columns. The crate calls itself for each level, and a file could state as many
/// levels as it has bytes. (guess) Schemas of people have ten.
const MOST_DEPTH: usize = 100;

/// The most bytes of a footer. The crate takes some times as much memory for it. (guess) A footer
/// has about a hundred bytes for each column of each row group.
const MOST_BYTES: u64 = 64 << 20;

/// The most columns, and the most entries of metadata. The crate takes memory for as many as are
/// stated before it reads them, and each may be stated in one byte.
const MOST_ELEMENTS: usize = 100_000;

/// The most row groups, for the same reason.
const MOST_GROUPS: usize = 1_000_000;

/// Reads the footer of a file.
pub(super) fn read(file: &At, path: &Path) -> Result<ParquetMetaData> {
    let refuse =
        |problem: &str| Err(Error::file(path, format!("cannot be read as parquet: {problem}")));
    let fail = |error| broken(path, error);
    let Some(end) = file.len().checked_sub(END_BYTES) else {
        return refuse("it is shorter than any parquet file. Fetch or write it again");
    };
    let last = file.get_bytes(end, END_BYTES as usize).map_err(fail)?;
    let (length, magic) = last.split_at(4);
    match magic {
        b"PAR1" => {}
        b"PARE" => return refuse("its footer is encrypted. Write it without encryption"),
        _ => {
            return refuse(
                "it does not end in PAR1. It is cut off, or of another kind. Fetch or write it \
                 again",
            );
        }
    }
    let length = u64::from(u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
    let Some(start) = end.checked_sub(length) else {
        return Err(damaged(path, "its footer is longer than the file"));
    };
    if length > MOST_BYTES {
        let problem = format!(
            "has a footer of {} MiB, expected at most {}. Write it again as several files",
            length >> 20,
            MOST_BYTES >> 20
        );
        return Err(Error::file(path, problem));
    }
    let footer = file.get_bytes(start, length as usize).map_err(fail)?;
    check(&footer).map_err(|problem| damaged(path, problem))?;
    ParquetMetaDataReader::decode_metadata(&footer).map_err(fail)
}

/// Checks what a footer claims, before the crate takes memory or calls itself for it.
fn check(footer: &[u8]) -> std::result::Result<(), &'static str> {
    // The children of each element of the schema (FileMetaData 2, SchemaElement 5).
    let (mut children, mut groups, mut entries): (Vec<i64>, _, _) = (Vec::new(), 0, 0);
    let walked = walk(footer, &mut |fields, event| match (fields, event) {
        ([2], ThriftEvent::Structure) => children.push(0),
        ([4], ThriftEvent::Structure) => groups += 1,
        ([5], ThriftEvent::Structure) => entries += 1,
        ([2, 5], ThriftEvent::Integer(count)) => {
            if let Some(last) = children.last_mut() {
                *last = count;
            }
        }
        _ => {}
    });
    walked.map_err(|_| "its footer is no structure of Thrift")?;
    if children.len() > MOST_ELEMENTS || entries > MOST_ELEMENTS {
        return Err("its footer has more than 100,000 columns or entries");
    }
    if groups > MOST_GROUPS {
        return Err("its footer has more than 1,000,000 row groups");
    }
    let mut open: Vec<i64> = Vec::new();
    for &count in &children {
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if count < 0 || count > children.len() as i64 {
            return Err("its schema has fewer columns than it states");
        }
        if count > 0 {
            open.push(count);
        }
        if open.len() > MOST_DEPTH {
            return Err("its columns are nested too deeply");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer whose schema has elements of this many children each.
    fn footer(children: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x02, 0x19, 0xFC];
        bytes.extend([children.len() as u8 & 0x7F | 0x80, (children.len() >> 7) as u8]);
        children.iter().for_each(|&count| bytes.extend([0x55, 2 * count, 0x00]));
        bytes.push(0);
        bytes
    }

    #[test]
    fn columns_within_columns_without_end_are_refused() {
        assert_eq!(check(&footer(&[2, 0, 1, 0])), Ok(()));
        assert_eq!(check(&footer(&[[2, 0].as_slice(), &[0; 300]].concat())), Ok(()));
        assert!(check(&footer(&[1; 300])).unwrap_err().contains("nested too deeply"));
        assert!(check(&footer(&[9, 0])).unwrap_err().contains("fewer columns"));
        let lists = |field: u8, count: usize| {
            // A list of empty structures, each of one byte.
            let head = [field << 4 | 9, 0xFC, count as u8 & 0x7F | 0x80];
            let count_ = [(count >> 7) as u8 & 0x7F | 0x80, (count >> 14) as u8];
            [&head[..], &count_, &vec![0; count + 1]].concat()
        };
        assert_eq!(check(&lists(2, 1000)), Ok(()));
        assert!(check(&lists(2, 100_001)).unwrap_err().contains("more than 100,000 columns"));
        assert!(check(&lists(5, 100_001)).unwrap_err().contains("more than 100,000 columns"));
        assert!(check(&lists(4, 1_000_001)).unwrap_err().contains("1,000,000 row groups"));
        assert!(check(b"\x19\xFC\xFF\xFF\xFF\x7F").unwrap_err().contains("no structure"));
    }
}
