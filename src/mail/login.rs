//! Logs in to a mail server (RFC 4954), by PLAIN where the server offers it, else by LOGIN.
//!
//! Only what the server offers *now* counts: what it said before the connection was encrypted may have been somebody else's
//! words, and is forgotten by then.

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::MailLogin;

use super::delivery::{MailError, Refusal, Stage};
use super::reply::Reply;
use super::wire::Wire;

/// RFC 5321, 4.5.3.1.4: a longer command goes in two steps.
const COMMAND_BYTES: usize = 512;

/// How we log in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    Plain,
    Login,
}

impl Mechanism {
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }

    fn best(offered: &[String]) -> Option<Mechanism> {
        [Mechanism::Plain, Mechanism::Login].into_iter().find(|m| offered.iter().any(|name| name == m.as_str()))
    }
}

/// `offered` are the names that the server gave last, in capitals.
pub(super) async fn log_in(wire: &mut Wire, offered: &[String], login: &MailLogin, until: Instant) -> Result<Mechanism, MailError> {
    let mechanism = Mechanism::best(offered).ok_or_else(|| MailError::NoLogin { offered: offered.to_vec() })?;
    let (user, password) = (login.user.as_bytes(), login.password.expose().as_bytes());
    let mut dialogue = Dialogue { wire, until };
    let reply = match mechanism {
        Mechanism::Plain => {
            let secret = base64(&[b"\0", user, b"\0", password]);
            if "AUTH PLAIN \r\n".len() + secret.len() <= COMMAND_BYTES {
                dialogue.say(&["AUTH PLAIN ", &secret]).await?
            } else {
                dialogue.ask("AUTH PLAIN").await?;
                dialogue.say(&[&secret]).await?
            }
        }
        Mechanism::Login => {
            dialogue.ask("AUTH LOGIN").await?;
            dialogue.ask(&base64(&[user])).await?;
            dialogue.say(&[&base64(&[password])]).await?
        }
    };
    match reply.code {
        235 => Ok(mechanism),
        _ => Err(refused(&reply)),
    }
}

struct Dialogue<'a> {
    wire: &'a mut Wire,
    until: Instant,
}

impl Dialogue<'_> {
    async fn say(&mut self, words: &[&str]) -> Result<Reply, MailError> {
        let mut line = Zeroizing::new(Vec::with_capacity(words.iter().map(|word| word.len()).sum::<usize>() + 2));
        words.iter().for_each(|word| line.extend_from_slice(word.as_bytes()));
        line.extend_from_slice(b"\r\n");
        self.wire.write(&line, Stage::Login, self.until).await?;
        self.wire.reply(Stage::Login, self.until).await
    }

    /// Says what the server answers with "go on".
    async fn ask(&mut self, words: &str) -> Result<(), MailError> {
        let reply = self.say(&[words]).await?;
        if reply.code == 334 { Ok(()) } else { Err(refused(&reply)) }
    }
}

fn refused(reply: &Reply) -> MailError {
    match reply.code / 100 {
        4 | 5 => MailError::Login(Refusal { stage: Stage::Login, code: reply.code, enhanced: reply.enhanced() }),
        _ => MailError::Protocol(Stage::Login),
    }
}

/// In memory that is wiped, and never moved while it grows.
fn base64(parts: &[&[u8]]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    let mut text = Zeroizing::new(String::with_capacity(length.div_ceil(3) * 4));
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let six = (word >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, wanted) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(*base64(&[text.as_bytes()]), wanted);
        }
        assert_eq!(*base64(&[b"\0", b"tim", b"\0", b"tanstaaftanstaaf"]), "AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
        assert_eq!(*base64(&[&[0xff, 0xfe, 0xfb]]), "//77");
    }

    #[test]
    fn plain_is_taken_before_login_and_nothing_else_is_known() {
        let best = |offered: &[&str]| Mechanism::best(&offered.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(best(&["LOGIN", "PLAIN"]), Some(Mechanism::Plain));
        assert_eq!(best(&["CRAM-MD5", "LOGIN"]), Some(Mechanism::Login));
        assert_eq!(best(&["XOAUTH2", "NTLM"]), None);
    }
}
