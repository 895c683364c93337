//! Mail templates: a subject and parts in which `{{ variable }}` stands for a value (product rule R30).

/// A subject and parts, parsed.
#[derive(Clone, Debug)]
pub struct Template {
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
