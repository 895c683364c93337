//! Shares of a whole, and limits that can be switched off.

use std::fmt;

/// A share of a whole, 0 to 1; written `5%` in the configuration.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Share(f64);

impl Share {
    /// `percent` from 0 to 100; `None` outside that range.
    pub fn percent(percent: f64) -> Option<Share> {
        (0.0..=100.0).contains(&percent).then_some(Share(percent / 100.0))
    }

    /// 0 to 1.
    pub fn ratio(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One decimal at most: 5% stays 5%, 12.5% stays 12.5%.
        let tenths = (self.0 * 1000.0).round() / 10.0;
        write!(f, "{tenths}%")
    }
}

/// A bound, or the word `unlimited` where the administrator wants none.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit<T> {
    At(T),
    Unlimited,
}

impl<T: PartialOrd + Copy> Limit<T> {
    pub fn exceeded_by(&self, value: T) -> bool {
        matches!(self, Limit::At(bound) if value > *bound)
    }
}

impl<T: fmt::Display> fmt::Display for Limit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::At(bound) => bound.fmt(f),
            Limit::Unlimited => f.write_str("unlimited"),
        }
    }
}
