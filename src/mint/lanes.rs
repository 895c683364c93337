//! The MD5 of PINs, many at once: one PIN a lane.
//!
//! A PIN of up to 8 digits is one block of MD5 in which two words differ from PIN to PIN, so that a lane needs no schedule of
//! its own. The lanes are plain arrays and loops; the compiler makes vector instructions of them, those of the machine at
//! hand where a function is compiled for them. Nothing here is for security, and nothing is constant in time.

use crate::domain::PinLength;

/// As many PINs differ in their last four digits only; they are hashed together.
const BLOCK: u64 = 10_000;

/// RFC 1321: the whole part of 2^32 times the sine of 1 to 64.
const SINES: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];
const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
const BEGIN: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// A digest in MD5's own words.
pub(super) type Words = [u32; 4];

/// The digest as its hex digits are read.
pub(super) fn number(words: Words) -> u128 {
    words.iter().fold(0, |all, word| all << 32 | u128::from(word.swap_bytes()))
}

/// The inverse.
pub(super) fn words(digest: u128) -> Words {
    std::array::from_fn(|at| ((digest >> (96 - 32 * at)) as u32).swap_bytes())
}

/// What the machine at hand can do at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// Whatever every machine of this kind has.
    Common,
    #[cfg(target_arch = "x86_64")]
    Avx2(Seen),
    #[cfg(target_arch = "x86_64")]
    Avx512(Seen),
}

/// That the machine was asked, and has it: made in [`Width::all`] only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen(());

impl Width {
    /// All that this machine has, the widest last.
    pub(super) fn all() -> Vec<Width> {
        let mut all = vec![Width::Common];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                all.push(Width::Avx2(Seen(())));
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") {
                all.push(Width::Avx512(Seen(())));
            }
        }
        all
    }

    pub(super) fn widest() -> Width {
        Width::all().pop().unwrap_or(Width::Common)
    }
}

/// Hashes the PINs of one length.
pub(super) struct Hasher {
    length: PinLength,
    width: Width,
    /// The last four digits of a PIN, as they stand in memory.
    tails: Vec<u32>,
}

impl Hasher {
    /// `None` for more than 8 digits.
    pub(super) fn new(length: PinLength, width: Width) -> Option<Hasher> {
        let tail = |n: u64| {
            let digit = |place| b'0' + (n / place % 10) as u8;
            u32::from_le_bytes([digit(1000), digit(100), digit(10), digit(1)])
        };
        (length.digits() <= 8).then(|| Hasher { length, width, tails: (0..BLOCK).map(tail).collect() })
    }

    /// How many blocks there are.
    pub(super) fn blocks(&self) -> u64 {
        self.length.space().div_ceil(BLOCK)
    }

