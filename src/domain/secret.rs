//! Secrets are types: they have no `Display` and no `Serialize`, `Debug` prints the type's name, the memory is wiped
//! when they go, and [`expose`](Pin::expose) is the one loud, greppable way in.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

macro_rules! secret_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Zeroize, ZeroizeOnDrop)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: String) -> $name {
                $name(text)
            }

            /// The value itself. Every call is a place where it could leak.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

secret_text!(
    /// A PIN in plain digits. Text, never a number: leading zeros count.
    Pin
);
secret_text!(
    /// A card assignment code in plain digits. Text, never a number: leading zeros count.
    Code
);
secret_text!(
    /// A user's password in plain text.
    Password
);
secret_text!(
    /// A credential as the database holds it. As secret as the PIN: the MD5 of six digits *is* the six digits.
    StoredValue
);
secret_text!(
    /// A password or another secret of the configuration.
    Secret
);

/// A 256-bit key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl Key {
    pub fn new(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_tells_the_type_and_nothing_else() {
        assert_eq!(format!("{:?}", Pin::new("123456".into())), "Pin(…)");
        assert_eq!(format!("{:?} {:?}", Code::new("123456".into()), Password::new("hunter2".into())), "Code(…) Password(…)");
        assert_eq!(format!("{:?}", Some(StoredValue::new("PINabc".into()))), "Some(StoredValue(…))");
        assert_eq!(format!("{:?}", Key::new([7; 32])), "Key(…)");
    }
}
