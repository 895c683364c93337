//! An event as syslog wants it: the header of RFC 5424, and the octet count of RFC 6587 in front, so that no receiver has to
//! guess where a message ends.
//!
//! What happened is in the message itself, as text or as JSON, in the form that the log has elsewhere. Structured data would
//! need a number registered for the maker of the program, and most receivers take JSON apart more easily.

use chrono::SecondsFormat;

use super::line::{Line, Style};
use super::stderr::severity;

/// "System daemons".
const FACILITY: u8 = 3;

/// What is the same in every message of this process.
pub(super) struct Syslog {
    host: String,
    process: u32,
    body: Style,
}

impl Syslog {
    pub(super) fn new(json: bool) -> Syslog {
        let host = hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        Syslog { host: name(&host, 255), process: std::process::id(), body: if json { Style::Json } else { Style::Body } }
    }

    /// `57 <30>1 2026-07-29T08:00:00.123Z host credkeeper 4711 mail - …`: the room stands in the place of the kind of message.
    pub(super) fn frame(&self, line: &Line<'_>) -> String {
        let Syslog { host, process, body } = self;
        let priority = FACILITY * 8 + severity(line.level);
        let time = line.time.to_rfc3339_opts(SecondsFormat::Millis, true);
        let room = name(line.target.split("::").nth(1).unwrap_or_default(), 32);
        let text = line.render(*body);
        let message = format!("<{priority}>1 {time} {host} credkeeper {process} {room} - {}", text.trim_end_matches('\n'));
        format!("{} {message}", message.len())
    }
}

/// Printable ASCII without blanks; `-` stands for nothing.
fn name(text: &str, longest: usize) -> String {
    let name: String = text.chars().filter(char::is_ascii_graphic).take(longest).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone, Utc};
    use serde_json::Value;
    use tracing::Level;

    use super::super::line::Fields;
    use super::*;

    fn frame(body: Style, host: &str, target: &str, message: &str) -> String {
        let syslog = Syslog { host: name(host, 255), process: 4711, body };
        let mut fields = Fields::default();
        fields.set("user.id", Value::from(7));
        let time = Utc.with_ymd_and_hms(2026, 7, 29, 8, 0, 0).unwrap();
        syslog.frame(&Line { time, level: Level::WARN, target, message, fields: &fields })
    }

    #[test]
    fn a_message_has_its_length_its_header_and_what_happened() {
        assert_eq!(
            frame(Style::Body, "print1", "credkeeper::mail::courier", "Schön"),
            "104 <28>1 2026-07-29T08:00:00.000Z print1 credkeeper 4711 mail - credkeeper::mail::courier: Schön user.id=7"
        );
        assert_eq!(
            frame(Style::Json, "a b\u{e9}", "credkeeper", "x\n<28>1"),
            r#"159 <28>1 2026-07-29T08:00:00.000Z ab credkeeper 4711 - - {"time":"2026-07-29T08:00:00.000Z","level":"warn","target":"credkeeper","message":"x\n<28>1","user.id":7}"#
        );
        let nameless = frame(Style::Body, "", "rustls::conn", "a\nb");
        assert!(nameless.ends_with(r"<28>1 2026-07-29T08:00:00.000Z - credkeeper 4711 conn - rustls::conn: a\nb user.id=7"), "{nameless}");
    }
}
