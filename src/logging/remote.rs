//! A log server: one connection, plain or encrypted, kept by the thread of its sink.
//!
//! While the server is away, the line in hand is tried again with a growing pause, and the others wait in the queue.
//!
//! TCP takes lines for a server that is gone already, and they are lost. So it is looked before each line whether the other
//! side has closed. Behind the first line of a connection it is waited for a moment, because a server that wants another
//! certificate (with TLS 1.3), and a balancer with nobody behind it, take a connection and close it at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::chain;
use super::queue::Queue;
use crate::config::LogServer;
use crate::tls::{Keys, TlsSettings, client_config, explain};

/// For each step with the server.
const STEP: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a server may take to close a connection that it does not want.
const OBJECTION: Duration = Duration::from_millis(300);

/// How the configuration calls what an administrator may have to change.
const KEYS: Keys = Keys {
    ca_file: "log.remote.ca_file",
    client: "log.remote.client_certificate",
    other_name: "set log.remote.address to a name that the certificate holds",
};

pub(super) struct Remote {
    server: LogServer,
    /// Asked for leave to try again.
    queue: Arc<Queue>,
    objection: Duration,
    connection: Option<Connection>,
    failures: u32,
}

enum Connection {
    Plain(TcpStream),
    Encrypted(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Remote {
    pub(super) fn new(server: LogServer, queue: Arc<Queue>) -> Remote {
        Remote { server, queue, objection: OBJECTION, connection: None, failures: 0 }
    }

    /// Tries until it is sent, or until the program ends.
    ///
    /// # Errors
    /// The last failure before the program ended.
    pub(super) fn write(&mut self, frame: &str) -> io::Result<()> {
        loop {
            let Err(error) = self.try_once(frame) else {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("The log server {} takes lines again", self.server);
                }
                return Ok(());
            };
            self.connection = None;
            if self.failures == 0 {
                let why = explain(&error, &KEYS).map_or_else(|| chain(&error), |told| format!("{}; {}", told.what, told.remedy));
                tracing::warn!(error.kind = "log_remote", "The log server {} cannot be reached, lines wait for it: {why}", self.server);
            }
            self.failures = self.failures.saturating_add(1);
            if !self.queue.pause(pause(self.failures)) {
                return Err(error);
            }
        }
    }

    fn try_once(&mut self, frame: &str) -> io::Result<()> {
        if let Some(connection) = &mut self.connection
            && connection.is_alive()
        {
            return connection.send(frame.as_bytes());
        }
        self.connection = None;
        let mut connection = Connection::open(&self.server)?;
        connection.send(frame.as_bytes())?;
        connection.hear_objection(self.objection)?;
        self.connection = Some(connection);
        Ok(())
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

impl Connection {
    fn open(server: &LogServer) -> io::Result<Connection> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in (server.host.as_str(), server.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, STEP) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(STEP))?;
                    stream.set_write_timeout(Some(STEP))?;
                    return match &server.tls {
                        None => Ok(Connection::Plain(stream)),
                        Some(tls) => Connection::encrypted(stream, &server.host, tls),
                    };
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn encrypted(mut stream: TcpStream, host: &str, tls: &TlsSettings) -> io::Result<Connection> {
        let config = client_config(tls).map_err(io::Error::other)?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Connection::Encrypted(Box::new(StreamOwned::new(session, stream))))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream: &mut dyn Write = match self {
            Connection::Plain(stream) => stream,
            Connection::Encrypted(stream) => stream,
        };
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Whether the server has not closed. What it says means nothing to us.
    fn is_alive(&mut self) -> bool {
        self.socket().set_nonblocking(true).is_ok() && self.is_open() && self.socket().set_nonblocking(false).is_ok()
    }

    fn is_open(&mut self) -> bool {
        matches!(self.read_all(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits for a server that does not want us.
    fn hear_objection(&mut self, within: Duration) -> io::Result<()> {
        if within.is_zero() {
            return Ok(());
        }
        self.socket().set_read_timeout(Some(within))?;
        match self.read_all() {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                self.socket().set_read_timeout(Some(STEP))
            }
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closes the connection at once")),
        }
    }

    /// To the end of the stream, or to the error that there is nothing more yet.
    fn read_all(&mut self) -> io::Result<()> {
        let stream: &mut dyn Read = match self {
            Connection::Plain(stream) => stream,
            Connection::Encrypted(stream) => stream,
        };
        while stream.read(&mut [0; 256])? > 0 {}
        Ok(())
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Connection::Plain(stream) => stream,
            Connection::Encrypted(stream) => &stream.sock,
        }
    }
}

impl Drop for Connection {
    /// In good order, so that the server takes the end for the end.
    fn drop(&mut self) {
        let stream = match self {
            Connection::Plain(stream) => stream,
            Connection::Encrypted(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.conn.write_tls(&mut stream.sock);
                &mut stream.sock
            }
        };
        let _ = stream.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::queue::Sink;
    use super::*;

    fn server(port: u16) -> LogServer {
        LogServer { host: "127.0.0.1".to_owned(), port, tls: None }
    }

    fn sink(port: u16, objection: Duration) -> (Arc<Queue>, Sink, &'static AtomicU64) {
        let dropped: &'static AtomicU64 = Box::leak(Box::default());
        let queue = Queue::new(dropped);
        let mut remote = Remote { objection, ..Remote::new(server(port), Arc::clone(&queue)) };
        let write = move |line: &str| remote.write(line);
        let render: super::super::Render = Arc::new(|line| line.message.to_owned());
        (Arc::clone(&queue), Sink::start("test", queue, Duration::from_secs(60), render, write, |_| ()).unwrap(), dropped)
    }

    fn read(stream: &mut TcpStream, length: usize) -> String {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_server_that_closes_or_is_away_for_a_while_gets_every_line() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (queue, sink, dropped) = sink(port, Duration::ZERO);
        queue.push("first".to_owned());
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(read(&mut stream, 5), "first");
        // It closes between two lines, as one that is started anew does.
        drop(stream);
        queue.push("second".to_owned());
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(read(&mut stream, 6), "second");
        // And now nobody listens.
        drop((stream, listener));
        queue.push("third".to_owned());
        queue.push("fourth".to_owned());
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(read(&mut stream, 11), "thirdfourth");
        drop(sink);
        assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0, "closed in good order");
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    /// As a balancer does that has no server behind it.
    #[test]
    fn a_server_that_takes_connections_and_closes_them_gets_the_line_later() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Ends with the connection, not with the time.
        let (queue, sink, dropped) = sink(listener.local_addr().unwrap().port(), Duration::from_secs(60));
        queue.push("line".to_owned());
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(read(&mut stream, 4), "line");
        }
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(read(&mut stream, 4), "line");
        stream.shutdown(Shutdown::Write).unwrap(); // the program ends while it still waits for an objection
        drop(sink);
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "counted as lost, because the server closed again");
    }

    #[test]
    fn a_server_that_is_away_at_the_end_does_not_keep_the_program() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (queue, sink, dropped) = sink(port, Duration::ZERO);
        (0..3).for_each(|_| queue.push("lost".to_owned()));
        drop(sink);
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn the_pauses_grow_to_a_minute() {
        let pauses: Vec<u128> = [1, 2, 3, 9, 10, 1_000].iter().map(|failures| pause(*failures).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 51_200, 60_000, 60_000]);
    }
}
