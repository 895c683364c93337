//! A real SMTP server (aiosmtpd) for the tests; `tests/support/smtp_server.py` says what can be asked of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::Value;

use crate::pg::free_port;

/// A running server. It ends when this is dropped, and also when the test's process dies.
pub struct SmtpServer {
    pub port: u16,
    child: Child,
    /// Its end is the server's end.
    stdin: Option<ChildStdin>,
    directory: tempfile::TempDir,
}

/// A message that the server accepted.
#[derive(Clone, Debug)]
pub struct Received {
    /// When, in seconds of the epoch.
    pub at: f64,
    /// Counts the server's connections from 1.
    pub connection: u64,
    pub from: String,
    pub to: Vec<String>,
    pub data: String,
    /// As Python's mail parser understands the message; empty unless the server was started with `--parse`.
    pub headers: Vec<(String, String)>,
    pub subject: String,
    pub text: String,
    pub html: Option<String>,
    /// Of the message and each of its parts.
    pub types: Vec<String>,
}

impl SmtpServer {
    pub fn start() -> SmtpServer {
        SmtpServer::start_with(&[])
    }

    /// With options of the script.
    ///
    /// # Panics
    /// Loudly, if the server cannot run: a test without it would show nothing.
    pub fn start_with(options: &[&str]) -> SmtpServer {
        SmtpServer::start_in(tempfile::tempdir().expect("a temporary directory"), options)
    }

    /// Ends the server, as a crash does, and starts another on the same port.
    pub fn restart(self, options: &[&str]) -> SmtpServer {
        let stopped = self.stop();
        stopped.start(options)
    }

    /// Ends the server; its port answers no more, its messages stay.
    pub fn stop(mut self) -> Stopped {
        self.end();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().expect("a temporary directory"));
        Stopped { port: self.port, directory }
    }

    /// All messages accepted so far, in order. Of a line that is being written only the end is missing: it comes next time.
    pub fn mails(&self) -> Vec<Received> {
        let text = std::fs::read_to_string(self.directory.path().join("mails.jsonl")).expect("the server's record");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| received(&serde_json::from_str(line).expect("a line of the server's record"))).collect()
    }

    /// Everything that clients said, decrypted, whatever became of it.
    pub fn heard(&self) -> String {
        let bytes = std::fs::read(self.directory.path().join("heard.txt")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn start_in(directory: tempfile::TempDir, options: &[&str]) -> SmtpServer {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/smtp_server.py");
        let mut child = Command::new(python())
            .arg(script)
            .arg(directory.path())
            // A port of its own that no outgoing connection can take while the server is down; what `options` say comes later.
            .args(["--port", &free_port().to_string()])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is missing: install it with `apt-get install python3 python3-aiosmtpd`");
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("the server's first line");
        let Some(port) = line.trim().strip_prefix("listening ").and_then(|port| port.parse().ok()) else {
            let status = child.wait();
            panic!("the SMTP test server did not start ({status:?}); it needs `apt-get install python3-aiosmtpd`");
        };
        SmtpServer { port, child, stdin, directory }
    }

    fn end(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A server that was stopped.
pub struct Stopped {
    pub port: u16,
    directory: tempfile::TempDir,
}

impl Stopped {
    /// Starts it again on its port, with its messages.
    pub fn start(self, options: &[&str]) -> SmtpServer {
        let port = self.port.to_string();
        SmtpServer::start_in(self.directory, &[options, &["--port", &port]].concat())
    }
}

/// Debian's interpreter where there is one: python3-aiosmtpd belongs to it, not to a newer one earlier on the path.
pub fn python() -> PathBuf {
    let debian = PathBuf::from("/usr/bin/python3");
    if debian.exists() { debian } else { PathBuf::from("python3") }
}

fn received(line: &Value) -> Received {
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let list = |key: &str| line[key].as_array().cloned().unwrap_or_default();
    let pair = |pair: &Value| {
        let part = |n: usize| pair[n].as_str().unwrap_or_default().to_owned();
        (part(0), part(1))
    };
    Received {
        at: line["at"].as_f64().unwrap_or_default(),
        connection: line["connection"].as_u64().unwrap_or_default(),
        from: text("from"),
        to: list("to").iter().filter_map(|to| to.as_str().map(str::to_owned)).collect(),
        data: text("data"),
        headers: list("headers").iter().map(pair).collect(),
        subject: text("subject"),
        text: text("text"),
        html: line["html"].as_str().map(str::to_owned),
        types: list("types").iter().filter_map(|kind| kind.as_str().map(str::to_owned)).collect(),
    }
}
