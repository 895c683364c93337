//! PINs: their length, which are too easy, and the forms in which the print system stores them.

use md5::{Digest, Md5};

use super::secret::{Pin, StoredValue};

/// How many digits a PIN has: 1 to 16. Hardware terminals take 2 to 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PinLength(u8);

impl PinLength {
    pub const MIN: u8 = 1;
    pub const MAX: u8 = 16;

    pub fn new(digits: u8) -> Option<PinLength> {
        (Self::MIN..=Self::MAX).contains(&digits).then_some(PinLength(digits))
    }

    pub fn digits(self) -> usize {
        self.0.into()
    }

    /// How many PINs of this length there are, trivial ones included.
    pub fn space(self) -> u64 {
        10u64.pow(self.0.into())
    }
}

/// The print system's property `conversionPIN`: how a PIN stands in the card column (product rule R9).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PinFormat {
    /// `PIN` and the lower-case hex MD5 of the digits.
    Md5,
    /// The lower-case hex MD5 of the digits.
    Md5WithoutPrefix,
    /// `PIN` and the digits.
    Prefix,
    /// The digits; whatever is longer than the site's threshold is a card.
    Plain { max_length: u8 },
}

impl PinFormat {
    /// The word for it in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            PinFormat::Md5 => "md5",
            PinFormat::Md5WithoutPrefix => "md5_without_prefix",
            PinFormat::Prefix => "prefix",
            PinFormat::Plain { .. } => "plain",
        }
    }

    /// The stored form of `pin`.
    pub fn encode(self, pin: &Pin) -> StoredValue {
        let digits = pin.expose();
        StoredValue::new(match self {
            PinFormat::Md5 => format!("PIN{}", md5_hex(digits)),
            PinFormat::Md5WithoutPrefix => md5_hex(digits),
            PinFormat::Prefix => format!("PIN{digits}"),
            PinFormat::Plain { .. } => digits.to_owned(),
        })
    }

    /// Whether a stored value is a PIN in this form. What is not is a card, and never touched.
    pub fn is_pin(self, stored: &str) -> bool {
        match self {
            PinFormat::Md5 => stored.strip_prefix("PIN").is_some_and(is_hex32),
            PinFormat::Md5WithoutPrefix => is_hex32(stored),
            PinFormat::Prefix => stored.strip_prefix("PIN").is_some_and(is_digits),
            PinFormat::Plain { max_length } => is_digits(stored) && stored.len() <= max_length.into(),
        }
    }

    /// `pin` in every form that a database may hold it in: a new PIN must stand nowhere in any of them (R7).
    pub fn every_form(pin: &Pin) -> [StoredValue; 4] {
        [PinFormat::Md5, PinFormat::Md5WithoutPrefix, PinFormat::Prefix, PinFormat::Plain { max_length: PinLength::MAX }]
            .map(|form| form.encode(pin))
    }
}

/// A PIN that stands somewhere, in every form that can be made of what its stored value tells.
pub fn forms_of(stored: &StoredValue) -> [StoredValue; 4] {
    match trace(stored.expose()) {
        Some(Trace::Digits(digits)) => PinFormat::every_form(&Pin::new(digits.to_owned())),
        Some(Trace::Digest(digest)) => {
            let bare = StoredValue::new(format!("{digest:032x}"));
            [StoredValue::new(format!("PIN{digest:032x}")), bare, stored.clone(), stored.clone()]
        }
        None => [(); 4].map(|()| stored.clone()),
    }
}

/// What a stored value tells of a PIN, in whichever form it stands: the inverse of [`PinFormat::encode`], as far as there is
/// one. Of a digest only trying tells the digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trace<'a> {
    Digits(&'a str),
    Digest(u128),
}

/// `None`: no PIN form explains the value, so it is a card.
pub fn trace(stored: &str) -> Option<Trace<'_>> {
    let bare = stored.strip_prefix("PIN").unwrap_or(stored);
    if is_hex32(bare) {
        return u128::from_str_radix(bare, 16).ok().map(Trace::Digest);
    }
    is_digits(bare).then_some(Trace::Digits(bare))
}

