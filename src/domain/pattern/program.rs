//! A pattern as instructions for the backtracking machine.

use super::case::Case;
use super::set::Set;
use super::tree::{Bounds, Manner, Node, Place, Tree};

/// Instructions of one pattern. It begins at the first and has matched at the first [`Op::Done`].
#[derive(Debug)]
pub(super) struct Program {
    pub ops: Vec<Op>,
    pub groups: usize,
    pub loops: usize,
}

/// Where nothing else is said, the next instruction follows.
#[derive(Debug)]
pub(super) enum Op {
    Char(char),
    Set(Set),
    Any {
        newline: bool,
    },
    At(Place),
    /// Notes the place: slot 2n is where the n-th group begins, 2n+1 where it ends.
    Mark(usize),
    /// Goes on at the next instruction and, should that fail, at the given one.
    OrElse(usize),
    Jump(usize),
    /// Repeats the next instruction, which takes one character, and goes on after it.
    RepeatOne {
        bounds: Bounds,
        manner: Manner,
    },
    /// Sets a loop's counter to nothing.
    Enter(usize),
    /// At the begin of each round, the first included: `OneMore` follows, then the body, then `Again`.
    Round {
        counter: usize,
        bounds: Bounds,
        lazy: bool,
        exit: usize,
    },
    /// Notes where a round began that need not have been.
    OneMore(usize),
    /// One round is done; on to the `Round`.
    Again {
        counter: usize,
        round: usize,
    },
    /// Repeats what follows, up to its `Done`, without ever coming back to a round that is done.
    Possessive {
        bounds: Bounds,
        exit: usize,
    },
    /// What follows, up to its `Done`, matches in the first way in which it can, or not at all.
    Atomic {
        exit: usize,
    },
    /// As `Atomic`, from so many characters before, and stays where it was.
    Look {
        behind: usize,
        negative: bool,
        exit: usize,
    },
    Reference {
        group: usize,
        case: Case,
    },
    /// Goes on at the given instruction if the group has matched nothing.
    Unless {
        group: usize,
        otherwise: usize,
    },
    Done,
}

pub(super) fn compile(tree: &Tree) -> Program {
    let mut program = Program { ops: Vec::new(), groups: tree.groups, loops: 0 };
    program.add(&tree.node);
    program.ops.push(Op::Done);
    program
}

impl Program {
    fn add(&mut self, node: &Node) {
        match node {
            Node::Char(c) => self.ops.push(Op::Char(*c)),
            Node::Set(set) => self.ops.push(Op::Set(set.clone())),
            Node::Any { newline } => self.ops.push(Op::Any { newline: *newline }),
            Node::At(place) => self.ops.push(Op::At(*place)),
            Node::Reference { group, case } => self.ops.push(Op::Reference { group: group - 1, case: *case }),
            Node::Sequence(items) => items.iter().for_each(|item| self.add(item)),
            Node::Alternatives(items) => self.add_alternatives(items),
            Node::Group(number, body) => {
                self.ops.push(Op::Mark(2 * (number - 1)));
                self.add(body);
                self.ops.push(Op::Mark(2 * (number - 1) + 1));
            }
            Node::Repeat { bounds, manner, body } if matches!(**body, Node::Char(_) | Node::Set(_) | Node::Any { .. }) => {
                self.ops.push(Op::RepeatOne { bounds: *bounds, manner: *manner });
                self.add(body);
            }
            Node::Repeat { bounds, manner: Manner::Possessive, body } => {
                self.enclose(body, |exit| Op::Possessive { bounds: *bounds, exit })
            }
            Node::Repeat { bounds, manner, body } => self.add_loop(*bounds, *manner, body),
            Node::Atomic(body) => self.enclose(body, |exit| Op::Atomic { exit }),
            Node::Look { behind, negative, body } => {
                self.enclose(body, |exit| Op::Look { behind: behind.unwrap_or(0), negative: *negative, exit });
            }
            Node::Conditional { group, yes, no } => {
                let group = group - 1;
                let unless = self.later();
                self.add(yes);
                let to_end = self.later();
                self.ops[unless] = Op::Unless { group, otherwise: self.ops.len() };
                self.add(no);
                self.ops[to_end] = Op::Jump(self.ops.len());
            }
        }
    }

    fn add_alternatives(&mut self, items: &[Node]) {
        let mut to_end = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let is_last = index + 1 == items.len();
            let or_else = (!is_last).then(|| self.later());
            self.add(item);
            if let Some(or_else) = or_else {
                to_end.push(self.later());
                self.ops[or_else] = Op::OrElse(self.ops.len());
            }
        }
        for jump in to_end {
            self.ops[jump] = Op::Jump(self.ops.len());
        }
    }

    fn add_loop(&mut self, bounds: Bounds, manner: Manner, body: &Node) {
        let counter = self.loops;
        self.loops += 1;
        self.ops.push(Op::Enter(counter));
        let round = self.later();
        self.ops.push(Op::OneMore(counter));
        self.add(body);
        self.ops.push(Op::Again { counter, round });
        self.ops[round] = Op::Round { counter, bounds, lazy: manner == Manner::Lazy, exit: self.ops.len() };
    }

    fn enclose(&mut self, body: &Node, op: impl FnOnce(usize) -> Op) {
        let at = self.later();
        self.add(body);
        self.ops.push(Op::Done);
        self.ops[at] = op(self.ops.len());
    }

    /// Leaves room for an instruction that needs to know what follows.
    fn later(&mut self) -> usize {
        self.ops.push(Op::Done);
        self.ops.len() - 1
    }
}
