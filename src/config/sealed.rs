//! `sealed:v1:…`: a secret that stands in the configuration encrypted, and opens with a key in a file of its own. It may
//! stand anywhere inside of a value.
//!
//! What was opened is kept apart from what was written ([`Data::Opened`]), so that no message shows it. The text after
//! `sealed:v1:` is Base64 for URLs without padding: it has no character that ends a value in a connection string or a url.
//! Its first bytes tell which key it was sealed with, so that a wrong key is not taken for damage.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::read::{Reader, Section};
use super::secrets::{key_file, warn_of_readers};
use super::yaml::{self, Data, Node};
use crate::domain::{Key, Secret};
use crate::seal::{KeyFileError, SealError, Sealer, derive, read_key};

const BEGIN: &str = "sealed:v";
/// What a sealed value of this version begins with.
pub(crate) const VERSION: &str = "sealed:v1:";
const KEY_ID: usize = 4;
/// The place that a sealed value belongs to: the configuration, wherever in it.
const AAD: &[u8] = b"credkeeper sealed:v1";

/// The key's file where `seal_key` says nothing: beside the configuration.
const DEFAULT_KEY: &str = "credkeeper.key";

/// # Errors
/// No random numbers.
pub(crate) fn seal(key: &Key, secret: &Secret) -> Result<String, SealError> {
    let mut bytes = key_id(key).to_vec();
    bytes.extend(sealer(key).seal(AAD, secret.expose().as_bytes())?);
    Ok(format!("{VERSION}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

fn sealer(master: &Key) -> Sealer {
    Sealer::new(derive(master, "credkeeper configuration secrets"))
}

/// Tells keys apart, and nothing about them.
fn key_id(master: &Key) -> [u8; KEY_ID] {
    let derived = derive(master, "credkeeper configuration key id");
    std::array::from_fn(|i| derived.expose()[i])
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    OtherKey,
    Damaged,
    Newer,
}

/// `token` is the whole of `sealed:v1:…`.
fn open(key: &Key, token: &str) -> Result<Secret, Wrong> {
    let text = token.strip_prefix(VERSION).ok_or(Wrong::Newer)?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Wrong::Damaged)?;
    let (id, sealed) = bytes.split_first_chunk::<KEY_ID>().ok_or(Wrong::Damaged)?;
    let opened = match sealer(key).open(AAD, sealed) {
        Ok(opened) => opened,
        Err(_) if *id != key_id(key) => return Err(Wrong::OtherKey),
        Err(_) => return Err(Wrong::Damaged),
    };
    let text = std::str::from_utf8(&opened).map_err(|_| Wrong::Damaged)?;
    Ok(Secret::new(text.to_owned()))
}

/// Where the first sealed value in `text` begins, and how long it is.
fn find(text: &str) -> Option<(usize, usize)> {
    for (start, _) in text.match_indices(BEGIN) {
        let rest = &text[start + BEGIN.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || !rest[digits..].starts_with(':') {
            continue;
        }
        let body = rest[digits + 1..].bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')).count();
        return Some((start, BEGIN.len() + digits + 1 + body));
    }
    None
}

/// The key's file, as `seal_key` says; `None` if it says it wrongly, which is noted.
pub(super) fn key_path(tree: &Node, reader: &Reader) -> Option<PathBuf> {
    match Section::new(reader, "", tree).field("seal_key") {
        Some(field) if find(file_of(field.node)).is_some() => {
            field.problem("cannot be sealed, because it says where the key to what is sealed is");
            None
        }
        Some(field) => key_file(&field),
        None => Some(reader.path(DEFAULT_KEY)),
    }
}

fn file_of(node: &Node) -> &str {
    match node.entries().iter().find(|entry| entry.key == "file").map(|entry| &entry.value.data) {
        Some(Data::Scalar { text, .. }) => text,
        _ => "",
    }
}

/// The same for a configuration that is not finished, or has mistakes in its other parts.
pub(super) fn key_path_in(text: &str, reader: &Reader) -> Option<PathBuf> {
    match yaml::first(text, "seal_key") {
        Some(node) => key_path(&node, reader),
        None => Some(reader.path(DEFAULT_KEY)),
    }
}

/// Opens every sealed value of the tree. What does not open is noted, and refused from here on.
pub(super) fn open_all(tree: &mut Node, reader: &Reader, key_path: Option<PathBuf>) {
    let mut keys = Keys { reader, path: key_path, key: None };
    keys.walk(tree, "");
}

/// The key, read at the first sealed value.
struct Keys<'a> {
    reader: &'a Reader,
    path: Option<PathBuf>,
    /// Inside: `None` if it cannot be had, which is noted.
    key: Option<Option<Key>>,
}

impl Keys<'_> {
    fn walk(&mut self, node: &mut Node, key: &str) {
        match &mut node.data {
            Data::Map(entries) => {
                for entry in entries.iter_mut().filter(|entry| !(key.is_empty() && entry.key == "seal_key")) {
                    let inner = super::read::dotted(key, &entry.key);
                    self.walk(&mut entry.value, &inner);
                }
            }
            Data::List(items) => items.iter_mut().enumerate().for_each(|(i, item)| self.walk(item, &format!("{key}[{i}]"))),
            Data::Scalar { text, .. } if find(text).is_some() => {
                let text = std::mem::take(text);
                node.data = self.opened(&text, node.at, key).map_or(Data::Refused("does not open"), Data::Opened);
            }
            Data::Scalar { .. } | Data::Opened(_) | Data::Null | Data::Refused(_) => {}
        }
    }

    fn opened(&mut self, text: &str, at: yaml::Place, key: &str) -> Option<Secret> {
        let master = self.master(at, key)?;
        let quoting = Quoting::of(text, key);
        let mut whole = Zeroizing::new(String::new());
        let mut rest = text;
        while let Some((start, length)) = find(rest) {
            let token = &rest[start..start + length];
            let part = match open(&master, token) {
                Ok(part) => part,
                Err(wrong) => {
                    self.reader.problem(at, key, self.why(wrong));
                    return None;
                }
            };
            whole.push_str(&rest[..start]);
            let part_quoted = quoting.apply(part.expose(), whole.ends_with('{'));
            whole.push_str(&part_quoted);
            self.reader.conceal(part.expose());
            rest = &rest[start + length..];
        }
        whole.push_str(rest);
        let whole = Secret::new((*whole).clone());
        if quoting == Quoting::None {
            // Of an address the other parts may be told.
            self.reader.conceal(whole.expose());
        }
        Some(whole)
    }

    fn why(&self, wrong: Wrong) -> String {
        match (wrong, &self.path) {
            (Wrong::OtherKey, Some(path)) => format!(
                "was sealed with another key than the one in {}; seal it again with `credkeeper seal`, or name its key in seal_key",
                path.display()
            ),
            (Wrong::Newer, _) => "was sealed by a newer version of credkeeper; update this one, or seal it again".to_owned(),
            _ => "the sealed value is damaged: a part of it is missing or was changed; copy it again, or seal it anew".to_owned(),
        }
    }

    fn master(&mut self, at: yaml::Place, key: &str) -> Option<Key> {
        if self.key.is_none() {
            let read = self.path.as_ref().map(|path| (path, read_key(path)));
            let problem = match &read {
                None => None, // `seal_key` itself is wrong
                Some((path, Ok(Some(_)))) => {
                    warn_of_readers(self.reader, "seal_key", path);
                    None
                }
                Some((path, Ok(None))) => Some(format!(
                    "is sealed, but the key file {} does not exist; bring it from where this was sealed, name it in seal_key, or seal the secret again with `credkeeper seal`",
                    path.display()
                )),
                Some((_, Err(KeyFileError::Read { path, source }))) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    Some(format!("is sealed, but the key file {} may not be read by this account", path.display()))
                }
                Some((_, Err(error))) => Some(format!("is sealed, but {}", crate::config::sentence(error))),
            };
            if let Some(problem) = problem {
                self.reader.problem(at, key, problem);
            }
            self.key = Some(read.and_then(|(_, key)| key.ok().flatten()));
        }
        self.key.clone().flatten()
    }
}

