//! The mail server: real SMTP on a real socket, within the runtime of the process that it serves. It answers as it is told, and keeps
//! what it takes over.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::clock::Clock;
use crate::schedule::Reply;

/// A mail that the server has taken over.
#[derive(Clone, Debug)]
pub struct Mail {
    /// On the clock that never jumps.
    pub at: Duration,
    /// By how much the machine's clock was set back until then.
    pub set_back: Duration,
    pub to: String,
    pub id: String,
    /// The login that the text names.
    pub user: String,
    pub pin: Option<String>,
    pub code: Option<String>,
    pub password: Option<String>,
    pub is_reminder: bool,
    /// Subject and text.
    pub text: String,
}

#[derive(Default)]
pub struct Post {
    pub down: bool,
    pub next: VecDeque<Reply>,
    pub always: BTreeMap<String, Reply>,
    pub taken: Vec<Mail>,
    /// How often each address was put off or refused, or its mail left in the middle.
    pub refused: BTreeMap<String, u32>,
    /// How often each answer was given.
    pub given: BTreeMap<&'static str, u64>,
    /// For a mistake on purpose: what is taken over is told again with another PIN.
    pub forges: bool,
    /// The same, with another recipient.
    pub redirects: bool,
}

impl Post {
    pub fn be_well(&mut self) {
        self.down = false;
        self.next.clear();
        self.always.clear();
    }

    fn reply(&mut self, to: &str) -> Reply {
        let reply = self.next.pop_front().or_else(|| self.always.get(to).copied()).unwrap_or(Reply::Accept);
        *self.given.entry(name(reply)).or_default() += 1;
        if reply != Reply::Accept {
            *self.refused.entry(to.to_owned()).or_default() += 1;
        }
        reply
    }

    fn take(&mut self, message: &str, to: &str, clock: &Clock) {
        let mail = parse(message, to, clock);
        if let (true, Some(pin)) = (self.forges, &mail.pin) {
            let other = pin.chars().rev().map(|digit| if digit == '9' { '0' } else { '9' }).collect::<String>();
            let forged = Mail { text: mail.text.replace(pin.as_str(), &other), pin: Some(other), ..mail.clone() };
            self.taken.push(forged);
        }
        if self.redirects {
            self.taken.push(Mail { to: format!("not.{}", mail.to), ..mail.clone() });
        }
        self.taken.push(mail);
    }
}

fn name(reply: Reply) -> &'static str {
    match reply {
        Reply::Accept => "accepted",
        Reply::Later | Reply::LaterAtEnd | Reply::Busy => "later (4xx)",
        Reply::Never => "never (550 5.1.1)",
        Reply::Site | Reply::Sender => "refused for the site",
        Reply::LostAfter => "taken, answer lost",
        Reply::LostBefore | Reply::Cut => "cut off before",
    }
}

/// Serves until it is dropped. To be polled by the same task that waits for the process: what wakes that task keeps the stopped
/// time from going on, and so a conversation takes no time.
pub async fn serve(listener: std::net::TcpListener, post: Rc<RefCell<Post>>, clock: Clock) {
    let listener = TcpListener::from_std(listener).expect("the listener");
    let mut guests = FuturesUnordered::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => guests.push(talk(stream, post.clone(), clock.clone())),
            Some(()) = guests.next(), if !guests.is_empty() => {}
        }
    }
}

async fn talk(mut stream: TcpStream, post: Rc<RefCell<Post>>, clock: Clock) {
    // Whatever goes wrong ends the conversation, as it does anywhere.
    let mut in_hand = InHand { to: None, post: &post };
    let _ = converse(&mut stream, &mut in_hand, &post, &clock).await;
    drop((stream, in_hand));
    breathe().await;
}

/// For whom there is a mail that is neither taken nor refused.
struct InHand<'a> {
    to: Option<String>,
    post: &'a RefCell<Post>,
}

/// The program went away in the middle of the mail, or was killed, and the conversation with it.
impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let mut post = self.post.borrow_mut();
            *post.given.entry("left alone").or_default() += 1;
            *post.refused.entry(to).or_default() += 1;
        }
    }
}

/// Lets the other side read what it was told before the time goes on.
async fn breathe() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

async fn converse(stream: &mut TcpStream, in_hand: &mut InHand<'_>, post: &RefCell<Post>, clock: &Clock) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    if post.borrow().down {
        return Ok(());
    }
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    macro_rules! say {
        ($($line:expr),*) => {{
            write.write_all(concat!($($line, "\r\n"),*).as_bytes()).await?;
            breathe().await;
        }};
    }
    say!("220 post.example.com");
    let (mut to, mut reply, mut line) = (String::new(), Reply::Accept, String::new());
    loop {
        line.clear();
        if read.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => say!("250 post.example.com"),
            "MAIL" => {
                // Who it is for is known only with the next command.
                let sender = matches!(post.borrow().next.front(), Some(Reply::Sender | Reply::Busy));
                if !sender {
                    say!("250 2.1.0 fine");
                } else if post.borrow_mut().reply("") == Reply::Sender {
                    say!("550 5.7.1 not from you");
                } else {
                    say!("421 4.3.2 busy");
                    return Ok(());
                }
            }
            "RCPT" => {
                to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                reply = post.borrow_mut().reply(&to);
                match reply {
                    Reply::Cut => return Ok(()),
                    Reply::Later => say!("451 4.7.1 later"),
                    Reply::Never => say!("550 5.1.1 nobody of that name"),
                    Reply::Site | Reply::Sender => say!("554 5.7.1 not from you"),
                    _ => {
                        in_hand.to = Some(to.clone());
                        say!("250 2.1.5 fine");
                    }
                }
            }
            "DATA" => {
                say!("354 go on");
                let mut message = String::new();
                loop {
                    let from = message.len();
                    if read.read_line(&mut message).await? == 0 {
                        return Ok(());
                    }
                    if message[from..] == *".\r\n" {
                        message.truncate(from);
                        break;
                    }
                }
                if reply == Reply::LostBefore {
                    return Ok(());
                }
                in_hand.to = None;
                if matches!(reply, Reply::LaterAtEnd | Reply::Busy) {
                    say!("451 4.3.0 later");
                    continue;
                }
                post.borrow_mut().take(&message, &to, clock);
                if reply == Reply::LostAfter {
                    return Ok(());
                }
                say!("250 2.0.0 taken");
            }
            "RSET" => {
                in_hand.to = None;
                say!("250 fine");
            }
            "QUIT" => return Ok(()),
            _ => say!("500 what?"),
        }
    }
}

fn parse(message: &str, to: &str, clock: &Clock) -> Mail {
    let (head, body) = message.split_once("\r\n\r\n").expect("a mail has a blank line");
    let header = |name: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {head}"));
        found.trim().to_owned()
    };
    assert!(header("Content-Transfer-Encoding:") == "7bit", "{head}");
    assert!(header("To:").trim_matches(['<', '>']) == to, "the envelope is for {to}: {head}");
    let told = |word: &str| body.lines().find_map(|line| line.strip_prefix(word)).map(str::to_owned);
    Mail {
        at: clock.now(),
        set_back: clock.set_back(),
        to: to.to_owned(),
        id: header("Message-ID:").trim_matches(['<', '>']).to_owned(),
        user: told("USER ").unwrap_or_else(|| panic!("for whom is {body}")),
        pin: told("PIN "),
        code: told("CODE "),
        password: told("PASSWORD "),
        is_reminder: body.contains("REMINDER"),
        text: format!("{}\n{body}", header("Subject:")),
    }
}
