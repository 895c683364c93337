//! Folders, the journal and its key, the port, other instances.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{OUTBOX, Scene, yaml};
use crate::bounded::Bounded;

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
    let passed = scene.command(&["--once"]).output_in_time();
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

/// Whatever is broken, the file is named, it stays as it is, and nothing is changed by what is left of it.
#[test]
fn a_damaged_journal_is_left_as_it_is_and_nothing_is_changed() {
    let damaged = |title: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        let scene = with_journal(title);
        let mut journal = fs::read(scene.folder().join("journal.db")).unwrap();
        damage(&mut journal);
        scene.with("journal.db", journal)
    };
    let page = |journal: &[u8], n: usize| {
        let size = usize::from(u16::from_be_bytes([journal[16], journal[17]]));
        n * size..(n + 1) * size
    };
    damaged("A page of the journal holds something else", &|journal| {
        let page = page(journal, 3);
        journal[page].fill(b'x');
    })
    .doctor_and_once((1, 1))
    .is("journal-damaged");
    damaged("The journal is cut off", &|journal| journal.truncate(journal.len() / 2)).doctor_and_once((1, 1)).is("journal-cut-off");

    let scene = with_journal("Each page in turn");
    let whole = fs::read(scene.folder().join("journal.db")).unwrap();
    let sandbox = rusqlite::Connection::open(scene.folder().join("sandbox.db")).unwrap();
    sandbox.execute("DELETE FROM users_cards", []).unwrap(); // everybody is due
    drop(sandbox);
    let users = fs::read(scene.folder().join("sandbox.db")).unwrap();
    let pages = whole.len() / page(&whole, 0).len();
    assert!(pages > 20, "{pages}");
    for n in 0..pages {
        for byte in [0, 0xa5] {
            let mut journal = whole.clone();
            let mut page = page(&journal, n);
            page.start += if n == 0 { 100 } else { 0 }; // what says that it is SQLite is tested as another kind of file
            journal[page].fill(byte);
            fs::write(scene.folder().join("journal.db"), &journal).unwrap();
            for arguments in [&["--once"][..], &[]] {
                let ended = scene.command(arguments).output_in_time();
                let said = String::from_utf8_lossy(&ended.stderr);
                let told = said.contains("/journal.db is damaged") || said.contains("/journal.db has lost its key");
                assert!(ended.status.code() == Some(1) && told, "page {n}, {arguments:?}: {said}");
            }
            assert!(fs::read(scene.folder().join("journal.db")).unwrap() == journal, "page {n}: it was written to");
            assert!(fs::read(scene.folder().join("sandbox.db")).unwrap() == users, "page {n}: users were changed");
        }
    }
}

/// It opens without complaint, and knows less than it knew.
#[test]
fn an_older_journal_is_not_used_before_somebody_has_seen_that() {
    let visitor = |scene: &Scene, login: &str| {
        let sandbox = rusqlite::Connection::open(scene.folder().join("sandbox.db")).unwrap();
        let added = sandbox.execute("INSERT INTO users (login, ou_id, ou_number) VALUES (?1, 1, 100)", [login]).unwrap();
        assert_eq!(added, 1);
    };
    let again = |scene: &Scene| {
        visitor(scene, "late@example.com");
        let passed = scene.command(&["--once"]).output_in_time();
        assert!(passed.status.success(), "{}", String::from_utf8_lossy(&passed.stderr));
    };
    let scene = with_journal("The journal was put back from a backup");
    let backup = fs::read(scene.folder().join("journal.db")).unwrap();
    again(&scene);
    let users = fs::read(scene.folder().join("sandbox.db")).unwrap();
    let mut scene = scene.with("journal.db", &backup).doctor_and_once((1, 1));
    assert!(
        fs::read(scene.folder().join("sandbox.db")).unwrap() == users && fs::read(scene.folder().join("journal.db")).unwrap() == backup
    );
    // Somebody has seen it.
    fs::remove_file(scene.folder().join("journal.db.lock")).unwrap();
    assert_eq!(scene.run(&["--once"]), 0);
    scene.is("journal-older");

    let scene = with_journal("The journal is empty").with("journal.db", "");
    scene.doctor_and_once((1, 1)).is("journal-emptied");

    let scene = with_journal("The journal's -wal file was removed after a crash");
    let mailed = |scene: &Scene| fs::read_dir(scene.folder().join("outbox")).unwrap().count();
    let before = mailed(&scene);
    visitor(&scene, "first@example.com");
    let mut daemon = scene.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let has_mailed = |count: usize| {
        let until = Instant::now() + Duration::from_secs(60);
        while mailed(&scene) < before + count {
            assert!(Instant::now() < until, "the visitor got no mail");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    has_mailed(1);
    // After its first pass the daemon writes the log back into the file; not so after the next one.
    visitor(&scene, "late@example.com");
    has_mailed(2);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    for file in ["journal.db-wal", "journal.db-shm"] {
        fs::remove_file(scene.folder().join(file)).unwrap();
    }
    let mut scene = scene;
    assert_eq!((scene.run(&["--once"]), scene.run(&[])), (1, 1));
    scene.is("journal-without-log");
}

/// What is mended while nobody is at work is simply used again.
#[test]
fn a_key_that_is_put_back_is_used_again() {
    let scene = with_journal("The key was away");
    let key = fs::read(scene.folder().join("journal.key")).unwrap();
    fs::remove_file(scene.folder().join("journal.key")).unwrap();
    for arguments in [&[][..], &["--once"]] {
        let ended = scene.command(arguments).output_in_time();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(1) && said.contains("has lost its key"), "{arguments:?}: {said}");
        assert!(!scene.folder().join("journal.key").exists(), "no new one is made");
    }
    let scene = scene.with("journal.key", key);
    let passed = scene.command(&["--once"]).output_in_time();
    assert!(passed.status.success(), "{}", String::from_utf8_lossy(&passed.stderr));
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
