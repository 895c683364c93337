//! One event as one line. Pure, so that the promise about hostile text can be tested without a subscriber.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use tracing::Level;

use crate::domain::printable::{Printable, is_unprintable, printable_json};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    Plain,
    Coloured,
    /// Plain, without time and level, for a log that has its own.
    Body,
    Json,
}

/// Names and values, in the order in which they were recorded.
#[derive(Clone, Default, Debug)]
pub(super) struct Fields(pub(super) Vec<(&'static str, Value)>);

pub(super) struct Line<'a> {
    pub(super) time: DateTime<Utc>,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    pub(super) fields: &'a Fields,
}

impl Fields {
    /// The last value of a name counts, at its first place.
    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Line<'_> {
    /// Ended with the only line break in it.
    pub(super) fn render(&self, style: Style) -> String {
        let mut out = String::with_capacity(160);
        // Writing to a `String` cannot fail.
        let _ = match style {
            Style::Json => self.json(&mut out),
            Style::Plain => self.head(&mut out, "", "", "").and_then(|()| self.body(&mut out, "", "")),
            Style::Body => self.body(&mut out, "", ""),
            Style::Coloured => {
                let colour = match self.level {
                    Level::ERROR => "\x1b[31m",
                    Level::WARN => "\x1b[33m",
                    Level::INFO => "\x1b[32m",
                    _ => "\x1b[34m",
                };
                let (dim, reset) = ("\x1b[2m", "\x1b[0m");
                self.head(&mut out, colour, dim, reset).and_then(|()| self.body(&mut out, dim, reset))
            }
        };
        out.push('\n');
        out
    }

    fn head(&self, out: &mut String, colour: &str, dim: &str, reset: &str) -> std::fmt::Result {
        write!(out, "{dim}{}{reset} {colour}{:>5}{reset} ", self.time(), self.level)
    }

    fn body(&self, out: &mut String, dim: &str, reset: &str) -> std::fmt::Result {
        write!(out, "{dim}{}:{reset} ", self.target)?;
        Printable(&mut *out).write_str(self.message)?;
        for (name, value) in &self.fields.0 {
            write!(out, " {dim}{name}={reset}")?;
            match value {
                Value::String(text) => quoted(out, text)?,
                other => quoted(out, &other.to_string())?,
            }
        }
        Ok(())
    }

    fn json(&self, out: &mut String) -> std::fmt::Result {
        let quote = |text: &str| Value::from(text).to_string();
        let (level, target) = (self.level.as_str().to_ascii_lowercase(), quote(self.target));
        let mut line = format!(r#"{{"time":"{}","level":"{level}","target":{target},"message":{}"#, self.time(), quote(self.message));
        for (name, value) in &self.fields.0 {
            let ours = if matches!(*name, "time" | "level" | "target") { "field." } else { "" };
            write!(line, r#","{ours}{name}":{value}"#)?;
        }
        line.push('}');
        out.write_str(&printable_json(&line))
    }

    fn time(&self) -> String {
        self.time.to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

/// As it is where it is one word; else in quotes, with escapes.
fn quoted(out: &mut String, text: &str) -> std::fmt::Result {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'=');
    let awkward = |c: char| c.is_whitespace() || is_unprintable(c) || matches!(c, '"' | '=');
    if !text.is_empty() && (text.bytes().all(plain) || !text.contains(awkward)) {
        return out.write_str(text);
    }
    let inside = text.replace('\\', r"\\").replace('"', "\\\"");
    out.write_char('"')?;
    Printable(&mut *out).write_str(&inside)?;
    out.write_char('"')
}
