//! `seal`: encrypts a secret for the configuration. It is read from the terminal without echo, or from the standard input, and
//! is never an argument, which every account of the machine could see.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use super::print;
use crate::cli::ExitStatus;
use crate::config::{self, ConfigProblems, sealed, secrets};
use crate::domain::{Key, Secret};
use crate::logging::chain;
use crate::seal::{KeyFileError, SealError, make_key, read_key};

/// More is another file, given by mistake.
const LARGEST_BYTES: u64 = 64 << 10;

/// Why nothing was sealed. Never holds anything of the secret.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigProblems),
    #[error("cannot read the secret")]
    Read(#[source] io::Error),
    #[error("the secret is empty; enter it at the prompt, or send it to the standard input")]
    Empty,
    #[error("the secret is longer than 64 KiB; a password or a key is meant")]
    TooLong,
    #[error("the secret is not UTF-8")]
    NotText,
    #[error(
        "this is a value that another program has encrypted (`code,…` or `ENCSTR:…`), which nobody else can read; enter the secret itself"
    )]
    Foreign,
    #[error("this is sealed already; enter the secret itself")]
    Sealed,
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl Failure {
    fn status(&self) -> ExitStatus {
        match self {
            Failure::Read(_) | Failure::Key(_) | Failure::Seal(_) => ExitStatus::Failed,
            _ => ExitStatus::Usage,
        }
    }
}

/// Prints the sealed value alone on the standard output, and all advice on the standard error.
pub fn seal(config: &Path) -> ExitStatus {
    let sealed = match sealed_for(config) {
        Ok(sealed) => sealed,
        Err(error) => {
            match &error {
                Failure::Config(problems) => eprintln!("{problems}"),
                other => eprintln!("credkeeper: {}", chain(other)),
            }
            return error.status();
        }
    };
    let Sealed { value, key, is_new } = sealed;
    if is_new {
        eprintln!("Made the key file {}, which this account alone can read: the account of the service must be able to.", key.display());
    }
    let printed = print(&format!("{value}\n"));
    eprintln!(
        "Write this in place of the secret in {}, also inside of a url or a connection_string. It opens with {} only: keep that file, apart from copies of the configuration.",
        config.display(),
        key.display()
    );
    printed
}

struct Sealed {
    value: String,
    key: PathBuf,
    is_new: bool,
}

fn sealed_for(config: &Path) -> Result<Sealed, Failure> {
    let path = config::seal_key(config)?;
    // Looked at before anybody types, and made only once there is something to seal.
    let key = read_key(&path)?;
    let secret = entered()?;
    let is_new = key.is_none();
    let key = key.map_or_else(|| made(&path), Ok)?;
    Ok(Sealed { value: sealed::seal(&key, &secret)?, key: path, is_new })
}

fn entered() -> Result<Secret, Failure> {
    let secret = if io::stdin().is_terminal() {
        secrets::one_line(&zeroize::Zeroizing::new(rpassword::prompt_password("Secret (is not shown): ").map_err(Failure::Read)?))
    } else {
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        io::stdin().lock().take(LARGEST_BYTES + 1).read_to_end(&mut bytes).map_err(Failure::Read)?;
        if bytes.len() as u64 > LARGEST_BYTES {
            return Err(Failure::TooLong);
        }
        secrets::one_line(std::str::from_utf8(&bytes).map_err(|_| Failure::NotText)?)
    };
    match secret.expose() {
        "" => Err(Failure::Empty),
        text if secrets::is_foreign(text) => Err(Failure::Foreign),
        text if text.starts_with(sealed::VERSION) => Err(Failure::Sealed),
        _ => Ok(secret),
    }
}

/// Two that make the key at once must not end with two keys, of which one is gone.
fn made(path: &Path) -> Result<Key, KeyFileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A folder can be locked on Unix. Elsewhere it cannot be opened, and there is no lock.
    let lock = std::fs::File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    let key = match read_key(path)? {
        Some(key) => key,
        None => make_key(path)?,
    };
    drop(lock);
    Ok(key)
}
