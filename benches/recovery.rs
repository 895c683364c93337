//! Recovers 20,000 existing PINs of six digits, beside what a plain program does: `cargo bench --bench recovery`.
//!
//! CPU time of the whole process, three rounds in turn; docs/performance.md tells what the figures mean.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use credkeeper::domain::{Pin, PinFormat, PinLength, StoredValue};
use credkeeper::mint::recovery::recover;
use md5::{Digest, Md5};

const USERS: u64 = 20_000;
/// The loop over users takes hours for all of them.
const SAMPLE: usize = 20;
const ROUNDS: usize = 3;

fn main() {
    let mut state = 4711u64;
    let mut draw = || {
        // Any spread will do; a fixed one makes rounds comparable.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 1_000_000
    };
    let pins: Vec<Pin> = (0..USERS).map(|_| Pin::new(format!("{:06}", draw()))).collect();
    let stored: Vec<StoredValue> = pins.iter().map(|pin| PinFormat::Md5.encode(pin)).collect();
    let eight = [PinFormat::Md5.encode(&Pin::new("99999999".to_owned()))];

    let mut times: HashMap<&str, Vec<(f64, f64)>> = HashMap::new();
    for _ in 0..ROUNDS {
        let mut note = |name, times_of: (Duration, Duration)| {
            times.entry(name).or_default().push((times_of.0.as_secs_f64(), times_of.1.as_secs_f64()));
        };
        note("pass", timed(|| assert_eq!(ours(&stored, 6), pins)));
        note("plain pass", timed(|| assert_eq!(plain_pass(&stored), pins)));
        note("loop", timed(|| assert_eq!(plain_loop(&stored[..SAMPLE]), pins[..SAMPLE])));
        note("eight", timed(|| assert_eq!(ours(&eight, 8)[0].expose(), "99999999")));
        note("million", timed(|| assert_ne!(black_box(million()), 0)));
    }
    let median = |name: &str, of: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = times[name].iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[ROUNDS / 2]
    };
    let (cpu, wall) = (|name: &str| median(name, |times| times.0), |name: &str| median(name, |times| times.1));
    let whole_loop = cpu("loop") * USERS as f64 / SAMPLE as f64;
    println!("medians of {ROUNDS} rounds; CPU seconds (wall seconds)");
    println!("{USERS} PINs of 6 digits, credkeeper, one pass on all cores:  {:9.4} ({:.4})", cpu("pass"), wall("pass"));
    println!("{USERS} PINs of 6 digits, md-5 crate, one pass and a map:     {:9.4} ({:.4})", cpu("plain pass"), wall("plain pass"));
    println!("{SAMPLE} PINs of 6 digits, md-5 crate, a search for each:        {:9.4} ({:.4})", cpu("loop"), wall("loop"));
    println!("   for {USERS}, if the rest is like the sample:              {whole_loop:9.1}");
    println!("one PIN of 8 digits, the last one, credkeeper, all cores:  {:9.4} ({:.4})", cpu("eight"), wall("eight"));
    println!("a million digests one by one, md-5 crate:                  {:9.4} ({:.4})", cpu("million"), wall("million"));
    println!(
        "ratios of CPU time: plain pass / pass {:.1}, searches / pass {:.0}",
        cpu("plain pass") / cpu("pass"),
        whole_loop / cpu("pass")
    );
    println!("                    8 digits one by one (100 x the million) / credkeeper {:.1}", 100.0 * cpu("million") / cpu("eight"));
}

fn ours(stored: &[StoredValue], digits: u8) -> Vec<Pin> {
    let length = PinLength::new(digits).expect("a length");
    let found = recover(PinFormat::Md5, stored, &[length], &|_| ControlFlow::Continue(())).expect("nobody stops it");
    found.into_iter().flatten().collect()
}

fn md5_of(n: u64) -> String {
    let digest: [u8; 16] = Md5::digest(format!("{n:06}")).into();
    format!("PIN{:032x}", u128::from_be_bytes(digest))
}

/// Digests are compared as numbers, which is cheaper than as text.
fn wanted(stored: &StoredValue) -> u128 {
    u128::from_str_radix(&stored.expose()[3..], 16).expect("hex digits")
}

fn digest(n: u64) -> u128 {
    u128::from_be_bytes(Md5::digest(format!("{n:06}")).into())
}

fn plain_pass(stored: &[StoredValue]) -> Vec<Pin> {
    let all: HashSet<u128> = stored.iter().map(wanted).collect();
    let found: HashMap<u128, u64> = (0..1_000_000).map(|n| (digest(n), n)).filter(|(digest, _)| all.contains(digest)).collect();
    stored.iter().map(|stored| Pin::new(format!("{:06}", found[&wanted(stored)]))).collect()
}

/// As one would write it first: for each user all PINs from the first on, until one fits.
fn plain_loop(stored: &[StoredValue]) -> Vec<Pin> {
    let search = |stored: &StoredValue| (0..1_000_000).find(|n| md5_of(*n) == stored.expose());
    stored.iter().filter_map(search).map(|n| Pin::new(format!("{n:06}"))).collect()
}

fn million() -> u128 {
    (0..1_000_000).fold(0, |all, n| all ^ digest(n))
}

/// CPU time of all threads, and time by the clock.
fn timed(work: impl FnOnce()) -> (Duration, Duration) {
    let (cpu, wall) = (cpu_time(), Instant::now());
    work();
    (cpu_time() - cpu, wall.elapsed())
}

#[cfg(unix)]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Elsewhere by the clock, which other work on the machine lengthens.
#[cfg(not(unix))]
fn cpu_time() -> Duration {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed()
}
