//! Secrets of the configuration: written there, sealed or plain, in a file, in the environment, or handed over by systemd.
//! No message repeats one.

use std::path::{Path, PathBuf};

use super::read::{Field, Reader};
use super::yaml::Data;
use crate::domain::Secret;

pub(super) const SHAPE: &str = "{file: PATH}, {env: NAME} or {credential: NAME}";

/// A plain text is taken too, and warned of.
pub(super) fn secret(field: &Field<'_>) -> Option<Secret> {
    let secret = match &field.node.data {
        Data::Scalar { text, .. } if text.is_empty() => {
            field.problem(format!("is empty; expected {SHAPE}"));
            None
        }
        Data::Scalar { text, .. } => {
            if !is_foreign(text) {
                field.reader.warn_of_secret(format!(
                    "{} stands in the configuration in plain text; {SHAPE}, or `credkeeper seal`, keeps it out",
                    field.key
                ));
            }
            Some(Secret::new(text.clone()))
        }
        Data::Opened(secret) => Some(secret.clone()),
        Data::Map(_) => from_elsewhere(field),
        _ => {
            field.problem(format!("expected {SHAPE}"));
            None
        }
    }?;
    refuse_foreign(field, secret.expose()).then_some(secret)
}

/// Whether `text` may be used: not if it holds a value that other programs have encrypted. `text` is a secret, or an address
/// with one in it.
pub(super) fn refuse_foreign(field: &Field<'_>, text: &str) -> bool {
    if is_foreign(text) {
        field.problem(
            "holds a value that the old tool or the print system has encrypted (`code,…` or `ENCSTR:…`), which nobody else can read; run `credkeeper seal`, enter the secret itself, and write what it prints in its place",
        );
    }
    !is_foreign(text)
}

/// `code,-3,5,98,…`: at least four signed bytes, so that no ordinary text is taken for it; or the print system's `ENCSTR:`.
pub(crate) fn is_foreign(text: &str) -> bool {
    let is_byte = |text: &str| text.parse::<i16>().is_ok_and(|byte| (-128..=255).contains(&byte));
    let coded = |(at, _): (usize, &str)| {
        let alone = !text[..at].ends_with(char::is_alphanumeric);
        let bytes = text[at + "code,".len()..].split(',').map(|item| {
            // The last number ends where the connection string goes on.
            let end = item.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(item.len());
            (is_byte(&item[..end]), end == item.len())
        });
        let mut count = 0;
        for (is_byte, goes_on) in bytes {
            if !is_byte {
                break;
            }
            count += 1;
            if !goes_on {
                break;
            }
        }
        alone && count >= 4
    };
    text.contains("ENCSTR:") || text.match_indices("code,").any(coded)
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
    let (file, env, credential) = (section.field("file"), section.field("env"), section.field("credential"));
    if [&file, &env, &credential].into_iter().flatten().count() != 1 {
        section.problem(format!("expected one of {SHAPE}"));
        section.finish();
        return None;
    }
    section.finish();
    match (file, env, credential) {
        (Some(file), ..) => from_file(&file, &file.path()?),
        (_, Some(env), _) => from_environment(&env),
        (.., credential) => from_credential(&credential?),
    }
}

/// A file that systemd has put there for this service alone.
fn from_credential(field: &Field<'_>) -> Option<Secret> {
    let name = field.line("the name of a credential")?;
    if name.contains(['/', '\\', ':']) || name == "." || name == ".." {
        return field.misfit("the name of a credential, without a folder");
    }
    let Some(folder) = field.reader.environment("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty()) else {
        field.problem(format!(
            "systemd has handed over no credentials (CREDENTIALS_DIRECTORY is not set); only a service has them, whose unit says LoadCredential={name}:PATH"
        ));
        return None;
    };
    let path = Path::new(&folder).join(&name);
    if !path.exists() {
        field.problem(format!("systemd has handed over no credential of this name; the unit must say LoadCredential={name}:PATH"));
        return None;
    }
    from_file(field, &path)
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

fn from_file(field: &Field<'_>, path: &Path) -> Option<Secret> {
    let refuse = |why: &str| {
        field.problem(format!("the file {} {why}", path.display()));
        None
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return refuse("does not exist"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return refuse("may not be read by this account"),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return refuse("is not UTF-8"),
        Err(error) => return refuse(&format!("cannot be read: {error}")),
    };
    warn_of_readers(field.reader, &field.key, path);
    let secret = one_line(&text);
    if secret.expose().is_empty() {
        return refuse("is empty");
    }
    Some(secret)
}

/// What somebody has entered or written into a file: editors and terminals end it with one newline, which is not the
/// secret's; some on Windows begin it with a mark.
pub(crate) fn one_line(text: &str) -> Secret {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Secret::new(line.to_owned())
}

pub(super) fn warn_of_readers(reader: &Reader, key: &str, path: &Path) {
    if others_may_read(path) {
        reader.warn(format!("{key}: the file {} can be read by every account of this machine", path.display()));
    }
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
