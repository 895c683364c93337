//! Encrypts card assignment codes: with a cipher of ours, or with a program of the administrator's, one process a code.
//!
//! A code reaches the program on its standard input and nowhere else. Its environment is swept, since ours may hold the secrets
//! of the configuration, and what it says on its standard error goes nowhere, since it may repeat the code.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, io};

use futures_util::{StreamExt, stream};
use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::cores::cores;
use crate::domain::cipher::CipherCommand;
use crate::domain::time::span;
use crate::domain::{Code, CodeCipher, StoredValue};

/// What a stored form may have at most, in bytes.
const LARGEST: usize = 4096;
/// Once so many processes have failed, the program counts as broken and the other codes are not tried with it.
const GIVE_UP: usize = 3;
/// What a program may need to run at all, here or on Windows. Nothing else of our environment reaches it.
const ENVIRONMENT: [&str; 11] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "TMP", "TEMP", "SystemRoot", "windir", "ProgramData"];

/// Why a code was not encrypted. Holds nothing that the program has said.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    #[error("the cipher's command {} cannot be started: {why}", program.display())]
    Start { program: PathBuf, why: io::Error },
    #[error("the cipher's command {} ended with {}", program.display(), ending(*status))]
    Exit { program: PathBuf, status: ExitStatus },
    #[error("the cipher's command {} did not end within {} and was killed", program.display(), span(*timeout))]
    Timeout { program: PathBuf, timeout: Duration },
    #[error("the cipher's command {} {}", program.display(), fault.as_str())]
    Output { program: PathBuf, fault: Fault },
    #[error("talking with the cipher's command {} failed: {why}", program.display())]
    Talk { program: PathBuf, why: io::Error },
    #[error("the cipher's command {} was not tried any more after {GIVE_UP} failures", program.display())]
    GivenUp { program: PathBuf },
    #[error("drawing a random initialisation vector failed")]
    Random(#[source] SysError),
}

/// What is wrong with what a program printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Empty,
    TooLong,
    /// Not one line of text.
    NotALine,
    Plain,
    /// The same for two codes.
    Same,
}

impl Fault {
    fn as_str(self) -> &'static str {
        match self {
            Fault::Empty => "printed nothing; it has to print the stored form of the code that it reads",
            Fault::TooLong => "printed more than 4 KiB; it has to print the stored form and nothing else",
            Fault::NotALine => "printed something that is not one line of text; it has to print the stored form and nothing else",
            Fault::Plain => "printed the code as it was, not encrypted",
            Fault::Same => "printed the same for two different codes; it has to read the code from its standard input",
        }
    }
}

/// The stored forms of `codes`, in their order. A command is run at most once for each core at a time; what fails for one code
/// does not keep the others, until the command counts as broken. Dropped, it kills what it has started.
pub async fn encrypt_all(cipher: &CodeCipher, codes: &[Code]) -> Vec<Result<StoredValue, EncryptError>> {
    let command = match cipher {
        CodeCipher::BuiltIn(cipher) => {
            let one = |code| {
                let mut drawn = [0; 16];
                SysRng.try_fill_bytes(&mut drawn).map_err(EncryptError::Random)?;
                Ok(cipher.encrypt(code, drawn))
            };
            return codes.iter().map(one).collect();
        }
        CodeCipher::Command(command) => command,
    };
    let failures = AtomicUsize::new(0);
    let one = |at: usize| {
        let failures = &failures;
        async move {
            if failures.load(Ordering::Relaxed) >= GIVE_UP {
                return Err(EncryptError::GivenUp { program: command.program.clone() });
            }
            let made = run(command, &codes[at]).await;
            if made.is_err() {
                failures.fetch_add(1, Ordering::Relaxed);
            }
            made
        }
    };
    let mut made: Vec<_> = stream::iter(0..codes.len()).map(one).buffered(cores()).collect().await;
    refuse_equal(command, codes, &mut made);
    made
}

/// The stored form of one code.
///
/// # Errors
/// As [`encrypt_all`].
pub async fn encrypt(cipher: &CodeCipher, code: &Code) -> Result<StoredValue, EncryptError> {
    match cipher {
        CodeCipher::Command(command) => run(command, code).await,
        CodeCipher::BuiltIn(_) => encrypt_all(cipher, std::slice::from_ref(code)).await.remove(0),
    }
}

