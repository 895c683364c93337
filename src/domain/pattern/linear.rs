//! Writes a pattern anew for the `regex` crate, which runs in linear time whatever the pattern.

use regex::{Regex, RegexBuilder};

use super::parse::DEEPEST;
use super::tree::{Manner, Node, Place, Tree, Width};

/// Bytes that one compiled pattern may take: repeated Unicode classes are large, a slip such as `(\w{999}){999}` is larger.
const SIZE_LIMIT_BYTES: usize = 10 << 20;

/// The crate counts each repetition, sequence and alternative as a nest too.
const NEST_LIMIT: u32 = 10 * DEEPEST as u32;

/// `None` where that engine lacks something, or would take too much memory.
pub(super) fn compile(tree: &Tree) -> Option<Regex> {
    RegexBuilder::new(&write(tree)?).size_limit(SIZE_LIMIT_BYTES).nest_limit(NEST_LIMIT).build().ok()
}

/// Groups do not capture: only back-references ask what they matched.
pub(super) fn write(tree: &Tree) -> Option<String> {
    let mut out = r"\A(?:".to_owned();
    write_node(&mut out, &tree.node, true)?;
    out.push_str(r")\z");
    Some(out)
}

/// `last`: nothing that takes a character follows in the pattern.
fn write_node(out: &mut String, node: &Node, last: bool) -> Option<()> {
    match node {
        Node::Char(c) => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        Node::Set(set) => set.write(out),
        Node::Any { newline: true } => out.push_str("(?s:.)"),
        Node::Any { newline: false } => out.push('.'),
        Node::At(place) => out.push_str(match place {
            Place::Start => r"\A",
            Place::LineStart => "(?m:^)",
            Place::End => r"\z",
            Place::LineEnd => "(?m:$)",
            // The whole text is to match, so that it must end here.
            Place::EndOrLastNewline if last => r"\z",
            Place::WordEdge { ascii: true, negated: false } => r"(?-u:\b)",
            // The engine's words have other letters than Python's.
            Place::EndOrLastNewline | Place::WordEdge { .. } => return None,
        }),
        Node::Sequence(items) => {
            let takes = items.iter().rposition(|item| item.width(&|_| None) != Width::ZERO);
            for (index, item) in items.iter().enumerate() {
                write_node(out, item, last && takes.is_none_or(|takes| index >= takes))?;
            }
        }
        Node::Alternatives(items) => {
            out.push_str("(?:");
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push('|');
                }
                write_node(out, item, last)?;
            }
            out.push(')');
        }
        Node::Group(_, body) => write_node(out, body, last)?,
        Node::Repeat { bounds, manner: Manner::Greedy | Manner::Lazy, body } => {
            out.push_str("(?:");
            write_node(out, body, last && bounds.most.is_some_and(|most| most <= 1))?;
            out.push_str(&match bounds.most {
                Some(most) => format!("){{{},{most}}}", bounds.least),
                None => format!("){{{},}}", bounds.least),
            });
        }
        Node::Repeat { manner: Manner::Possessive, .. }
        | Node::Atomic(_)
        | Node::Look { .. }
        | Node::Reference { .. }
        | Node::Conditional { .. } => return None,
    }
    Some(())
}
