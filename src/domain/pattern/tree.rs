//! A pattern as Python's compiler sees it. Flags are gone: each has been carried out in what it reigns over.

use super::case::Case;
use super::set::Set;

/// A whole pattern.
#[derive(Debug)]
pub(super) struct Tree {
    pub node: Node,
    /// How many groups capture. They count from 1.
    pub groups: usize,
}

#[derive(Debug)]
pub(super) enum Node {
    Char(char),
    Set(Set),
    /// `.`, which takes a newline only under `(?s)`.
    Any {
        newline: bool,
    },
    At(Place),
    Sequence(Vec<Node>),
    Alternatives(Vec<Node>),
    Group(usize, Box<Node>),
    Repeat {
        bounds: Bounds,
        manner: Manner,
        body: Box<Node>,
    },
    Atomic(Box<Node>),
    Look {
        /// For a look-behind: how many characters it looks at.
        behind: Option<usize>,
        negative: bool,
        body: Box<Node>,
    },
    Reference {
        group: usize,
        case: Case,
    },
    /// `(?(1)yes|no)`
    Conditional {
        group: usize,
        yes: Box<Node>,
        no: Box<Node>,
    },
}

/// A condition on the place, which takes no character.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Start,
    LineStart,
    End,
    /// `$`: the end, or before a newline that is last.
    EndOrLastNewline,
    LineEnd,
    /// `\b`, or `\B` where `negated`.
    WordEdge {
        negated: bool,
        ascii: bool,
    },
}

/// How often something is repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    pub least: u32,
    /// `None`: as often as may be.
    pub most: Option<u32>,
}

impl Bounds {
    pub fn allow(self, count: u32) -> bool {
        self.most.is_none_or(|most| count <= most)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// `a*`
    Greedy,
    /// `a*?`
    Lazy,
    /// `a*+`: gives nothing back.
    Possessive,
}

/// How many characters something takes. Saturated: the greatest number stands for itself and all above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Width {
    pub least: u64,
    pub most: u64,
}

impl Width {
    pub const ZERO: Width = Width { least: 0, most: 0 };
    const ONE: Width = Width { least: 1, most: 1 };

    fn then(self, next: Width) -> Width {
        Width { least: self.least.saturating_add(next.least), most: self.most.saturating_add(next.most) }
    }

    fn or(self, other: Width) -> Width {
        Width { least: self.least.min(other.least), most: self.most.max(other.most) }
    }
}

impl Node {
    /// A back-reference is as wide as its group, of which `groups` tells, if it is closed where this node stands.
    pub fn width(&self, groups: &dyn Fn(usize) -> Option<Width>) -> Width {
        match self {
            Node::Char(_) | Node::Set(_) | Node::Any { .. } => Width::ONE,
            Node::At(_) | Node::Look { .. } => Width::ZERO,
            Node::Sequence(items) => items.iter().fold(Width::ZERO, |sum, item| sum.then(item.width(groups))),
            Node::Alternatives(items) => items.iter().map(|item| item.width(groups)).reduce(Width::or).unwrap_or(Width::ZERO),
            Node::Group(_, body) | Node::Atomic(body) => body.width(groups),
            Node::Conditional { yes, no, .. } => yes.width(groups).or(no.width(groups)),
            Node::Reference { group, .. } => groups(*group).unwrap_or(Width { least: 0, most: u64::MAX }),
            Node::Repeat { bounds, body, .. } => {
                let once = body.width(groups);
                let most = match bounds.most {
                    _ if once.most == 0 => 0,
                    Some(most) => once.most.saturating_mul(most.into()),
                    None => u64::MAX,
                };
                Width { least: once.least.saturating_mul(bounds.least.into()), most }
            }
        }
    }
}