/// How a secret must be written in the text around it, to stand for itself and for nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Quoting {
    None,
    /// In a url.
    Percent,
    /// In libpq's form, inside or outside of its quotation marks.
    Backslash,
    /// In the form of ODBC.
    Braces,
}

impl Quoting {
    fn of(text: &str, key: &str) -> Quoting {
        let name = key.rsplit('.').next().unwrap_or_default();
        let whole = find(text) == Some((0, text.len()));
        match name {
            _ if whole => Quoting::None,
            "url" | "connection_string" | "token_url" if text.contains("://") => Quoting::Percent,
            "connection_string" if text.contains(';') => Quoting::Braces,
            "connection_string" => Quoting::Backslash,
            _ => Quoting::None,
        }
    }

    /// `in_braces`: those of ODBC stand around it already.
    fn apply(self, secret: &str, in_braces: bool) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::with_capacity(secret.len() * 3 + 2));
        let add = |c: char, out: &mut String| match self {
            Quoting::Percent if !(c.is_ascii_alphanumeric() || "-._~".contains(c)) => {
                let mut utf8 = [0; 4];
                c.encode_utf8(&mut utf8).bytes().for_each(|b| out.push_str(&format!("%{b:02X}")));
            }
            Quoting::Backslash if c.is_whitespace() || matches!(c, '\'' | '\\') => out.extend(['\\', c]),
            Quoting::Braces if c == '}' => out.push_str("}}"),
            _ => out.push(c),
        };
        let braces = self == Quoting::Braces && !in_braces;
        if braces {
            out.push('{');
        }
        secret.chars().for_each(|c| add(c, &mut out));
        if braces {
            out.push('}');
        }
        out
    }
}

#[cfg(test)]
mod tests;
