//! Stands between the program and a server, and does something to one connection where it hears a text.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::pg::free_port;

/// When it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// The text does not reach the server.
    Before,
    /// The server has it, and its answer does not reach the program.
    Answer,
}

/// What is done to the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Reset, both ways.
    Cut,
    /// Nothing goes either way for so long.
    Stall(Duration),
    /// Nothing goes either way any more; the server's side ends when the program's does.
    Swallow,
    /// The same, and the server never hears that the program has gone.
    Forsake,
}

/// Where it happens.
#[derive(Clone, Debug)]
pub struct Trap {
    /// What the program says.
    pub text: &'static [u8],
    /// What it has said before on the same connection; empty: anything.
    pub after: &'static [u8],
    pub moment: Moment,
    pub deed: Deed,
    /// From then on no other connection comes about either, until [`Proxy::heal`].
    pub for_all: bool,
}

/// A proxy that runs until this is dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: u16,
    trap: Mutex<Option<Trap>>,
    /// Sprung, and not healed.
    down: AtomicBool,
    sprung: AtomicUsize,
}

impl Proxy {
    /// Before the server at this port of the same machine. The trap springs once.
    pub async fn start(server: u16, trap: Trap) -> Proxy {
        let listener = loop {
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", free_port())).await {
                break listener;
            }
        };
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { server, trap: Mutex::new(Some(trap)), down: AtomicBool::new(false), sprung: AtomicUsize::new(0) });
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, serving.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Proxy { port, shared, task }
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        self.shared.down.store(false, Ordering::SeqCst);
    }

    pub fn sprung(&self) -> usize {
        self.shared.sprung.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whose turn comes next on a connection.
enum Next {
    Client(usize),
    Server(usize),
    Over,
}

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    if shared.down.load(Ordering::SeqCst) {
        return cut(client);
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", shared.server)).await else { return cut(client) };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut said, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    // The end of what was said, in which a text may begin that goes on in the next part.
    let mut tail: Vec<u8> = Vec::new();
    // What is done with the next answer.
    let mut armed: Option<Deed> = None;
    let mut before_heard = false;
    loop {
        let next = tokio::select! {
            read = client.read(&mut said) => read.map_or(Next::Over, |n| if n == 0 { Next::Over } else { Next::Client(n) }),
            read = server.read(&mut answered) => read.map_or(Next::Over, |n| if n == 0 { Next::Over } else { Next::Server(n) }),
        };
        match next {
            Next::Over => return,
            Next::Client(n) => {
                let part = &said[..n];
                let begins = tail.len();
                tail.extend_from_slice(part);
                let trap = sprung(&shared, &tail, &mut before_heard);
                if let Some((trap, at)) = trap {
                    // What comes before the text reaches the server; what of the text has gone already is no whole.
                    let before = at.saturating_sub(begins);
                    if trap.moment == Moment::Before {
                        if server.write_all(&part[..before]).await.is_err() || !done(trap.deed, &mut client, &mut server).await {
                            return if trap.deed == Deed::Cut {
                                cut_both(client, server)
                            };
                        }
                        if server.write_all(&part[before..]).await.is_err() {
                            return;
                        }
                    } else {
                        armed = Some(trap.deed);
                        if server.write_all(part).await.is_err() {
                            return;
                        }
                    }
                    tail.clear();
                    continue;
                }
                if server.write_all(part).await.is_err() {
                    return;
                }
                let kept = tail.len().saturating_sub(63);
                tail.drain(..kept);
            }
            Next::Server(n) => {
                if let Some(deed) = armed.take()
                    && !done(deed, &mut client, &mut server).await
                {
                    return if deed == Deed::Cut {
                        cut_both(client, server)
                    };
                }
                if client.write_all(&answered[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The trap, if it springs at what was said, and where its text begins.
fn sprung(shared: &Shared, said: &[u8], before_heard: &mut bool) -> Option<(Trap, usize)> {
    let mut slot = shared.trap.lock().unwrap();
    let Trap { text, after, .. } = *slot.as_ref()?;
    let find = |text: &[u8]| said.windows(text.len()).position(|window| window == text);
    *before_heard = *before_heard || after.is_empty() || find(after).is_some();
    let at = find(text).filter(|_| *before_heard)?;
    let trap = slot.take()?;
    shared.sprung.fetch_add(1, Ordering::SeqCst);
    shared.down.store(trap.for_all, Ordering::SeqCst);
    Some((trap, at))
}

/// Whether the connection goes on.
async fn done(deed: Deed, client: &mut TcpStream, server: &mut TcpStream) -> bool {
    match deed {
        Deed::Cut => false,
        Deed::Stall(span) => {
            tokio::time::sleep(span).await;
            true
        }
        Deed::Swallow | Deed::Forsake => {
            // Until the program gives up; what it still says goes nowhere.
            let mut nothing = [0; 4096];
            while client.read(&mut nothing).await.is_ok_and(|n| n > 0) {}
            if deed == Deed::Forsake {
                // Until the server gives up.
                while server.read(&mut nothing).await.is_ok_and(|n| n > 0) {}
            }
            false
        }
    }
}

fn cut_both(client: TcpStream, server: TcpStream) {
    cut(client);
    cut(server);
}

fn cut(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}
