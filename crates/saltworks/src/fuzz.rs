//! Random inputs for the parsers. `SALTWORKS_FUZZ=1000000` makes more of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::random::Random;

/// Inputs of one test if the environment does not say how many.
const INPUTS: u64 = 20_000;

/// The number of inputs that the environment asks for, or this one.
pub(crate) fn inputs(default: u64) -> u64 {
    let asked = std::env::var("SALTWORKS_FUZZ").ok().and_then(|count| count.parse().ok());
    asked.unwrap_or(default)
}

/// Calls `check` with inputs of `purpose`. A panic names the input's number.
pub(crate) fn mutate(purpose: &'static str, seed: &[u8], mut check: impl FnMut(&[u8])) {
    for number in 0..inputs(INPUTS) {
        let input = input(purpose, seed, number);
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input)));
        assert!(checked.is_ok(), "input {number} of {purpose}");
    }
}

/// `seed` with small changes, or random bytes. They are the same in each run.
pub(crate) fn input(purpose: &'static str, seed: &[u8], number: u64) -> Vec<u8> {
    let mut random = Random::new(0, purpose, number);
    if number.is_multiple_of(8) { noise(&mut random) } else { changed(seed, &mut random) }
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
