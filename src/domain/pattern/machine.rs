//! Runs a program, going back to the last choice whenever it cannot go on: what Python's own engine does, in the same order,
//! so that the same groups capture the same text. Unlike Python's, it counts its steps and gives up.
//!
//! Everything that can be undone lies on one stack: choices, and what a group or a counter was before it changed. Where
//! Python would recurse with the length of the text, the stack grows; only atomic groups and look-around recurse, as deep as
//! the pattern nests them.

use super::TooManySteps;
use super::case::Case;
use super::program::{Op, Program};
use super::set::{Class, Kind};
use super::tree::{Bounds, Manner, Place};

/// One evaluation takes at most so many steps, which is about ten milliseconds and ten megabytes. A login of ten thousand
/// characters is walked through a dozen times; what takes more goes through all combinations of something.
pub(super) const STEPS: usize = 250_000;

/// Whether the whole of `text` matches.
///
/// # Errors
/// After [`STEPS`] without an answer.
pub(super) fn matches(program: &Program, text: &str) -> Result<bool, TooManySteps> {
    let mut machine = Machine {
        program,
        text: text.chars().collect(),
        marks: vec![None; 2 * program.groups],
        counters: vec![Counter::default(); program.loops],
        stack: Vec::new(),
        steps_left: STEPS,
    };
    Ok(machine.run(0, 0, Ends::AtTheEnd)?.is_some())
}

/// Where a run may end.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Anywhere,
    AtTheEnd,
}

#[derive(Clone, Copy, Default)]
struct Counter {
    rounds: u32,
    /// Where the last round began that need not have been: another that begins there would take nothing again.
    begun: Option<usize>,
}

enum Undo {
    /// Go on here.
    Choice {
        op: usize,
        at: usize,
    },
    /// Characters that the `RepeatOne` took, of which it gives the last back.
    GiveBack {
        op: usize,
        least: usize,
        at: usize,
    },
    /// A lazy `RepeatOne` that could take one more.
    TakeMore {
        op: usize,
        at: usize,
        taken: u32,
    },
    Mark {
        slot: usize,
        was: Option<usize>,
    },
    Counter {
        counter: usize,
        was: Counter,
    },
}

struct Machine<'p> {
    program: &'p Program,
    text: Vec<char>,
    marks: Vec<Option<usize>>,
    counters: Vec<Counter>,
    stack: Vec<Undo>,
    steps_left: usize,
}

