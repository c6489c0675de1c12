//! Ranges in a path, in the syntax of bash and WebDataset: `shard-{000000..000009}.tar`.

/// The most paths that a range may name, and about how many bytes they may have together.
const MOST_PATHS: u64 = 100_000;
const MOST_BYTES: usize = 256 << 20;

/// The paths named by a text with `{first..last}` and `{a,b}`, in order. A text without braces is
/// returned as it is. Numbers keep the width of a `first` with leading zeros.
pub(in crate::data) fn expand(text: &str) -> Result<Vec<String>, String> {
    let mut paths = vec![String::new()];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) =
            after.split_once('}').ok_or_else(|| format!("has a {{ without a }} at {rest:?}"))?;
        let parts = parts(inside)?;
        let count = paths.len() * parts.len();
        if count as u64 > MOST_PATHS {
            return Err(format!("names more than {MOST_PATHS} files"));
        }
        let longest = |texts: &[String]| texts.iter().map(String::len).max().unwrap_or(0);
        let length = longest(&paths) + before.len() + longest(&parts) + after.len();
        if count * length > MOST_BYTES {
            return Err(format!("names {count} files in paths of up to {length} letters"));
        }
        let longer = |path: &String| -> Vec<String> {
            parts.iter().map(|part| format!("{path}{before}{part}")).collect()
        };
        paths = paths.iter().flat_map(longer).collect();
        rest = after;
    }
    paths.iter_mut().for_each(|path| path.push_str(rest));
    Ok(paths)
}

fn parts(inside: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = inside.split_once("..") else {
        return Ok(inside.split(',').map(str::to_owned).collect());
    };
    let number = |text: &str| -> Result<u64, String> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| format!("has {{{inside}}}, expected numbers as in {{000..127}}"))
    };
    let (from, to) = (number(first)?, number(last)?);
    if to < from || to - from >= MOST_PATHS {
        return Err(format!(
            "has {{{inside}}}, expected first..last of at most {MOST_PATHS} files"
        ));
    }
    let width = if first.starts_with('0') { first.len() } else { 0 };
    if width > 20 {
        return Err(format!("has {{{inside}}}, expected at most 20 digits"));
    }
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;

    #[test]
    fn ranges_and_lists_expand_in_order() {
        let expanded = |text| expand(text).unwrap().join(" ");
        assert_eq!(expanded("a-{008..011}.tar"), "a-008.tar a-009.tar a-010.tar a-011.tar");
        assert_eq!(expanded("{8..10}"), "8 9 10");
        assert_eq!(expanded("{a,b}/{0..1}.tar"), "a/0.tar a/1.tar b/0.tar b/1.tar");
        assert_eq!(expanded("plain.tar"), "plain.tar");
    }

    #[test]
    fn an_invalid_range_is_refused() {
        for text in ["{1..", "{a..b}", "{3..1}", "{..}", "{0..99999999}", "{0..999}{0..9999}"] {
            assert!(expand(text).is_err(), "{text}");
        }
        // A long list of long names is a usual one.
        let names: Vec<_> = (0..3000).map(|at| format!("{at:035}.tar")).collect();
        assert_eq!(expand(&format!("a/{{{}}}", names.join(","))).unwrap().len(), 3000);
        // 40,001 paths of 80 KB.
        let long = format!("{{{}}}{}", "a,".repeat(40_000), "b".repeat(80_000));
        assert!(expand(&long).is_err());
    }

    #[test]
    fn no_text_makes_a_range_panic_or_grow_without_end() {
        let seed = b"a{0..9}{b,c}/{0007..0012}.tar{";
        fuzz::mutate("braces", seed, |bytes| {
            if let Ok(paths) = expand(&String::from_utf8_lossy(bytes)) {
                assert!(paths.len() as u64 <= MOST_PATHS);
            }
        });
    }
}