/// The MD5 of the digits: the one name that a PIN has in every form.
pub fn digest(digits: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(digits.as_bytes()).into())
}

/// The same for a stored value; `None` for a card.
pub fn digest_of(stored: &StoredValue) -> Option<u128> {
    trace(stored.expose()).map(|trace| match trace {
        Trace::Digits(digits) => digest(digits),
        Trace::Digest(digest) => digest,
    })
}

fn is_hex32(s: &str) -> bool {
    s.len() == 32 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_digits(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())
}

fn md5_hex(digits: &str) -> String {
    format!("{:032x}", digest(digits))
}

/// Whether a PIN is among the first that somebody would guess: all digits equal, a run up or down (wrapping from 9 to
/// 0), or one half repeated. Product rule R7.
pub fn is_trivial(digits: &[u8]) -> bool {
    let step = |by: u8| digits.windows(2).all(|w| (w[0] - b'0' + by) % 10 == w[1] - b'0');
    let (left, right) = digits.split_at(digits.len() / 2);
    step(0) || step(1) || step(9) || (digits.len() >= 4 && left == right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(s: &str) -> Pin {
        Pin::new(s.to_owned())
    }

    #[test]
    fn stored_forms_follow_the_published_vectors() {
        let hex = "81dc9bdb52d04dc20036dbd8313ed055"; // MD5 of 1234, checked with md5sum
        let forms = PinFormat::every_form(&pin("1234"));
        let expected = [format!("PIN{hex}"), hex.to_owned(), "PIN1234".to_owned(), "1234".to_owned()];
        for (form, expected) in forms.iter().zip(expected) {
            assert_eq!(form.expose(), expected);
        }
        assert_eq!(PinFormat::Md5.encode(&pin("0000")).expose(), "PIN4a7d1ed414474e4033ac29ccb8653d9b");
    }

    #[test]
    fn a_value_that_no_form_explains_is_a_card() {
        let md5 = PinFormat::Md5;
        assert!(md5.is_pin("PIN81dc9bdb52d04dc20036dbd8313ed055"));
        for card in [
            "81dc9bdb52d04dc20036dbd8313ed055",
            "PIN81DC9BDB52D04DC20036DBD8313ED055",
            "PINEAPPLE",
            "PIN1234",
            "",
            "PIN",
            "PIN81dc9bdb52d04dc20036dbd8313ed055\n",
            "pin81dc9bdb52d04dc20036dbd8313ed055",
        ] {
            assert!(!md5.is_pin(card), "{card:?}");
        }
        assert!(PinFormat::Plain { max_length: 6 }.is_pin("123456"));
        assert!(!PinFormat::Plain { max_length: 6 }.is_pin("1234567"));
        assert!(!PinFormat::Prefix.is_pin("PIN12a4"));
    }

    #[test]
    fn every_form_has_its_inverse() {
        let pin = pin("004711");
        for form in PinFormat::every_form(&pin) {
            assert_eq!(digest_of(&form), Some(digest("004711")));
            match trace(form.expose()) {
                Some(Trace::Digits(digits)) => assert_eq!(digits, "004711"),
                Some(Trace::Digest(found)) => assert_eq!(found, digest("004711")),
                None => panic!("a form that is a card"),
            }
        }
        for card in ["", "PIN", "PINEAPPLE", "04A1B2C3D4", "81DC9BDB52D04DC20036DBD8313ED055", "12 34", "+1"] {
            assert!(trace(card).is_none(), "{card:?}");
        }
        // 32 digits are hexadecimal too: under a form with digests that is what they are.
        assert!(matches!(trace(&"1".repeat(32)), Some(Trace::Digest(_))));
    }

    #[test]
    fn trivial_pins_are_known() {
        for easy in ["0000", "1234", "9876", "890123", "3210", "109876", "123123", "4747", "7"] {
            assert!(is_trivial(easy.as_bytes()), "{easy}");
        }
        for fine in ["1357", "0918", "123124", "740218", "1233"] {
            assert!(!is_trivial(fine.as_bytes()), "{fine}");
        }
    }
}