impl Machine<'_> {
    /// From an instruction to its `Done`. Where the text stands then, or `None` with everything as it was before. Choices stay
    /// on the stack, so that the caller can still undo or forget them.
    fn run(&mut self, op: usize, at: usize, ends: Ends) -> Result<Option<usize>, TooManySteps> {
        let base = self.stack.len();
        let mut next = Some((op, at));
        loop {
            self.spend(1)?;
            let Some((op, at)) = next else {
                match self.undo_one(base)? {
                    Some(choice) => next = Some(choice),
                    None => return Ok(None),
                }
                continue;
            };
            if let Op::Done = self.program.ops[op] {
                if ends == Ends::Anywhere || at == self.text.len() {
                    return Ok(Some(at));
                }
                next = None;
            } else {
                next = self.step(op, at)?;
            }
        }
    }

    /// One instruction: where to go on, or `None` for back.
    fn step(&mut self, op: usize, at: usize) -> Result<Option<(usize, usize)>, TooManySteps> {
        let program = self.program;
        Ok(match &program.ops[op] {
            Op::Char(_) | Op::Set(_) | Op::Any { .. } => self.takes(op, at).then_some((op + 1, at + 1)),
            Op::At(place) => self.is_at(*place, at).then_some((op + 1, at)),
            Op::Mark(slot) => {
                self.mark(*slot, Some(at));
                Some((op + 1, at))
            }
            Op::OrElse(other) => {
                self.stack.push(Undo::Choice { op: *other, at });
                Some((op + 1, at))
            }
            Op::Jump(to) => Some((*to, at)),
            Op::RepeatOne { bounds, manner } => self.repeat_one(op, at, *bounds, *manner)?,
            Op::Enter(counter) => {
                self.count(*counter, Counter::default());
                Some((op + 1, at))
            }
            Op::Round { counter, bounds, lazy, exit } => {
                let now = self.counters[*counter];
                if now.rounds < bounds.least {
                    Some((op + 2, at))
                } else if bounds.most == Some(now.rounds) || now.begun == Some(at) {
                    Some((*exit, at))
                } else {
                    let (first, second) = if *lazy { (*exit, op + 1) } else { (op + 1, *exit) };
                    self.stack.push(Undo::Choice { op: second, at });
                    Some((first, at))
                }
            }
            Op::OneMore(counter) => {
                let now = self.counters[*counter];
                self.count(*counter, Counter { begun: Some(at), ..now });
                Some((op + 1, at))
            }
            Op::Again { counter, round } => {
                let now = self.counters[*counter];
                self.count(*counter, Counter { rounds: now.rounds.saturating_add(1), ..now });
                Some((*round, at))
            }
            Op::Possessive { bounds, exit } => self.possessive(op + 1, at, *bounds)?.map(|at| (*exit, at)),
            Op::Atomic { exit } => self.atomic(op + 1, at)?.map(|at| (*exit, at)),
            Op::Look { behind, negative, exit } => {
                let base = self.stack.len();
                let found = match at.checked_sub(*behind) {
                    Some(from) => self.atomic(op + 1, from)?.is_some(),
                    None => false,
                };
                if found && *negative {
                    self.undo_to(base)?;
                }
                (found != *negative).then_some((*exit, at))
            }
            Op::Reference { group, case } => match self.span(*group) {
                Some((from, to)) => self.repeats(from, to, at, *case)?.then_some((op + 1, at + (to - from))),
                None => None,
            },
            Op::Unless { group, otherwise } => Some((if self.span(*group).is_some() { op + 1 } else { *otherwise }, at)),
            Op::Done => None,
        })
    }

    fn repeat_one(&mut self, op: usize, from: usize, bounds: Bounds, manner: Manner) -> Result<Option<(usize, usize)>, TooManySteps> {
        let most = if manner == Manner::Lazy { Some(bounds.least) } else { bounds.most };
        let mut at = from;
        let mut taken = 0;
        while most.is_none_or(|most| taken < most) && self.takes(op + 1, at) {
            self.spend(1)?;
            (at, taken) = (at + 1, taken + 1);
        }
        if taken < bounds.least {
            return Ok(None);
        }
        match manner {
            Manner::Greedy => self.stack.push(Undo::GiveBack { op, least: from + bounds.least as usize, at }),
            Manner::Lazy => self.stack.push(Undo::TakeMore { op, at, taken }),
            Manner::Possessive => {}
        }
        Ok(Some((op + 2, at)))
    }

    /// Whether what stands between two places stands here again.
    fn repeats(&mut self, from: usize, to: usize, at: usize, case: Case) -> Result<bool, TooManySteps> {
        let there = &self.text[at..];
        let mut pairs = self.text[from..to].iter().zip(there);
        let differ = pairs.position(|(a, b)| case.lower(*a) != case.lower(*b));
        let fits = to - from <= there.len();
        self.spend(differ.unwrap_or(to - from))?;
        Ok(differ.is_none() && fits)
    }

    fn possessive(&mut self, op: usize, from: usize, bounds: Bounds) -> Result<Option<usize>, TooManySteps> {
        let base = self.stack.len();
        let mut at = from;
        let mut rounds = 0;
        while bounds.most != Some(rounds) {
            self.spend(1)?;
            match self.atomic(op, at)? {
                None if rounds < bounds.least => {
                    self.undo_to(base)?;
                    return Ok(None);
                }
                None => break,
                Some(to) if to == at && rounds >= bounds.least => break,
                Some(to) => (at, rounds) = (to, rounds + 1),
            }
        }
        Ok(Some(at))
    }

    /// A run of which no choice remains; that groups have changed can still be undone.
    fn atomic(&mut self, op: usize, at: usize) -> Result<Option<usize>, TooManySteps> {
        let base = self.stack.len();
        let end = self.run(op, at, Ends::Anywhere)?;
        self.spend(self.stack.len() - base)?;
        let mut kept = base;
        for index in base..self.stack.len() {
            if !self.stack[index].is_choice() {
                self.stack.swap(kept, index);
                kept += 1;
            }
        }
        self.stack.truncate(kept);
        Ok(end)
    }

    /// Back to the last choice above `base`; `None` if there was none.
    fn undo_one(&mut self, base: usize) -> Result<Option<(usize, usize)>, TooManySteps> {
        while self.stack.len() > base {
            self.spend(1)?;
            match self.stack.pop() {
                Some(Undo::Choice { op, at }) => return Ok(Some((op, at))),
                Some(Undo::GiveBack { op, least, at }) if at > least => {
                    self.stack.push(Undo::GiveBack { op, least, at: at - 1 });
                    return Ok(Some((op + 2, at - 1)));
                }
                Some(Undo::TakeMore { op, at, taken }) => {
                    let Op::RepeatOne { bounds, .. } = self.program.ops[op] else { continue };
                    if bounds.allow(taken.saturating_add(1)) && self.takes(op + 1, at) {
                        self.stack.push(Undo::TakeMore { op, at: at + 1, taken: taken.saturating_add(1) });
                        return Ok(Some((op + 2, at + 1)));
                    }
                }
                Some(Undo::Mark { slot, was }) => self.marks[slot] = was,
                Some(Undo::Counter { counter, was }) => self.counters[counter] = was,
                Some(Undo::GiveBack { .. }) | None => {}
            }
        }
        Ok(None)
    }

    /// Groups and counters as they were when the stack was so high.
    fn undo_to(&mut self, base: usize) -> Result<(), TooManySteps> {
        while self.stack.len() > base {
            self.spend(1)?;
            match self.stack.pop() {
                Some(Undo::Mark { slot, was }) => self.marks[slot] = was,
                Some(Undo::Counter { counter, was }) => self.counters[counter] = was,
                _ => {}
            }
        }
        Ok(())
    }

    fn mark(&mut self, slot: usize, at: Option<usize>) {
        let was = std::mem::replace(&mut self.marks[slot], at);
        self.stack.push(Undo::Mark { slot, was });
    }

    fn count(&mut self, counter: usize, now: Counter) {
        let was = std::mem::replace(&mut self.counters[counter], now);
        self.stack.push(Undo::Counter { counter, was });
    }

    /// What a group has matched. Within itself, that is what it matched in the round before, as far as it makes sense.
    fn span(&self, group: usize) -> Option<(usize, usize)> {
        let (from, to) = (self.marks[2 * group]?, self.marks[2 * group + 1]?);
        (from <= to).then_some((from, to))
    }

    fn takes(&self, op: usize, at: usize) -> bool {
        let Some(c) = self.text.get(at).copied() else { return false };
        match &self.program.ops[op] {
            Op::Char(wanted) => c == *wanted,
            Op::Set(set) => set.contains(c),
            Op::Any { newline } => *newline || c != '\n',
            _ => false,
        }
    }

    fn is_at(&self, place: Place, at: usize) -> bool {
        let left = at.checked_sub(1).and_then(|before| self.text.get(before)).copied();
        let right = self.text.get(at).copied();
        match place {
            Place::Start => left.is_none(),
            Place::LineStart => left.is_none_or(|c| c == '\n'),
            Place::End => right.is_none(),
            Place::LineEnd => right.is_none_or(|c| c == '\n'),
            Place::EndOrLastNewline => right.is_none() || (right == Some('\n') && at + 1 == self.text.len()),
            Place::WordEdge { negated, ascii } => {
                let word = Class { kind: Kind::Word, negated: false, ascii };
                let edge = left.is_some_and(|c| word.contains(c)) != right.is_some_and(|c| word.contains(c));
                edge != negated
            }
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), TooManySteps> {
        self.steps_left = self.steps_left.checked_sub(steps).ok_or(TooManySteps)?;
        Ok(())
    }
}

impl Undo {
    fn is_choice(&self) -> bool {
        matches!(self, Undo::Choice { .. } | Undo::GiveBack { .. } | Undo::TakeMore { .. })
    }
}