/// Whether a code has one stored form only, which can be looked for in the database. A command is asked by having it encrypt
/// the same code twice.
///
/// # Errors
/// When the command fails.
pub async fn is_deterministic(cipher: &CodeCipher) -> Result<bool, EncryptError> {
    if let Some(known) = cipher.is_deterministic() {
        return Ok(known);
    }
    let code = Code::new("004711".to_owned());
    Ok(encrypt(cipher, &code).await? == encrypt(cipher, &code).await?)
}

/// A program that prints the same whatever it reads, an error for instance, would give all users one code.
fn refuse_equal(command: &CipherCommand, codes: &[Code], made: &mut [Result<StoredValue, EncryptError>]) {
    let mut first = std::collections::HashMap::new();
    let mut equal = Vec::new();
    for (at, stored) in made.iter().enumerate() {
        if let Ok(stored) = stored {
            let other = *first.entry(stored).or_insert(at);
            if codes[other] != codes[at] {
                equal.extend([other, at]);
            }
        }
    }
    for at in equal {
        made[at] = Err(EncryptError::Output { program: command.program.clone(), fault: Fault::Same });
    }
}

async fn run(command: &CipherCommand, code: &Code) -> Result<StoredValue, EncryptError> {
    let program = || command.program.clone();
    let mut process = Command::new(&command.program);
    process.args(&command.arguments).env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    #[cfg(unix)]
    process.process_group(0);
    let mut child = process.spawn().map_err(|why| EncryptError::Start { program: program(), why })?;
    let mut family = Family::of(&child);
    let outcome = timeout(command.timeout, talk(&mut child, code)).await;
    let (output, status) = match outcome {
        Err(_) => return Err(EncryptError::Timeout { program: program(), timeout: command.timeout }),
        Ok(Err(why)) => return Err(EncryptError::Talk { program: program(), why }),
        Ok(Ok(None)) => return Err(EncryptError::Output { program: program(), fault: Fault::TooLong }),
        Ok(Ok(Some(ended))) => ended,
    };
    family.has_ended();
    if !status.success() {
        return Err(EncryptError::Exit { program: program(), status });
    }
    stored(&output, code).map_err(|fault| EncryptError::Output { program: program(), fault })
}

/// What it printed, and how it ended; `None` if it printed too much.
async fn talk(child: &mut Child, code: &Code) -> io::Result<Option<(Zeroizing<Vec<u8>>, ExitStatus)>> {
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let write = async {
        let Some(mut input) = input else { return Ok(()) };
        // Without a newline, so that a program that encrypts all that it reads encrypts the code alone.
        match input.write_all(code.expose().as_bytes()).await {
            // Whether it has read the code is seen from what it prints.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    };
    let read = async {
        let mut all = Zeroizing::new(Vec::with_capacity(LARGEST + 1));
        if let Some(output) = output {
            output.take(LARGEST as u64 + 1).read_to_end(&mut all).await?;
        }
        io::Result::Ok(all)
    };
    let ((), all) = tokio::try_join!(write, read)?;
    if all.len() > LARGEST {
        return Ok(None);
    }
    Ok(Some((all, child.wait().await?)))
}

/// One line, with or without its end.
fn stored(output: &[u8], code: &Code) -> Result<StoredValue, Fault> {
    let text = std::str::from_utf8(output).map_err(|_| Fault::NotALine)?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    match line {
        "" => Err(Fault::Empty),
        line if line.contains(|c: char| c.is_control() || c.is_whitespace()) => Err(Fault::NotALine),
        line if line == code.expose() => Err(Fault::Plain),
        line => Ok(StoredValue::new(line.to_owned())),
    }
}

fn ending(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal {signal}");
    }
    status.code().map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"))
}

/// A process with those that it has started: a script's deadline is that of its commands too.
struct Family {
    /// Of the group; `None` once there is nothing to kill.
    leader: Option<u32>,
}

impl Family {
    fn of(child: &Child) -> Family {
        Family { leader: child.id() }
    }

    fn has_ended(&mut self) {
        self.leader = None;
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(leader) = self.leader.and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
            // Whoever has ended in the meantime is no trouble.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}
