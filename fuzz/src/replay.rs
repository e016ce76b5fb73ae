//! Runs a fuzz target in ordinary tests. The inputs of the target's corpus run first. Then randomly changed inputs run
//! for FUZZ_SECONDS.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Maximum length of an input, in bytes.
const LONGEST: usize = 4_096;

/// Runs the target with every input in `fuzz/corpus/<target>`, and then for FUZZ_SECONDS (0 by default) with changed
/// inputs. FUZZ_SEED selects the changes. The default of FUZZ_SEED is the number of days since 1970. If an input fails,
/// the function prints it.
///
/// # Panics
///
/// If the target panics, or if its corpus is empty.
pub fn replay(target: &str, run: impl Fn(&[u8])) {
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "fuzz/corpus/{target} has no input");
    for input in &corpus {
        try_one(target, &run, input);
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let Some(seconds) = number("FUZZ_SECONDS").filter(|&seconds| seconds > 0) else { return };
    let today = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_secs() / 86_400);
    let seed = number("FUZZ_SEED").unwrap_or_else(today);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut runs = 0_u64;
    while Instant::now() < end {
        let input = changed(&corpus, &mut random);
        try_one(target, &run, &input);
        runs += 1;
    }
    println!("{target}: {runs} inputs in {seconds} s with FUZZ_SEED={seed}");
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = here.ancestors().map(|root| root.join("fuzz/corpus").join(target)).find(|place| place.is_dir());
    let place = place.unwrap_or_else(|| panic!("fuzz/corpus/{target} is missing"));
    let files = std::fs::read_dir(place).expect("readable").map(|file| file.expect("readable").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("readable")).collect()
}

fn try_one(target: &str, run: &impl Fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{target} fails. Add the input to the corpus: echo {hex} | xxd -r -p >fuzz/corpus/{target}/NAME");
        resume_unwind(panic);
    }
}

/// An input with up to eight changes.
fn changed(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(16)).min(input.len());
        match random.below(7) {
            0 | 1 if at < input.len() => input[at] = random.below(256) as u8,
            2 if at < input.len() => input[at] ^= 1 << random.below(8),
            3 => input.insert(at, random.below(256) as u8),
            4 => drop(input.drain(at..end)),
            5 => input.extend_from_within(at..end),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let start = random.below(other.len() + 1);
                let piece = &other[start..(start + 1 + random.below(64)).min(other.len())];
                input.splice(at..end.min(at + random.below(2) * piece.len()).max(at), piece.iter().copied());
            }
        }
        input.truncate(LONGEST);
    }
    input
}

/// A generator of random numbers with the algorithm xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}
