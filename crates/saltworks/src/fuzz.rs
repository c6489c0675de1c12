//! Random inputs for the parsers. `SALTWORKS_FUZZ=1000000` makes more of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::random::Random;

/// Inputs of one test if the environment does not say how many.
const INPUTS: u64 = 20_000;

/// Calls `check` with texts made from `seed` by small changes, and with random bytes, the same in
/// each run. A panic names the input's number.
pub(crate) fn mutate(purpose: &'static str, seed: &[u8], mut check: impl FnMut(&[u8])) {
    let inputs = std::env::var("SALTWORKS_FUZZ").ok().and_then(|count| count.parse().ok());
    for number in 0..inputs.unwrap_or(INPUTS) {
        let mut random = Random::new(0, purpose, number);
        let input = if number % 8 == 0 { noise(&mut random) } else { changed(seed, &mut random) };
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input)));
        assert!(checked.is_ok(), "input {number} of {purpose}");
    }
}

fn noise(random: &mut Random) -> Vec<u8> {
    (0..random.below(2048)).map(|_| random.next_u32() as u8).collect()
}

fn changed(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(6) {
        change(&mut bytes, random);
    }
    bytes
}

/// Makes one change: flips a bit, sets or inserts a byte that parsers often mishandle, cuts the
/// end, or removes or doubles a part.
fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    const TRAPS: &[u8] = b"\x00\xFF\x7F\x80\"',;\n\r\t {}[]().-0179ezZ";
    let at = random.below(bytes.len().max(1));
    let end = (at + random.below(64)).min(bytes.len());
    match random.below(6) {
        _ if bytes.is_empty() => bytes.push(random.next_u32() as u8),
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = TRAPS[random.below(TRAPS.len())],
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => bytes.insert(at, TRAPS[random.below(TRAPS.len())]),
        _ => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
    }
}