    /// Calls `each` with the number and the digest of every PIN of one block.
    pub(super) fn block(&self, block: u64, mut each: impl FnMut(u64, Words)) {
        match self.width {
            Width::Common => block_in::<8>(self, block, &mut each),
            // SAFETY: a `Seen` is made only after the machine has said that it has AVX2.
            #[cfg(target_arch = "x86_64")]
            Width::Avx2(_) => unsafe { block_avx2(self, block, &mut each) },
            // SAFETY: a `Seen` is made only after the machine has said that it has AVX-512F and AVX2.
            #[cfg(target_arch = "x86_64")]
            Width::Avx512(_) => unsafe { block_avx512(self, block, &mut each) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn block_avx2(hasher: &Hasher, block: u64, each: &mut impl FnMut(u64, Words)) {
    block_in::<16>(hasher, block, each);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2")]
fn block_avx512(hasher: &Hasher, block: u64, each: &mut impl FnMut(u64, Words)) {
    block_in::<32>(hasher, block, each);
}

/// In here whatever is called is compiled for the caller's instructions, so all of it is inlined.
#[inline(always)]
fn block_in<const LANES: usize>(hasher: &Hasher, block: u64, each: &mut impl FnMut(u64, Words)) {
    let digits = hasher.length.digits();
    let count = hasher.length.space().min(BLOCK) as usize;
    // The text of eight digits, of which the first are cut off, and behind it the mark that ends a message of MD5.
    let cut = 8 * (8 - digits as u32);
    let head = u64::from(hasher.tails[block as usize]);
    let mark = if digits < 8 { 0x80 << (8 * digits) } else { 0 };
    let third = if digits < 8 { 0 } else { 0x80 };
    let mut at = 0;
    while at < count {
        let (mut first, mut second) = ([0; LANES], [0; LANES]);
        // Lanes beyond the end are hashed in vain.
        let tails = &hasher.tails[at..count.min(at + LANES)];
        for (lane, tail) in tails.iter().enumerate() {
            let text = (head | u64::from(*tail) << 32) >> cut | mark;
            (first[lane], second[lane]) = (text as u32, (text >> 32) as u32);
        }
        let [a, b, c, d] = md5(&first, &second, third, 8 * digits as u32);
        for lane in 0..tails.len() {
            each(block * BLOCK + (at + lane) as u64, [a[lane], b[lane], c[lane], d[lane]]);
        }
        at += LANES;
    }
}

/// Of messages that have `bits` bits, and the words `first`, `second`, `third` and zeros.
#[inline(always)]
fn md5<const LANES: usize>(first: &[u32; LANES], second: &[u32; LANES], third: u32, bits: u32) -> [[u32; LANES]; 4] {
    let (mut a, mut b, mut c, mut d) = ([BEGIN[0]; LANES], [BEGIN[1]; LANES], [BEGIN[2]; LANES], [BEGIN[3]; LANES]);
    // Written out by a macro, so that in each step all but the lanes is known to the compiler.
    macro_rules! steps {
        ($($step:literal)*) => { $({
            const ROUND: usize = $step / 16;
            const WORD: usize = [$step, 5 * $step + 1, 3 * $step + 5, 7 * $step][ROUND] % 16;
            let mut next = [0; LANES];
            for lane in 0..LANES {
                let (b, c, d) = (b[lane], c[lane], d[lane]);
                let mixed = match ROUND {
                    0 => d ^ (b & (c ^ d)),
                    1 => c ^ (d & (b ^ c)),
                    2 => b ^ c ^ d,
                    _ => c ^ (b | !d),
                };
                let word = match WORD {
                    0 => first[lane],
                    1 => second[lane],
                    2 => third,
                    14 => bits,
                    _ => 0,
                };
                let sum = a[lane].wrapping_add(mixed).wrapping_add(SINES[$step].wrapping_add(word));
                next[lane] = b.wrapping_add(sum.rotate_left(TURNS[ROUND][$step % 4]));
            }
            (a, d, c, b) = (d, c, b, next);
        })* };
    }
    steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    steps!(32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
    for lane in 0..LANES {
        a[lane] = a[lane].wrapping_add(BEGIN[0]);
        b[lane] = b[lane].wrapping_add(BEGIN[1]);
        c[lane] = c[lane].wrapping_add(BEGIN[2]);
        d[lane] = d[lane].wrapping_add(BEGIN[3]);
    }
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::pin::digest;

    #[test]
    fn every_width_hashes_as_the_md5_crate_does() {
        for width in Width::all() {
            for digits in 1..=8 {
                let hasher = Hasher::new(PinLength::new(digits).unwrap(), width).unwrap();
                let blocks = hasher.blocks();
                for block in [0, blocks / 3, blocks - 1] {
                    let mut next = block * BLOCK;
                    hasher.block(block, |n, words| {
                        assert_eq!(n, next);
                        assert_eq!(number(words), digest(&format!("{n:0width$}", width = digits.into())), "{width:?} {digits} {n}");
                        next += 1;
                    });
                    assert_eq!(next, hasher.length.space().min((block + 1) * BLOCK));
                }
            }
        }
        assert!(Hasher::new(PinLength::new(9).unwrap(), Width::Common).is_none());
    }

    #[test]
    fn words_and_numbers_are_two_ways_to_write_a_digest() {
        let one = 0x81dc_9bdb_52d0_4dc2_0036_dbd8_313e_d055;
        assert_eq!(number(words(one)), one);
        assert_eq!(words(one)[0], 0xdb9b_dc81);
    }
}
