//! Mail templates: a subject and parts in which `{{ variable }}` stands for a value (product rule R30).

use std::collections::BTreeSet;
use std::fmt;

use super::secret::{Code, Password, Pin};
use super::translation::Translation;

/// A subject and parts, parsed.
#[derive(Clone, Debug)]
pub struct Template {
    pub subject: Text,
    pub parts: Vec<Text>,
    /// The same parts as HTML, each naming the same credentials as its fellow in `parts`; absent: text only.
    pub html_parts: Option<Vec<Text>>,
    /// The first one that is for the reader is taken; each tells the same credentials together as this one.
    pub translations: Vec<Translation>,
    pub reminder: Option<Reminder>,
}

/// What a user is written before a PIN lapses. It names no credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reminder {
    pub subject: Text,
    pub parts: Vec<Text>,
}

/// Text with variables in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text(Vec<Piece>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Literal(String),
    Variable(Variable),
}

/// What a template may name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Variable {
    Pin,
    CardAssignmentCode,
    Password,
    Username,
    Name,
    Surname,
    CostCenter,
    Expires,
    Policy,
}

/// What the variables stand for in one mail.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    /// Absent: no PIN was generated, and parts that name it are left out.
    pub pin: Option<&'a Pin>,
    /// The same of the others.
    pub code: Option<&'a Code>,
    pub password: Option<&'a Password>,
    pub username: &'a str,
    pub name: &'a str,
    pub surname: &'a str,
    pub cost_center: &'a str,
    /// As it is to be read by the user. Absent reads "never" of a PIN that is told; where none is told, parts that name it are
    /// left out.
    pub expires: Option<String>,
    pub policy: &'a str,
}

/// A mail's text. The parts may hold credentials, so `Debug` shows the subject only, in which none can be.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line, without control characters.
    pub subject: String,
    pub text: String,
    /// The same for programs that show HTML.
    pub html: Option<String>,
}

/// Why a text is no template.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct TemplateError {
    /// 1-based, in characters of the text.
    pub column: usize,
    pub message: String,
}

impl Template {
    /// The subject and those parts whose credentials are all there: of the text with a blank line between them, of the
    /// HTML with a line end.
    pub fn render(&self, values: &Values<'_>) -> Rendered {
        // A credential in a subject is a configuration error, so that the subject is never left out.
        let end = values.get(Variable::Expires).unwrap_or_default().to_owned();
        let subject = self.subject.render(&Values { expires: Some(end), ..values.clone() }, one_line).unwrap_or_default();
        Rendered {
            subject: one_line(&subject).trim().to_owned(),
            text: joined(&self.parts, values, one_line, "\n\n"),
            html: self.html_parts.as_ref().map(|parts| joined(parts, values, escaped, "\n")),
        }
    }

    /// Whether some part tells the user this credential whenever it is made: one that names another too is left out with that.
    pub fn tells(&self, credential: Variable) -> bool {
        self.parts.iter().any(|part| part.credentials().into_iter().eq([credential]))
    }
}

impl Text {
    /// # Errors
    /// An unknown variable, or braces that never close, with the column.
    pub fn parse(text: &str) -> Result<Text, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once("{{") {
            let column = text[..text.len() - after.len()].chars().count() - 1;
            let Some((name, tail)) = after.split_once("}}") else {
                return Err(TemplateError { column, message: "`{{` has no closing `}}`".to_owned() });
            };
            let variable = Variable::parse(name.trim()).ok_or_else(|| TemplateError { column, message: unknown(name.trim()) })?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            pieces.push(Piece::Variable(variable));
            rest = tail;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Text(pieces))
    }

    /// Every variable named, in order, as often as it is named.
    pub fn variables(&self) -> impl Iterator<Item = Variable> + '_ {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(variable) => Some(*variable),
            Piece::Literal(_) => None,
        })
    }

    /// Which credentials it tells.
    pub fn credentials(&self) -> BTreeSet<Variable> {
        self.variables().filter(|variable| variable.is_credential()).collect()
    }

    /// `None`: a credential is named that was not generated.
    fn render(&self, values: &Values<'_>, write: fn(&str) -> String) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Variable(variable) => out.push_str(&write(values.get(*variable)?)),
            }
        }
        Some(out)
    }
}

