//! The kinds of credential, and a figure for each of them.

use std::ops::{Index, IndexMut};

/// What a user can prove himself with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Credential {
    Pin,
    /// The card assignment code, formerly PUK.
    Code,
    Password,
}

impl Credential {
    pub const ALL: [Credential; 3] = [Credential::Pin, Credential::Code, Credential::Password];

    /// The key of its rule in a policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Credential::Pin => "pin",
            Credential::Code => "card_assignment_code",
            Credential::Password => "password",
        }
    }

    /// Several of them, said to a person.
    pub fn plural(self) -> &'static str {
        match self {
            Credential::Pin => "PINs",
            Credential::Code => "card assignment codes",
            Credential::Password => "passwords",
        }
    }
}

/// One figure for each kind of credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Each<T>([T; 3]);

impl Each<u64> {
    /// So many of one kind, and none of the others.
    pub fn of(kind: Credential, figure: u64) -> Each<u64> {
        let mut each = Each::default();
        each[kind] = figure;
        each
    }
}

impl<T> Index<Credential> for Each<T> {
    type Output = T;

    fn index(&self, of: Credential) -> &T {
        &self.0[of as usize]
    }
}

impl<T> IndexMut<Credential> for Each<T> {
    fn index_mut(&mut self, of: Credential) -> &mut T {
        &mut self.0[of as usize]
    }
}
