//! A difference between neighbours that is no chance: the same number always gives the same one, so that a rule can use it
//! and a test can tell what it will be.

/// The finalizer of SplitMix64: neighbouring numbers come out far apart.
pub fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From 0 to just below 1.
pub fn share(number: u64) -> f64 {
    // The upper 53 bits are all that a float can tell apart.
    (scatter(number) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_spread_evenly_and_always_alike() {
        let mut tenths = [0; 10];
        for number in 0..10_000 {
            let share = share(number);
            assert!((0.0..1.0).contains(&share));
            tenths[(share * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|n| (900..1100).contains(n)), "{tenths:?}");
        assert_eq!(share(7), share(7));
        assert!(share(u64::MAX) < 1.0);
    }
}
