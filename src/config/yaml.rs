//! YAML as a tree in which every node knows its line and column.
//!
//! A tree rather than serde's structs, because a configuration is to be judged whole: serde stops at the first key that
//! does not fit, and forgets where the others stood. All that the crate knows of the YAML library is in this file.

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, options};

use crate::domain::Secret;

/// 1-based line and column, in characters. Absent: not from the file, but from a profile that is built in.
pub(super) type Place = Option<(usize, usize)>;

/// No `Debug`: any scalar may be a password.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) data: Data,
}

#[derive(Clone)]
pub(super) enum Data {
    Null,
    /// `plain`: not in quotes and no block, so that `true` is a truth value and not a word.
    Scalar {
        text: String,
        plain: bool,
    },
    /// A scalar that was sealed, or holds something that was: never shown.
    Opened(Secret),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Valid YAML that means nothing here, and why.
    Refused(&'static str),
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Place,
    pub(super) value: Node,
}

/// Stands for a section that is not there.
pub(super) static NOTHING: Node = Node { at: None, data: Data::Map(Vec::new()) };

/// A text that is no YAML document.
#[derive(Debug, PartialEq)]
pub(super) struct SyntaxError {
    pub(super) at: Place,
    pub(super) message: String,
}

impl Node {
    pub(super) fn null(at: Place) -> Node {
        Node { at, data: Data::Null }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }
}

/// The one document in `text`; an empty text is a null.
///
/// # Errors
/// The first place that cannot be read. Duplicate keys are kept, for the caller to report.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut events = events(text);
    let mut document = None;
    while let Some(event) = events.next() {
        let (event, span) = event.map_err(not_yaml).map_err(|error| explained(error, text))?;
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(..) if document.is_some() => {
                return Err(SyntaxError { at: place(&span), message: "a second document begins here; write one only".to_owned() });
            }
            Event::DocumentStart(..) => {}
            event => document = Some(node(event, &span, &mut events).map_err(|error| explained(error, text))?),
        }
    }
    Ok(document.unwrap_or(Node::null(Some((1, 1)))))
}

/// A mapping with the one entry `key` of the document's own mapping, as long as the text can be read up to there: for a
/// configuration that is not finished.
pub(super) fn first(text: &str, key: &str) -> Option<Node> {
    let mut events = events(text.strip_prefix('\u{feff}').unwrap_or(text));
    loop {
        match next(&mut events).ok()?? {
            (Event::MappingStart(..), _) => break,
            (Event::StreamStart | Event::DocumentStart(..), _) => {}
            _ => return None,
        }
    }
    loop {
        let (Event::Scalar(found, ..), at) = next(&mut events).ok()?? else { return None };
        let (event, span) = next(&mut events).ok()??;
        let value = node(event, &span, &mut events).ok()?;
        if found == key {
            let entry = Entry { key: key.to_owned(), at: place(&at), value };
            return Some(Node { at: entry.at, data: Data::Map(vec![entry]) });
        }
    }
}

type Events<'t> = Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>;

fn events(text: &str) -> Events<'_> {
    let options = options! { emit_comments: false, emit_unresolved_aliases: true, flow_nesting_limit: 64, block_nesting_limit: 64 };
    Parser::new_from_str_with_options(text, options)
}

fn node<'t>(event: Event<'t>, span: &Span, events: &mut Events<'t>) -> Result<Node, SyntaxError> {
    let at = place(span);
    if event.tag().is_some() && event.scalar().is_some() {
        return Ok(Node { at, data: Data::Refused("tags (`!…`) are not known here; put a value that begins with ! in quotes") });
    }
    let data = match event {
        Event::Scalar(text, style, ..) => scalar(text.into_owned(), style),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            while let Some((event, span)) = next(events)? {
                if event == Event::SequenceEnd {
                    break;
                }
                items.push(node(event, &span, events)?);
            }
            Data::List(items)
        }
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            while let Some((event, span)) = next(events)? {
                let Event::Scalar(key, ..) = event else {
                    if event == Event::MappingEnd {
                        break;
                    }
                    let message = "a key must be a word".to_owned();
                    return Err(SyntaxError { at: place(&span), message });
                };
                let Some((event, value_span)) = next(events)? else { break };
                let value = node(event, &value_span, events)?;
                entries.push(Entry { key: key.into_owned(), at: place(&span), value });
            }
            Data::Map(entries)
        }
        _ => Data::Refused("anchors and aliases are not known here; put a value that begins with * or & in quotes"),
    };
    Ok(Node { at, data })
}

fn next<'t>(events: &mut Events<'t>) -> Result<Option<(Event<'t>, Span)>, SyntaxError> {
    events.next().transpose().map_err(not_yaml)
}

