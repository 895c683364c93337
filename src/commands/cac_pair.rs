//! `doctor --cac-pair`: a code and what the print system made of it, asked for without echo or read from the standard input;
//! never arguments, which every account of the machine could see.

use std::io::{self, IsTerminal, Read};

use tracing::error;
use zeroize::Zeroizing;

use super::print;
use crate::cli::ExitStatus;
use crate::config::Config;
use crate::doctor;
use crate::domain::{Code, StoredValue, printable};
use crate::logging::chain;
use crate::store::CheckVerdict;

/// More is another file, given by mistake.
const LARGEST_BYTES: u64 = 16 << 10;

/// Why nothing was compared. Holds nothing of what was entered.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the database {database} has no cac_cipher: there is no cipher to prove → write the one that is to be tried")]
    NoCipher { database: String },
    #[error("there are several databases, each with a cipher of its own → say which one with --database NAME")]
    Which,
    #[error("cannot read the code and its stored form")]
    Read(#[source] io::Error),
    #[error("the input is longer than 16 KiB → a code in one line and its stored form in the next are meant")]
    TooLong,
    #[error("the input is not UTF-8 → a code in one line and its stored form in the next are meant")]
    NotText,
    #[error("two lines were expected: the code, and its stored form")]
    NotTwo,
    #[error("the code is not made of digits → enter the code first, then its stored form")]
    NotDigits,
}

/// Prints one line as `doctor` does, and what to do under it.
pub async fn cac_pair(config: &Config) -> ExitStatus {
    let proven = async {
        let mut selected = config.selected();
        let (Some(database), None) = (selected.next(), selected.next()) else { return Err(Failure::Which) };
        let none = || Failure::NoCipher { database: printable(&database.name).to_string() };
        let cipher = database.cac_cipher.as_ref().ok_or_else(none)?;
        let (code, stored) = entered()?;
        Ok::<_, Failure>(doctor::cac_pair(cipher, &code, &stored).await)
    };
    match proven.await {
        Ok(check) => {
            let failed = check.verdict == CheckVerdict::Failed;
            let printed = print(&doctor::render(&[check]));
            if failed { ExitStatus::Failed } else { printed }
        }
        Err(failure) => {
            error!("{}", chain(&failure));
            if matches!(failure, Failure::Read(_)) { ExitStatus::Failed } else { ExitStatus::Usage }
        }
    }
}

fn entered() -> Result<(Code, StoredValue), Failure> {
    let text = if io::stdin().is_terminal() {
        let ask = |what: &str| rpassword::prompt_password(what).map(Zeroizing::new).map_err(Failure::Read);
        let code = ask("Card assignment code (is not shown): ")?;
        let stored = ask("Its stored form in the database (is not shown): ")?;
        Zeroizing::new(format!("{}\n{}", code.trim(), stored.trim()))
    } else {
        let mut bytes = Zeroizing::new(Vec::new());
        io::stdin().lock().take(LARGEST_BYTES + 1).read_to_end(&mut bytes).map_err(Failure::Read)?;
        if bytes.len() as u64 > LARGEST_BYTES {
            return Err(Failure::TooLong);
        }
        Zeroizing::new(std::str::from_utf8(&bytes).map_err(|_| Failure::NotText)?.to_owned())
    };
    pair(&text)
}

/// Space around a value comes from copying it, and is no part of it.
fn pair(text: &str) -> Result<(Code, StoredValue), Failure> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let [code, stored] = lines[..] else { return Err(Failure::NotTwo) };
    if !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Failure::NotDigits);
    }
    Ok((Code::new(code.to_owned()), StoredValue::new(stored.to_owned())))
}