impl Values<'_> {
    fn get(&self, variable: Variable) -> Option<&str> {
        match variable {
            Variable::Pin => self.pin.map(Pin::expose),
            Variable::CardAssignmentCode => self.code.map(Code::expose),
            Variable::Password => self.password.map(Password::expose),
            Variable::Username => Some(self.username),
            Variable::Name => Some(self.name),
            Variable::Surname => Some(self.surname),
            Variable::CostCenter => Some(self.cost_center),
            Variable::Expires => self.expires.as_deref().or(self.pin.map(|_| "never")),
            Variable::Policy => Some(self.policy),
        }
    }
}

impl Variable {
    pub const ALL: [Variable; 9] = [
        Variable::Pin,
        Variable::CardAssignmentCode,
        Variable::Password,
        Variable::Username,
        Variable::Name,
        Variable::Surname,
        Variable::CostCenter,
        Variable::Expires,
        Variable::Policy,
    ];

    /// As it is written between the braces.
    pub fn as_str(self) -> &'static str {
        match self {
            Variable::Pin => "pin",
            Variable::CardAssignmentCode => "card_assignment_code",
            Variable::Password => "password",
            Variable::Username => "username",
            Variable::Name => "name",
            Variable::Surname => "surname",
            Variable::CostCenter => "cost_center",
            Variable::Expires => "expires",
            Variable::Policy => "policy",
        }
    }

    /// As people say it.
    pub fn title(self) -> &'static str {
        match self {
            Variable::Pin => "PIN",
            Variable::CardAssignmentCode => "card assignment code",
            Variable::Password => "password",
            Variable::Username => "user name",
            Variable::Name => "name",
            Variable::Surname => "surname",
            Variable::CostCenter => "cost center",
            Variable::Expires => "expiry",
            Variable::Policy => "policy",
        }
    }

    pub fn parse(name: &str) -> Option<Variable> {
        Self::ALL.into_iter().find(|variable| variable.as_str() == name)
    }

    /// Whether it stands for something secret: such a part is left out when there is none, and a subject never names one.
    pub fn is_credential(self) -> bool {
        matches!(self, Variable::Pin | Variable::CardAssignmentCode | Variable::Password)
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered").field("subject", &self.subject).finish_non_exhaustive()
    }
}

fn joined(parts: &[Text], values: &Values<'_>, write: fn(&str) -> String, between: &str) -> String {
    let parts: Vec<String> = parts.iter().filter_map(|part| part.render(values, write)).map(|part| part.trim_end().to_owned()).collect();
    parts.join(between)
}

/// For HTML, between tags and in quoted attributes: a value must not become a tag, a link or a picture.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 16);
    for c in one_line(value).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Values come from the print system's database, where anybody's mail gateway may have written them: a line break in one
/// must not begin a new header, nor a paragraph that looks like ours.
fn one_line(value: &str) -> String {
    value.replace("\r\n", " ").replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ")
}