fn scalar(text: String, style: ScalarStyle) -> Data {
    let plain = style == ScalarStyle::Plain;
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" if plain => Data::Null,
        _ => Data::Scalar { text, plain },
    }
}

fn place(span: &Span) -> Place {
    Some((span.start.line(), span.start.col() + 1))
}

/// The library's messages name rules of YAML, never the text.
fn not_yaml(error: ScanError) -> SyntaxError {
    let marker = error.marker();
    SyntaxError { at: Some((marker.line(), marker.col() + 1)), message: format!("this is not valid YAML: {}", error.kind()) }
}

/// The error seen most often gets advice: a regular expression or a `{{ variable }}` without quotes.
fn explained(error: SyntaxError, text: &str) -> SyntaxError {
    let line = error.at.and_then(|(line, _)| text.lines().nth(line.saturating_sub(1))).unwrap_or_default();
    let value = line.split_once(": ").map_or(line, |(_, value)| value);
    match value.trim_start_matches([' ', '-']).chars().next() {
        Some(first) if "[{*&!%@`|>".contains(first) => {
            SyntaxError { message: format!("{}; a text that begins with {first} must stand in quotes", error.message), ..error }
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node) -> String {
        let at = node.at.map_or(String::new(), |(line, column)| format!("@{line}:{column}"));
        match &node.data {
            Data::Null => format!("null{at}"),
            Data::Scalar { text, plain } => format!("{}{text}{at}", if *plain { "" } else { "'" }),
            Data::Opened(_) => format!("opened{at}"),
            Data::List(items) => format!("[{}]{at}", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Data::Map(entries) => {
                let entry = |e: &Entry| format!("{}@{:?}={}", e.key, e.at.unwrap_or_default(), show(&e.value));
                format!("{{{}}}{at}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
            Data::Refused(_) => format!("refused{at}"),
        }
    }

    #[test]
    fn every_node_knows_where_it_stands() {
        let tree = parse("a: 1\nb:\n  - x\n  - 'y: z'\nc: {d: , e: ~}\n").unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(show(&tree), "{a@(1, 1)=1@1:4 b@(2, 1)=[x@3:5 'y: z@4:5]@3:3 c@(5, 1)={d@(5, 5)=null@5:6 e@(5, 10)=null@5:13}@5:4}@1:1");
    }

    #[test]
    fn a_mark_of_byte_order_and_windows_line_ends_change_nothing() {
        let unix = parse("a: 1\nb: |\n  x\n  y\n").map(|tree| show(&tree));
        let windows = parse("\u{feff}a: 1\r\nb: |\r\n  x\r\n  y\r\n").map(|tree| show(&tree));
        assert_eq!(unix.unwrap(), windows.unwrap());
    }

    #[test]
    fn nothing_is_a_null() {
        for empty in ["", "\n", "# only a comment\n", "---\n"] {
            assert!(matches!(parse(empty).map(|tree| tree.data), Ok(Data::Null)), "{empty:?}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_refused_where_it_stands() {
        for (text, at) in [
            ("a: [1, 2\nb: 3\n", (2, 2)),
            ("a: 'x\n", (1, 4)),
            ("a:\n\t- b\n", (2, 2)),
            ("a: {{ name }}\n", (1, 5)),
            ("a: 1\n---\nb: 2\n", (2, 1)),
        ] {
            match parse(text) {
                Ok(tree) => panic!("{text:?} was read as {}", show(&tree)),
                Err(error) => assert_eq!(error.at, Some(at), "{text:?}: {}", error.message),
            }
        }
    }

    #[test]
    fn aliases_and_tags_are_kept_for_the_caller_to_refuse() {
        let tree = parse("a: *@example.com\nb: !x y\nc: &d e\n").unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(show(&tree), "{a@(1, 1)=refused@1:4 b@(2, 1)=refused@2:7 c@(3, 1)=e@3:7}@1:1");
    }

    #[test]
    fn one_entry_is_found_in_a_text_that_is_broken_behind_it() {
        let found = |text: &str| first(text, "key").map(|node| show(&node));
        assert_eq!(found("a: [1, {b: 2}]\nkey: {file: x}\nc: [1\nd").as_deref(), Some("{key@(2, 1)={file@(2, 7)=x@2:13}@2:6}@2:1"));
        assert!(found("\u{feff}key: {}\n}").is_some());
        for absent in ["", "a: 1", "- key: x", "a: {key: x}", "a: [1\nkey: x", "{{ name }}"] {
            assert_eq!(found(absent), None, "{absent:?}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse(&"- ".repeat(10_000)).is_err());
    }
}
