//! Reading values from the tree, and noting each one that does not fit, so that all problems come out at once.
//!
//! A [`Section`] is a mapping whose known keys are asked for one by one; [`Section::finish`] then names those that nobody
//! asked for. A [`Field`] is one value with its dotted key. What cannot be read is noted in the [`Reader`] and answered
//! with `None`: whoever asked goes on with a default, and the [`Config`](super::Config) is refused in the end.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::units::{self, DURATION_SHAPE, SHARE_SHAPE, SIZE_SHAPE};
use super::yaml::{Data, Entry, Node, Place};
use super::{ConfigProblems, Problem};
use crate::domain::time::span;
use crate::domain::{Limit, Secret, Share, printable};

/// An environment variable's value, by name.
type Environment = Box<dyn Fn(&str) -> Option<OsString>>;

/// Where problems and warnings gather, and what of the machine a configuration may ask for.
pub(super) struct Reader {
    /// Relative paths hang on it: the folder of the file.
    folder: PathBuf,
    environment: Environment,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
    shows_secret: Cell<bool>,
    /// What was opened, and may not be told.
    concealed: RefCell<Vec<Secret>>,
}

/// A mapping whose keys are known.
pub(super) struct Section<'a> {
    pub(super) reader: &'a Reader,
    key: String,
    at: Place,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
}

/// A value, and the dotted key that leads to it.
pub(super) struct Field<'a> {
    pub(super) reader: &'a Reader,
    pub(super) key: String,
    pub(super) node: &'a Node,
}

impl Reader {
    pub(super) fn new(folder: PathBuf, environment: impl Fn(&str) -> Option<OsString> + 'static) -> Reader {
        Reader {
            folder,
            environment: Box::new(environment),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            shows_secret: Cell::default(),
            concealed: RefCell::default(),
        }
    }

    pub(super) fn problem(&self, at: Place, key: &str, message: impl Into<String>) {
        let message = self.without_secrets(message.into());
        let problem = Problem { at, key: key.to_owned(), message };
        let mut problems = self.problems.borrow_mut();
        // A list of policies is read once for each database that it serves.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// One sentence for each start.
    pub(super) fn warn(&self, sentence: impl Into<String>) {
        let sentence = self.without_secrets(sentence.into());
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&sentence) {
            warnings.push(sentence);
        }
    }

    /// The same of a secret that stands in the file itself.
    pub(super) fn warn_of_secret(&self, sentence: impl Into<String>) {
        self.shows_secret.set(true);
        self.warn(sentence);
    }

    pub(super) fn shows_secret(&self) -> bool {
        self.shows_secret.get()
    }

    /// No message shows `secret` from now on.
    pub(super) fn conceal(&self, secret: &str) {
        if !secret.is_empty() {
            self.concealed.borrow_mut().push(Secret::new(secret.to_owned()));
        }
    }

    /// Whether `text` is something that was opened, or a part of it.
    pub(super) fn is_part_of_secret(&self, text: &str) -> bool {
        !text.is_empty() && self.concealed.borrow().iter().any(|secret| secret.expose().contains(text))
    }

    /// Whether `text` is, is part of, or holds something that was opened.
    pub(super) fn is_secret(&self, text: &str) -> bool {
        self.is_part_of_secret(text) || self.concealed.borrow().iter().any(|secret| text.contains(secret.expose()))
    }

    /// Messages are made without secrets; this is for those that repeat a host, a path or a name which somebody has sealed.
    fn without_secrets(&self, mut message: String) -> String {
        for secret in self.concealed.borrow().iter() {
            let escaped: String = secret.expose().chars().flat_map(char::escape_debug).collect();
            for shown in [secret.expose(), &escaped, &printable(secret.expose())] {
                message = without_word(&message, shown);
            }
        }
        message
    }

    pub(super) fn environment(&self, name: &str) -> Option<OsString> {
        (self.environment)(name)
    }

    pub(super) fn path(&self, written: &str) -> PathBuf {
        self.folder.join(written)
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// How many problems are noted so far.
    pub(super) fn count(&self) -> usize {
        self.problems.borrow().len()
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner()
    }

    /// In the order of the file; those without a place last.
    pub(super) fn into_problems(self, path: &Path) -> ConfigProblems {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.at.unwrap_or((usize::MAX, 0)));
        problems.dedup();
        ConfigProblems { path: path.to_owned(), problems }
    }

    /// Notes what is wrong wherever it stands, in parts too that nothing reads: keys given twice, values that mean nothing.
    pub(super) fn sweep(&self, node: &Node, key: &str) {
        match &node.data {
            Data::Map(entries) => {
                for (i, entry) in entries.iter().enumerate() {
                    let inner = dotted(key, &entry.key);
                    if let Some(first) = entries[..i].iter().find(|first| first.key == entry.key) {
                        let line = first.at.map_or(0, |(line, _)| line);
                        self.problem(entry.at, &inner, format!("the key is given twice, first in line {line}"));
                    }
                    self.sweep(&entry.value, &inner);
                }
            }
            Data::List(items) => items.iter().enumerate().for_each(|(i, item)| self.sweep(item, &format!("{key}[{i}]"))),
            Data::Refused(why) => self.problem(node.at, key, *why),
            Data::Scalar { .. } | Data::Opened(_) | Data::Null => {}
        }
    }
}

