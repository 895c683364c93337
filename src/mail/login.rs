//! Logs in to a mail server (RFC 4954): with a password by PLAIN where the server offers it, else by LOGIN; with an access
//! token by XOAUTH2.
//!
//! Only what the server offers *now* counts: what it said before the connection was encrypted may have been somebody else's
//! words, and is forgotten by then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::{Proof, SmtpConfig};
use crate::domain::Secret;

use super::delivery::{MailError, Refusal, Stage};
use super::reply::Reply;
use super::smtp::Deadlines;
use super::token::{Given, Tokens};
use super::wire::Wire;

/// RFC 5321, 4.5.3.1.4: a longer command goes in two steps.
const COMMAND_BYTES: usize = 512;

/// How we log in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    Plain,
    Login,
    XOAuth2,
}

/// What the mail server is shown. Copies share one token.
#[derive(Clone, Debug)]
pub(super) enum Credentials {
    None,
    Password { user: String, password: Secret },
    Token { user: String, tokens: Arc<Tokens> },
}

impl Credentials {
    pub(super) fn of(config: &SmtpConfig, deadlines: &Deadlines) -> Credentials {
        let Some(login) = &config.login else { return Credentials::None };
        let user = login.user.clone();
        match &login.proof {
            Proof::Password(password) => Credentials::Password { user, password: password.clone() },
            Proof::Token(endpoint) => {
                let tokens = Tokens::new(endpoint.as_ref().clone(), deadlines.connect, deadlines.greeting);
                Credentials::Token { user, tokens: Arc::new(tokens) }
            }
        }
    }

    /// What has to be fetched is fetched first, so that no mail server waits for it.
    pub(super) async fn ready(&self) -> Result<Ready<'_>, MailError> {
        Ok(match self {
            Credentials::None => Ready::None,
            Credentials::Password { user, password } => Ready::Password { user, password },
            Credentials::Token { user, tokens } => Ready::Token { user, tokens, given: tokens.get().await.map_err(MailError::Token)? },
        })
    }
}

/// What one login is done with.
pub(super) enum Ready<'a> {
    None,
    Password { user: &'a str, password: &'a Secret },
    Token { user: &'a str, tokens: &'a Tokens, given: Given },
}

impl Mechanism {
    pub fn as_str(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::XOAuth2 => "XOAUTH2",
        }
    }

    /// With a password.
    fn best(offered: &[String]) -> Option<Mechanism> {
        [Mechanism::Plain, Mechanism::Login].into_iter().find(|m| offered.iter().any(|name| name == m.as_str()))
    }
}

/// `offered` are the names that the server gave last, in capitals; `None`: no login is wanted. `within` bounds a second try.
pub(super) async fn log_in(
    wire: &mut Wire,
    offered: &[String],
    ready: Ready<'_>,
    until: Instant,
    within: Duration,
) -> Result<Option<Mechanism>, MailError> {
    let mut dialogue = Dialogue { wire, until };
    match ready {
        Ready::None => Ok(None),
        Ready::Password { user, password } => {
            let mechanism = Mechanism::best(offered).ok_or_else(|| not_offered("PLAIN or LOGIN", offered))?;
            let reply = dialogue.with_password(mechanism, user.as_bytes(), password.expose().as_bytes()).await?;
            accepted(&reply).map(|()| Some(mechanism))
        }
        Ready::Token { user, tokens, given } => {
            if !offered.iter().any(|name| name == Mechanism::XOAuth2.as_str()) {
                return Err(not_offered("XOAUTH2", offered));
            }
            let mut reply = dialogue.with_token(user, &given.token).await?;
            if reply.code / 100 == 5 {
                tokens.refused(&given.token).await;
            }
            if reply.code / 100 == 5 && !given.is_new {
                // It may have ended before its time: another secret, other rights, a clock that is wrong.
                let given = tokens.get().await.map_err(MailError::Token)?;
                dialogue.until = Instant::now() + within;
                reply = dialogue.with_token(user, &given.token).await?;
                if reply.code / 100 == 5 {
                    tokens.refused(&given.token).await;
                }
            }
            accepted(&reply).map(|()| Some(Mechanism::XOAuth2))
        }
    }
}

fn not_offered(wanted: &'static str, offered: &[String]) -> MailError {
    MailError::NoLogin { wanted, offered: offered.to_vec() }
}

struct Dialogue<'a> {
    wire: &'a mut Wire,
    until: Instant,
}

impl Dialogue<'_> {
    async fn with_password(&mut self, mechanism: Mechanism, user: &[u8], password: &[u8]) -> Result<Reply, MailError> {
        if mechanism == Mechanism::Login {
            self.ask("AUTH LOGIN").await?;
            self.ask(&base64(&[user])).await?;
            return self.say(&[&base64(&[password])]).await;
        }
        self.at_once("AUTH PLAIN", &base64(&[b"\0", user, b"\0", password])).await
    }

    /// A refusal comes in two steps: details, which nobody needs to see and which our empty answer ends, then the code.
    async fn with_token(&mut self, user: &str, token: &Secret) -> Result<Reply, MailError> {
        let secret = base64(&[b"user=", user.as_bytes(), b"\x01auth=Bearer ", token.expose().as_bytes(), b"\x01\x01"]);
        let reply = self.at_once("AUTH XOAUTH2", &secret).await?;
        if reply.code == 334 { self.say(&[]).await } else { Ok(reply) }
    }

    /// A command and what belongs to it, in one step if it is short.
    async fn at_once(&mut self, command: &str, secret: &str) -> Result<Reply, MailError> {
        if command.len() + " \r\n".len() + secret.len() <= COMMAND_BYTES {
            self.say(&[command, " ", secret]).await
        } else {
            self.ask(command).await?;
            self.say(&[secret]).await
        }
    }

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

fn accepted(reply: &Reply) -> Result<(), MailError> {
    if reply.code == 235 { Ok(()) } else { Err(refused(reply)) }
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