fn unknown(name: &str) -> String {
    let all = Variable::ALL.map(Variable::as_str);
    let near = all.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    let hint = match near {
        Some((distance, known)) if distance <= 1 + name.chars().count() / 4 => format!("; did you mean `{known}`?"),
        _ => ".".to_owned(),
    };
    format!("unknown variable `{name}`{hint} There are {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'static> = Values {
        pin: None,
        code: None,
        password: None,
        username: "v@example.org",
        name: "Eva",
        surname: "Nová",
        cost_center: "Has PIN",
        expires: None,
        policy: "visitors",
    };

    fn template(subject: &str, parts: &[&str]) -> Template {
        let parse = |text: &&str| Text::parse(text).unwrap();
        Template {
            subject: parse(&subject),
            parts: parts.iter().map(parse).collect(),
            html_parts: None,
            translations: Vec::new(),
            reminder: None,
        }
    }

    #[test]
    fn values_stand_where_their_variables_stood() {
        let pin = Pin::new("012345".to_owned());
        let mail =
            template("Hello {{name}}", &["{{ name }} {{surname}}: {{  pin  }}.\n", "Until {{ expires }}, {{ policy }}/{{cost_center}}."])
                .render(&Values { pin: Some(&pin), expires: Some("2027-01-01".to_owned()), ..VALUES });
        assert_eq!(mail.subject, "Hello Eva");
        assert_eq!(mail.text, "Eva Nová: 012345.\n\nUntil 2027-01-01, visitors/Has PIN.");
    }

    #[test]
    fn a_part_about_a_credential_that_was_not_made_is_left_out() {
        let mail = template("s", &["PIN {{ pin }}", "for {{ username }}", "{{ password }}", "{{ card_assignment_code }}"]).render(&VALUES);
        assert_eq!(mail.text, "for v@example.org");
    }

    #[test]
    fn no_expiry_reads_never() {
        let pin = Pin::new("012345".to_owned());
        let template = template("Until {{ expires }}", &["Valid until: {{ expires }}", "always"]);
        let mail = template.render(&Values { pin: Some(&pin), ..VALUES });
        assert_eq!((mail.subject.as_str(), mail.text.as_str()), ("Until never", "Valid until: never\n\nalways"));
        let mail = template.render(&VALUES);
        assert_eq!((mail.subject.as_str(), mail.text.as_str()), ("Until", "always"), "of no PIN no end is told");
    }

    #[test]
    fn a_value_can_never_start_a_new_line() {
        let evil = "Eva\r\nBcc: x@example.net\u{2028}\u{85}\0";
        let mail = template("For {{ name }}\n", &["Dear {{ name }}"]).render(&Values { name: evil, ..VALUES });
        assert_eq!(mail.subject, "For Eva Bcc: x@example.net");
        assert_eq!(mail.text, "Dear Eva Bcc: x@example.net");
    }

    #[test]
    fn html_parts_are_left_out_like_the_others_and_values_stay_text_in_them() {
        let parse = |text: &str| Text::parse(text).unwrap();
        let html = ["<p title='{{ name }}'>{{ name }}</p>\n", "<b>{{ pin }}</b>", "<i>{{ password }}</i>"];
        let template =
            Template { html_parts: Some(html.map(parse).to_vec()), ..template("s", &["{{ name }}", "{{ pin }}", "{{ password }}"]) };
        let pin = Pin::new("012345".to_owned());
        let evil = "\"'><img src=x>\r\n&amp;{{ pin }}";
        let mail = template.render(&Values { name: evil, pin: Some(&pin), ..VALUES });
        assert_eq!(mail.text, "\"'><img src=x> &amp;{{ pin }}\n\n012345");
        let shown = "&quot;&#39;&gt;&lt;img src=x&gt; &amp;amp;{{ pin }}";
        assert_eq!(mail.html, Some(format!("<p title='{shown}'>{shown}</p>\n<b>012345</b>")));
        assert_eq!(template.render(&VALUES).html.as_deref(), Some("<p title='Eva'>Eva</p>"));
    }

    #[test]
    fn a_value_is_never_read_as_a_template() {
        let pin = Pin::new("1".to_owned());
        let mail = template("s", &["{{ name }}"]).render(&Values { name: "{{ pin }}", pin: Some(&pin), ..VALUES });
        assert_eq!(mail.text, "{{ pin }}");
    }

    #[test]
    fn debug_of_a_mail_shows_no_credential() {
        let pin = Pin::new("987123".to_owned());
        let mail = template("Subject", &["{{ pin }}"]).render(&Values { pin: Some(&pin), ..VALUES });
        assert_eq!(format!("{mail:?}"), r#"Rendered { subject: "Subject", .. }"#);
    }

    #[test]
    fn an_unknown_variable_is_named_with_its_nearest() {
        let all = "There are pin, card_assignment_code, password, username, name, surname, cost_center, expires, policy";
        for (text, message) in [
            ("ž {{ pni }}", format!("column 3: unknown variable `pni`; did you mean `pin`? {all}")),
            ("{{ user_name }}", format!("column 1: unknown variable `user_name`; did you mean `username`? {all}")),
            ("{{ shoe_size }}", format!("column 1: unknown variable `shoe_size`. {all}")),
            ("{{ pin", "column 1: `{{` has no closing `}}`".to_owned()),
            ("{{ {{ pin }}", format!("column 1: unknown variable `{{{{ pin`. {all}")),
        ] {
            assert_eq!(Text::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn single_braces_are_text() {
        assert_eq!(template("s", &["{ a } }} { {"]).render(&VALUES).text, "{ a } }} { {");
    }

    #[test]
    fn names_of_variables_parse_back() {
        for variable in Variable::ALL {
            assert_eq!(Variable::parse(variable.as_str()), Some(variable));
        }
        assert_eq!(Variable::ALL.iter().filter(|v| v.is_credential()).count(), 3);
    }
}