impl<'a> Section<'a> {
    pub(super) fn new(reader: &'a Reader, key: &str, node: &'a Node) -> Section<'a> {
        Section { reader, key: key.to_owned(), at: node.at, entries: node.entries(), asked: Vec::new() }
    }

    /// The value of a known key; `None` where it is absent or null.
    pub(super) fn field(&mut self, name: &'static str) -> Option<Field<'a>> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        match entry.value.data {
            Data::Null | Data::Refused(_) => None,
            _ => Some(Field { reader: self.reader, key: self.key_of(name), node: &entry.value }),
        }
    }

    /// Whether the key stands there with nothing or `null`: for the few where that is not the same as leaving it out.
    pub(super) fn is_null(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == name && matches!(entry.value.data, Data::Null))
    }

    /// `shape` says what would be accepted.
    pub(super) fn required(&mut self, name: &'static str, shape: impl fmt::Display) -> Option<Field<'a>> {
        let field = self.field(name);
        let refused = self.entries.iter().any(|entry| entry.key == name && matches!(entry.value.data, Data::Refused(_)));
        if field.is_none() && !refused {
            self.reader.problem(self.at, &self.key_of(name), format!("is required: {shape}"));
        }
        field
    }

    /// Required, unless another key stands in its place.
    pub(super) fn required_unless(&mut self, replaced: bool, name: &'static str, shape: &str) -> Option<Field<'a>> {
        if replaced { self.field(name) } else { self.required(name, shape) }
    }

    /// `default` where the key is absent, and, once the problem is noted, where it does not fit.
    pub(super) fn or<T>(&mut self, name: &'static str, default: T, read: impl FnOnce(&Field<'a>) -> Option<T>) -> T {
        self.field(name).and_then(|field| read(&field)).unwrap_or(default)
    }

    /// A key of a later version: accepted while it is off, and whether it is on. `what` is the feature in the plural,
    /// `passwords`.
    pub(super) fn later(&mut self, name: &'static str, what: &str) -> bool {
        let on = self.field(name).filter(|field| !field.is_off());
        if let Some(field) = &on {
            field.problem(format!("{what} are not yet supported; remove the key or set it to null"));
        }
        on.is_some()
    }

    /// The names given that were not asked for, each with its value: for mappings whose keys the administrator makes up.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> {
        let (reader, key) = (self.reader, self.key.clone());
        self.entries.iter().map(move |entry| (entry.key.as_str(), Field { reader, key: dotted(&key, &entry.key), node: &entry.value }))
    }

    /// Notes every key that was not asked for.
    pub(super) fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            let hint = match nearest(&entry.key, &self.asked) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here are {}", self.asked.join(", ")),
            };
            self.reader.problem(entry.at, &self.key_of(&entry.key), format!("unknown key; {hint}"));
        }
    }

    pub(super) fn problem(&self, message: impl Into<String>) {
        self.reader.problem(self.at, &self.key, message);
    }

    pub(super) fn key_of(&self, name: &str) -> String {
        dotted(&self.key, name)
    }

    pub(super) fn at(&self) -> Place {
        self.at
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl<'a> Field<'a> {
    pub(super) fn problem(&self, message: impl Into<String>) {
        self.reader.problem(self.node.at, &self.key, message);
    }

    /// Notes that the value has not the `shape` wanted. Not for secrets: the value is shown.
    pub(super) fn misfit<T>(&self, shape: impl fmt::Display) -> Option<T> {
        if !matches!(self.node.data, Data::Refused(_)) {
            self.problem(format!("expected {shape}, found {}", self.found()));
        }
        None
    }

    /// What is there, short, for messages. Not for secrets.
    pub(super) fn found(&self) -> String {
        match &self.node.data {
            Data::Null | Data::Refused(_) => "nothing".to_owned(),
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a mapping".to_owned(),
            Data::Opened(_) => "a sealed value".to_owned(),
            Data::Scalar { text, .. } if text.is_empty() => "an empty text".to_owned(),
            Data::Scalar { text, plain } => {
                let short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
                let cut = if text.chars().count() > 40 { "…" } else { "" };
                format!("`{short}{cut}`{}", if *plain { "" } else { " in quotes" })
            }
        }
    }

    /// The scalar as written, whatever it could also mean.
    pub(super) fn scalar(&self) -> Option<&'a str> {
        match &self.node.data {
            Data::Scalar { text, .. } => Some(text),
            Data::Opened(secret) => Some(secret.expose()),
            _ => None,
        }
    }

    /// Text in one line, not empty.
    pub(super) fn line(&self, shape: &str) -> Option<String> {
        match self.scalar() {
            Some(text) if !text.trim().is_empty() && !text.contains(char::is_control) => Some(text.to_owned()),
            _ => self.misfit(shape),
        }
    }

    pub(super) fn text(&self, shape: &str) -> Option<&'a str> {
        self.scalar().or_else(|| self.misfit(shape))
    }

    pub(super) fn path(&self) -> Option<PathBuf> {
        self.line("a path").map(|written| self.reader.path(&written))
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.node.data {
            Data::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "True" | "TRUE") => Some(true),
            Data::Scalar { text, plain: true } if matches!(text.as_str(), "false" | "False" | "FALSE") => Some(false),
            _ => self.misfit("true or false"),
        }
    }

    pub(super) fn whole(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (range.start(), range.end());
        let shape =
            if *high == u64::MAX { format!("a whole number, {low} or more") } else { format!("a whole number from {low} to {high}") };
        self.number().filter(|number| range.contains(number)).or_else(|| self.misfit(shape))
    }

    fn number(&self) -> Option<u64> {
        self.scalar().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok())
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let Some(value) = self.scalar().and_then(units::duration) else { return self.misfit(DURATION_SHAPE) };
        if range.contains(&value) {
            return Some(value);
        }
        self.misfit(if *range.end() == Duration::MAX {
            format!("{} or more", span(*range.start()))
        } else {
            format!("{} to {}", span(*range.start()), span(*range.end()))
        })
    }

    pub(super) fn any_duration(&self) -> Option<Duration> {
        self.duration(Duration::ZERO..=Duration::MAX)
    }

    pub(super) fn share(&self) -> Option<Share> {
        self.scalar().and_then(units::share).or_else(|| self.misfit(SHARE_SHAPE))
    }

    /// Bytes.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let Some(value) = self.scalar().and_then(units::size) else { return self.misfit(SIZE_SHAPE) };
        let (low, high) = (units::written_size(*range.start()), units::written_size(*range.end()));
        if range.contains(&value) { Some(value) } else { self.misfit(format!("{low} to {high}")) }
    }

    /// `unlimited`, or what `read` makes of it.
    pub(super) fn limit<T>(&self, shape: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<Limit<T>> {
        match self.scalar() {
            Some("unlimited") => Some(Limit::Unlimited),
            Some(text) => read(text).map(Limit::At).or_else(|| self.misfit(format!("{shape}, or unlimited"))),
            None => self.misfit(format!("{shape}, or unlimited")),
        }
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let found = self.scalar().and_then(|text| choices.iter().find(|(word, _)| *word == text));
        found.map(|(_, value)| *value).or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.misfit(one_of(&words))
        })
    }

    /// The items; a lone scalar is no list.
    pub(super) fn list(&self, of: &str) -> Option<Vec<Field<'a>>> {
        let Data::List(items) = &self.node.data else { return self.misfit(format!("a list of {of}")) };
        let item = |(i, node)| Field { reader: self.reader, key: format!("{}[{i}]", self.key), node };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// `shape` shows the mapping, `{listen: ADDRESS}`.
    pub(super) fn section(&self, shape: &str) -> Option<Section<'a>> {
        match &self.node.data {
            Data::Map(_) => Some(Section::new(self.reader, &self.key, self.node)),
            _ => self.misfit(shape),
        }
    }

    /// Whether the value switches off what the key is about.
    pub(super) fn is_off(&self) -> bool {
        match &self.node.data {
            Data::Null | Data::Refused(_) => true,
            Data::List(items) => items.is_empty(),
            Data::Map(entries) => entries.is_empty() || matches!(&entries[..], [one] if one.key == "method" && is_word(&one.value, "none")),
            Data::Scalar { text, plain } => text.is_empty() || (*plain && text == "false") || units::duration(text) == Some(Duration::ZERO),
            Data::Opened(_) => false,
        }
    }
}

fn is_word(node: &Node, word: &str) -> bool {
    matches!(&node.data, Data::Scalar { text, .. } if text == word)
}

/// `message` with every `word` that stands alone in it left out.
fn without_word(message: &str, word: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(word) {
        let (before, behind) = (&rest[..at], &rest[at + word.len()..]);
        let alone = !before.ends_with(char::is_alphanumeric) && !behind.starts_with(char::is_alphanumeric);
        out.push_str(before);
        out.push_str(if alone { "(sealed)" } else { word });
        rest = behind;
    }
    out.push_str(rest);
    out
}

pub(super) fn dotted(outer: &str, name: &str) -> String {
    if outer.is_empty() { name.to_owned() } else { format!("{outer}.{name}") }
}

/// `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => words.concat(),
    }
}

/// The known word that somebody may have meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let close = |known: &&str| (strsim::damerau_levenshtein(word, known), strsim::jaro_winkler(word, known));
    known
        .iter()
        .map(|known| (close(known), *known))
        .filter(|((distance, likeness), _)| *distance <= 1 + word.chars().count() / 4 || *likeness >= 0.9)
        .min_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, known)| known)
}
