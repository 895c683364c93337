//! Reads one thing of a certificate: when it ends. Rustls judges certificates and tells no dates; a monitor wants to know
//! before it is too late, and for that no parser of the whole is needed.

use chrono::NaiveDateTime;

use crate::domain::Timestamp;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The end of the validity of a certificate in DER; `None` if this is none (RFC 5280, 4.1).
///
/// ```text
/// SEQUENCE { SEQUENCE { [0] version?, INTEGER serial, SEQUENCE algorithm, SEQUENCE issuer, SEQUENCE { Time, Time }, … } … }
/// ```
pub(super) fn expires(der: &[u8]) -> Option<Timestamp> {
    let mut fields = Der(Der(Der(der).take(SEQUENCE)?).take(SEQUENCE)?);
    if fields.tag() == Some(VERSION) {
        fields.take(VERSION)?;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields.take(tag)?;
    }
    let mut validity = Der(fields.take(SEQUENCE)?);
    validity.take_time()?;
    validity.take_time()
}

/// What is left of a sequence of values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next value, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let rest = self.0.strip_prefix(&[tag])?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match usize::from(*first) {
            short @ 0..=0x7f => (short, rest),
            // Certificates do not need more than 64 KiB.
            long @ 0x81..=0x82 => {
                let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    fn take_time(&mut self) -> Option<Timestamp> {
        let text = match self.tag()? {
            UTC_TIME => {
                let text = std::str::from_utf8(self.take(UTC_TIME)?).ok()?;
                let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
                format!("{century}{text}")
            }
            _ => std::str::from_utf8(self.take(GENERALIZED_TIME)?).ok()?.to_owned(),
        };
        let moment = NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok()?;
        Some(Timestamp(moment.and_utc().timestamp()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_end_is_read_before_and_after_the_year_2050() {
        for year in [2031, 2049, 2050, 3000] {
            let mut params = CertificateParams::new(vec!["mail.example.com".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 12, 2);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(expires(certificate.der()).map(|at| at.to_string()), Some(format!("{year}-12-02 00:00:00Z")));
            for cut in 0..certificate.der().len().min(120) {
                expires(&certificate.der()[..cut]);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            expires(&bytes);
            expires(&[&[0x30, 0x50, 0x30, 0x4e][..], &bytes].concat());
        }
    }
}
