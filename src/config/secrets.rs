//! Secrets of the configuration: written there, in a file, or in the environment. No message repeats one.

use std::path::{Path, PathBuf};

use super::read::Field;
use super::yaml::Data;
use crate::domain::Secret;

const SHAPE: &str = "{file: PATH} or {env: NAME}";

/// A plain text is taken too, and warned of.
pub(super) fn secret(field: &Field<'_>) -> Option<Secret> {
    match &field.node.data {
        Data::Scalar { text, .. } if text.is_empty() => {
            field.problem(format!("is empty; expected {SHAPE}"));
            None
        }
        Data::Scalar { text, .. } => {
            field.reader.warn(format!("{} stands in the configuration in plain text; {SHAPE} keeps it out", field.key));
            Some(Secret::new(text.clone()))
        }
        Data::Map(_) => from_elsewhere(field),
        _ => {
            field.problem(format!("expected {SHAPE}"));
            None
        }
    }
}

/// Where a key file is to be, for keys that are made when there is none: `{file: PATH}` only.
pub(super) fn key_file(field: &Field<'_>) -> Option<PathBuf> {
    let Data::Map(_) = &field.node.data else {
        field.problem("expected {file: PATH}: the key never stands in the configuration itself");
        return None;
    };
    let mut section = field.section("{file: PATH}")?;
    let elsewhere = section.later("env", "keys in the environment") | section.later("credential", "credentials of the service manager");
    let path = section.required_unless(elsewhere, "file", "the path of the key file").and_then(|file| file.path());
    section.finish();
    path
}

fn from_elsewhere(field: &Field<'_>) -> Option<Secret> {
    let mut section = field.section(SHAPE)?;
    let (file, env) = (section.field("file"), section.field("env"));
    let credential = section.field("credential");
    if let Some(credential) = &credential {
        credential.problem(format!("credentials of the service manager are not yet supported; use {SHAPE}"));
    }
    if file.is_none() && env.is_none() && credential.is_none() || file.is_some() && env.is_some() {
        section.problem(format!("expected one of {SHAPE}"));
    }
    section.finish();
    match (file, env) {
        (Some(file), None) => from_file(&file),
        (None, Some(env)) => from_environment(&env),
        _ => None,
    }
}

fn from_environment(field: &Field<'_>) -> Option<Secret> {
    let name = field.line("the name of an environment variable")?;
    let problem = match field.reader.environment(&name).map(std::ffi::OsString::into_string) {
        Some(Ok(value)) if !value.is_empty() => return Some(Secret::new(value)),
        Some(Ok(_)) => "is empty",
        Some(Err(_)) => "is not UTF-8",
        None => "is not set",
    };
    field.problem(format!("the environment variable {name} {problem}"));
    None
}

fn from_file(field: &Field<'_>) -> Option<Secret> {
    let path = field.path()?;
    let refuse = |why: &str| {
        field.problem(format!("the file {} {why}", path.display()));
        None
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return refuse("does not exist"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return refuse("may not be read by this account"),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return refuse("is not UTF-8"),
        Err(error) => return refuse(&format!("cannot be read: {error}")),
    };
    if others_may_read(&path) {
        field.reader.warn(format!("{}: the file {} can be read by every account of this machine", field.key, path.display()));
    }
    // Editors end a file with one newline, which is not the secret's; some on Windows begin it with a mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return refuse("is empty");
    }
    Some(Secret::new(line.to_owned()))
}

#[cfg(unix)]
fn others_may_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

/// On Windows the folder's access list decides; `doctor` looks at that.
#[cfg(not(unix))]
fn others_may_read(_path: &Path) -> bool {
    false
}
