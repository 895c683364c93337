//! Folders, the journal and its key, the port, other instances.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{OUTBOX, Scene, yaml};

pub const SANDBOX: &str = "    url: sqlite:sandbox.db\n    profile: sandbox";

/// A sandbox with some users, and a configuration that is right but for what `change` does to it.
pub fn sandbox(title: &str, change: impl FnOnce(String) -> String) -> Scene {
    let scene = Scene::new(title);
    credkeeper::sandbox::create(&scene.folder().join("box"), 40).unwrap();
    fs::rename(scene.folder().join("box/sandbox.db"), scene.folder().join("sandbox.db")).unwrap();
    fs::remove_dir_all(scene.folder().join("box")).unwrap();
    scene.config(change(yaml(SANDBOX, OUTBOX)))
}

fn as_is(yaml: String) -> String {
    yaml
}

/// One after the other in place.
fn replaced<'a>(changes: &'a [(&'a str, &'a str)]) -> impl FnOnce(String) -> String + 'a {
    move |yaml| {
        changes.iter().fold(yaml, |yaml, (from, to)| {
            assert!(yaml.contains(from), "{from}");
            yaml.replace(from, to)
        })
    }
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    let journal = [("path: journal.db", "path: locked/journal.db"), ("file: journal.key", "file: locked/journal.key")];
    sandbox("The journal's folder may not be written", replaced(&journal))
        .locked_folder("locked")
        .run_by_a_stranger()
        .doctor_and_once((1, 1))
        .is("journal-folder");
    let journal = [("path: journal.db", "path: nowhere/journal.db")];
    sandbox("The journal's folder does not exist", replaced(&journal)).doctor_and_once((1, 1)).is("journal-folder-missing");
    sandbox("The mails' folder may not be written", replaced(&[("directory: outbox", "directory: locked")]))
        .locked_folder("locked")
        .run_by_a_stranger()
        .doctor_and_once((1, 4))
        .is("mail-folder");
    sandbox("The mails' folder cannot be made", replaced(&[("directory: outbox", "directory: locked/outbox")]))
        .locked_folder("locked")
        .run_by_a_stranger()
        .doctor_and_once((1, 4))
        .is("mail-folder-cannot-be-made");
    let mut scene = sandbox("The report's folder may not be written", as_is).locked_folder("locked").run_by_a_stranger();
    assert_eq!(scene.run(&["--once", "--report", "locked/report.json"]), 1);
    scene.is("report-folder");
    let mut scene = sandbox("The metrics' folder may not be written", as_is).locked_folder("locked").run_by_a_stranger();
    assert_eq!(scene.run(&["plan", "--metrics-file", "locked/credkeeper.prom"]), 1);
    scene.is("metrics-folder");
    let mut scene = sandbox("The sandbox's database may not be written", as_is);
    scene = scene.run_by_a_stranger();
    let mut read_only = fs::metadata(scene.folder().join("sandbox.db")).unwrap().permissions();
    read_only.set_readonly(true);
    fs::set_permissions(scene.folder().join("sandbox.db"), read_only).unwrap();
    scene.doctor_and_once((1, 3)).is("sandbox-read-only");
}

/// A pass has been there, so that there is a journal and its key.
fn with_journal(title: &str) -> Scene {
    let scene = sandbox(title, as_is);
    let passed = scene.command(&["--once"]).output().unwrap();
    assert!(passed.status.success(), "{}", String::from_utf8_lossy(&passed.stderr));
    scene
}

#[test]
fn a_journal_that_cannot_be_used_says_why() {
    let scene = with_journal("The journal's key is gone");
    fs::remove_file(scene.folder().join("journal.key")).unwrap();
    scene.doctor_and_once((1, 1)).is("journal-without-key");
    with_journal("The journal's key is another one")
        .with("journal.key", "0123456789abcdef".repeat(4))
        .doctor_and_once((1, 1))
        .is("journal-wrong-key");
    with_journal("The journal's key is no key").with("journal.key", "secret\n").doctor_and_once((1, 1)).is("journal-broken-key");
    let scene = with_journal("The journal is of another database");
    fs::rename(scene.folder().join("sandbox.db"), scene.folder().join("other.db")).unwrap();
    scene.config(yaml(&SANDBOX.replace("sandbox.db", "other.db"), OUTBOX)).doctor_and_once((1, 1)).is("journal-of-another-database");
    sandbox("The journal is another kind of file", as_is)
        .with("journal.db", "A text.\n".repeat(200))
        .doctor_and_once((1, 1))
        .is("not-a-journal");
    let scene = sandbox("The journal is another program's database", as_is);
    rusqlite::Connection::open(scene.folder().join("journal.db")).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    scene.doctor_and_once((1, 1)).is("journal-of-another-program");
}

#[test]
fn what_is_not_there_is_told() {
    Scene::new("The sandbox's database is not there").config(yaml(SANDBOX, OUTBOX)).doctor_and_once((1, 1)).is("sandbox-missing");
    let mut scene = sandbox("A user who is not there", as_is);
    for arguments in
        [&["--once", "--user", "nobody@example.com"][..], &["plan", "--user", "nobody@example.com"], &["explain", "nobody@example.com"]]
    {
        assert_eq!(scene.run(arguments), 4);
    }
    scene.is("user-not-found");
    let mut scene = sandbox("No pass has run yet", as_is);
    assert_eq!((scene.run(&["status"]), scene.run(&["journal", "list"])), (0, 0));
    scene.is("no-journal-yet");
}

/// The daemon of another instance, at work until this is dropped.
struct Daemon(Child);

impl Daemon {
    fn start(scene: &Scene) -> Daemon {
        let mut child = scene.command(&[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = child.stderr.take().unwrap();
        let (mut text, mut buffer, until) = (String::new(), [0; 4096], Instant::now() + Duration::from_secs(60));
        while !text.contains("Leading on database") {
            let n = said.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
            assert!(n > 0 && Instant::now() < until, "{text}");
        }
        // Whatever else it says is taken from it, or it would block.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Daemon(child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_instance_gives_way() {
    let mut scene = sandbox("Another instance is at work here", replaced(&[("level: warn", "level: info")]));
    let daemon = Daemon::start(&scene);
    scene = scene.config(yaml(SANDBOX, OUTBOX));
    assert_eq!(scene.run(&["--once"]), 75);
    scene.is("another-instance");
    drop(daemon);

    let mut scene =
        sandbox("Another instance, with a journal of its own, is at work on this database", replaced(&[("level: warn", "level: info")]));
    let _daemon = Daemon::start(&scene);
    scene =
        scene.config(replaced(&[("path: journal.db", "path: mine.db"), ("file: journal.key", "file: mine.key")])(yaml(SANDBOX, OUTBOX)));
    assert_eq!(scene.run(&["--once"]), 75);
    scene.is("another-leader");
}

#[test]
fn a_port_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("http: {{listen: '{}'}}", taken.local_addr().unwrap());
    let mut scene = sandbox("The port of http.listen is in use", |yaml| yaml.replace("http: null", &listen));
    assert_eq!(scene.run(&[]), 1);
    scene.is("port-in-use");
}
