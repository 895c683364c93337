//! Whether it is our own instance that leads on the database. Two that take turns, each with a journal of its own, are not
//! supported: neither knows what the other has issued, and the mail of the one waits for as long as the other leads.

use crate::config::Config;
use crate::domain::printable;
use crate::journal;
use crate::logging::chain;
use crate::store::{Check, Leader, Reader};

const NAME: &str = "leader";

pub(super) async fn check(config: &Config, reader: &Reader) -> Check {
    match reader.leader().await {
        Ok(None) => Check::ok(NAME, "no instance is at work on the database"),
        Ok(Some(leader)) => judged(&leader, journal::is_held(&config.journal)),
        Err(error) => Check::warning(NAME, chain(&error), "without an answer nobody can tell whether a second instance is at work"),
    }
}

/// `journal_held`: an instance on this host has our journal.
fn judged(leader: &Leader, journal_held: bool) -> Check {
    let Leader { process, host, our_host } = leader;
    let shown = |host: &str| printable(host).into_owned();
    let elsewhere = host.as_deref().filter(|host| our_host.as_deref() != Some(*host));
    let advice = "let one instance serve this database: two with a journal each do not know what the other has issued, and mails of the one wait \
                  while the other leads. A standby belongs on the same host, with the same journal";
    match (elsewhere, journal_held) {
        (None, true) => Check::ok(NAME, "the instance that has this journal leads"),
        (Some(host), _) => {
            Check::warning(NAME, format!("an instance at {} leads on the database (process {process} of its server)", shown(host)), advice)
        }
        (None, false) => {
            let whence = host.as_deref().map_or(String::new(), |host| format!(" at {}", shown(host)));
            let found =
                format!("an instance{whence} leads that has another journal than this one (process {process} of the database server)");
            Check::warning(NAME, found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CheckVerdict;

    #[test]
    fn a_leader_with_another_journal_is_warned_of() {
        let (here, there) = (Some("10.0.0.1"), Some("10.0.0.2"));
        #[rustfmt::skip]
        let table = [
            ("our own", here, here, true, CheckVerdict::Ok),
            ("through a socket of the same machine", None, None, true, CheckVerdict::Ok),
            ("another role's session, of which only the process can be seen", None, here, true, CheckVerdict::Ok),
            ("on this host, and our journal is in nobody's hands", here, here, false, CheckVerdict::Warning),
            ("somewhere, and our journal is in nobody's hands", None, here, false, CheckVerdict::Warning),
            ("on another host, while ours stands by", there, here, true, CheckVerdict::Warning),
            ("on another host alone", there, here, false, CheckVerdict::Warning),
            ("on another host, and we are on the server's", there, None, true, CheckVerdict::Warning),
        ];
        for (sentence, host, our_host, held, expected) in table {
            let leader = Leader { process: 4711, host: host.map(str::to_owned), our_host: our_host.map(str::to_owned) };
            let check = judged(&leader, held);
            assert_eq!(check.verdict, expected, "{sentence}: {}", check.found);
            assert_eq!(check.found.contains("4711"), expected == CheckVerdict::Warning, "{sentence}: {}", check.found);
            assert_eq!(check.found.contains("10.0.0.2"), host == there, "{sentence}: {}", check.found);
        }
    }
}
