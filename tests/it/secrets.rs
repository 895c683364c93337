//! `seal`, and secrets of every source in a program at work: they open, and they are shown nowhere.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::bounded::Bounded;
use crate::leaks::base64;
use crate::smtp::SmtpServer;

const CREDKEEPER: &str = env!("CARGO_BIN_EXE_credkeeper");
const SECRET: &str = "S3cret päss%wörd{}";

fn config_in(folder: &Path) -> PathBuf {
    folder.join("config.yaml")
}

/// `seal` with this on its standard input.
fn seal(folder: &Path, input: &[u8]) -> Output {
    let mut child = Command::new(CREDKEEPER)
        .arg("--config")
        .arg(config_in(folder))
        .arg("seal")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input); // it may have ended before
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn sealed(folder: &Path, secret: &str) -> String {
    let output = seal(folder, format!("{secret}\n").as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).trim_end().to_owned()
}

#[test]
fn what_is_sealed_stands_alone_on_the_standard_output_and_its_key_is_private() {
    let folder = tempfile::tempdir().unwrap();
    // A configuration that nobody has finished writing.
    std::fs::write(config_in(folder.path()), "seal_key: {file: seal.key}\ndatabases:\n  - name: [\n").unwrap();
    let output = seal(folder.path(), b"S3cret\r\n");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(regex::Regex::new(r"\Asealed:v1:[A-Za-z0-9_-]+\n\z").unwrap().is_match(&out), "{out:?}");
    let key = folder.path().join("seal.key");
    assert!(err.contains("Made the key file") && err.contains(key.to_str().unwrap()), "{err}");
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.metadata().unwrap().permissions()) & 0o777, 0o600);
    let made = std::fs::read(&key).unwrap();
    let again = seal(folder.path(), b"S3cret");
    assert_ne!(text(&again.stdout), out, "each time with a new nonce");
    assert!(!text(&again.stderr).contains("Made the key"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read(&key).unwrap(), made);
    assert!(!format!("{out}{err}{}", text(&again.stderr)).contains("S3cret"));
}

#[test]
fn what_cannot_be_sealed_is_told_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    for (input, code, told) in [
        (&b""[..], 64, "the secret is empty"),
        (b"\n", 64, "the secret is empty"),
        (b"\xff\xfe", 64, "not UTF-8"),
        (&[b'x'; 70_000], 64, "longer than 64 KiB"),
        (b"code,-3,5,98,44\n", 64, "enter the secret itself"),
        (b"sealed:v1:abc\n", 64, "sealed already"),
    ] {
        let output = seal(folder.path(), input);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{told}");
        assert!(text(&output.stderr).contains(told) && text(&output.stderr).lines().count() == 1, "{}", text(&output.stderr));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no key is made for nothing");
    }
    let key = folder.path().join("credkeeper.key");
    std::fs::write(&key, "no key").unwrap();
    let output = seal(folder.path(), b"S3cret");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(text(&output.stderr).contains("does not hold 64 hexadecimal digits"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "no key", "somebody's file stays");
    std::fs::write(config_in(folder.path()), "seal_key: {env: KEY}\n").unwrap();
    assert_eq!(seal(folder.path(), b"S3cret").status.code(), Some(64));
}

/// Types at a pseudo-terminal: waits for the question, and until the terminal has been told not to show what is typed (which
/// happens right behind it), enters the secret, and prints all that was shown.
#[cfg(unix)]
const TYPIST: &str = r#"
import os, pty, sys, termios, time
pid, terminal = pty.fork()
if pid == 0:
    out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.execv(sys.argv[2], sys.argv[2:])
shown = b""
typed = False
while True:
    try:
        some = os.read(terminal, 1000)
    except OSError:
        break
    if not some:
        break
    shown += some
    if not typed and b"Secret" in shown:
        until = time.monotonic() + 30
        while termios.tcgetattr(terminal)[3] & termios.ECHO and time.monotonic() < until:
            time.sleep(0.001)
        os.write(terminal, os.environb[b"TYPED"] + b"\n")
        typed = True
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[cfg(unix)]
#[test]
fn at_a_terminal_the_secret_is_asked_for_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = Command::new("python3")
        .args(["-c", TYPIST])
        .arg(&out)
        .arg(CREDKEEPER)
        .args(["seal", "--config", config_in(folder.path()).to_str().unwrap()])
        .env("TYPED", SECRET)
        .output_in_time();
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown} {}", text(&output.stderr));
    assert!(shown.contains("Secret (is not shown):") && !shown.contains("S3cret"), "{shown}");
    let token = std::fs::read_to_string(&out).unwrap();
    assert!(token.starts_with("sealed:v1:") && token.lines().count() == 1, "{token}");
    let config = format!(
        "databases:\n  - name: main\n    url: postgres://u@localhost/d\n    password: {token}policies: [{{name: a}}]\nmail: {{transport: none}}\n"
    );
    std::fs::write(config_in(folder.path()), config).unwrap();
    match credkeeper::config::Config::load(&config_in(folder.path())).unwrap().databases.remove(0).target {
        credkeeper::config::DatabaseTarget::Postgres { password: Some(password), .. } => assert_eq!(password.expose(), SECRET),
        other => panic!("{other:?}"),
    }
}

/// A mail server that takes mails only from who knows the secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_every_source_opens_and_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("credentials")).unwrap();
    std::fs::write(folder.join("credentials/mail"), SECRET).unwrap();
    std::fs::write(folder.join("password"), format!("{SECRET}\n")).unwrap();
    let token = sealed(folder, SECRET);
    let mut told: Vec<(String, String)> = Vec::new();
    for (n, (source, right)) in [
        ("{file: password}", true),
        ("{env: MAIL_PASSWORD}", true),
        ("{credential: mail}", true),
        (&token, true),
        (&sealed(folder, &format!("{SECRET}!")), false),
    ]
    .into_iter()
    .enumerate()
    {
        let server = SmtpServer::start_with(&["--auth", &format!("print:{SECRET}"), "--auth-in-the-clear"]);
        let sandbox = credkeeper::sandbox::create(&folder.join(n.to_string()), 40).unwrap();
        let yaml = std::fs::read_to_string(&sandbox.config).unwrap();
        let password = if source.starts_with('{') { source.to_owned() } else { format!("'{source}'") };
        let login = format!("auth: {{method: password, user: print, password: {password}}}");
        let mail = format!("  transport: smtp\n  host: 127.0.0.1\n  port: {}\n  tls: none\n  {login}", server.port);
        let lines = yaml.lines().map(|line| if line.trim_start().starts_with("transport:") { mail.as_str() } else { line });
        let yaml = lines.collect::<Vec<_>>().join("\n");
        let yaml = yaml.replace("level: info", "level: trace\n  file: {path: credkeeper.log}");
        let yaml = format!("seal_key: {{file: ../credkeeper.key}}\n{yaml}");
        let yaml = yaml.replace("{file: password}", "{file: ../password}");
        std::fs::write(&sandbox.config, yaml).unwrap();
        let mut run = |arguments: &[&str]| {
            let output = Command::new(CREDKEEPER)
                .arg("--config")
                .arg(&sandbox.config)
                .args(arguments)
                .env("MAIL_PASSWORD", SECRET)
                .env("CREDENTIALS_DIRECTORY", folder.join("credentials"))
                .stdin(Stdio::null())
                .output_in_time();
            told.push((format!("{source} {arguments:?}"), format!("{}{}", text(&output.stdout), text(&output.stderr))));
            output.status.code()
        };
        assert_eq!(run(&["check-config"]), Some(0), "{:?}", told.last());
        assert_eq!(run(&["doctor"]), Some(if right { 0 } else { 1 }), "{:?}", told.last());
        let report = folder.join(format!("{n}.json"));
        let metrics = folder.join(format!("{n}.prom"));
        run(&["--once", "--report", report.to_str().unwrap(), "--metrics-file", metrics.to_str().unwrap()]);
        assert_eq!(!server.mails().is_empty(), right, "{source}: {:?}", told.last());
        for file in [report, metrics, sandbox.config.with_file_name("credkeeper.log")] {
            told.push((file.display().to_string(), std::fs::read_to_string(&file).unwrap()));
        }
        let config = config_debug(&sandbox.config, &yaml_without_env(&sandbox.config));
        told.push((format!("{source} as Debug"), config));
    }

    // A database that is not there, with the secret in every form of an address; and a mistake beside it.
    for (n, address) in [
        format!("url: 'postgres://u:{token}@127.0.0.1:1/d'"),
        format!("connection_string: 'host=127.0.0.1 port=1 dbname=d user=u password={token}'"),
        format!("url: '{}'", sealed(folder, "postgres://u:S3cret@127.0.0.1:1/d")),
        format!("url: 'postgres://u@127.0.0.1:1/d'\n    password: '{token}'"),
        format!("url: 'postgres://u:{token}@127.0.0.1:one/d'"),
        format!("url: 'postgres://u@127.0.0.1:1/d'\n    password: ['{token}']"),
    ]
    .into_iter()
    .enumerate()
    {
        let config = config_in(folder);
        let wrong = n > 3;
        let yaml = format!(
            "databases:\n  - name: main\n    {address}\n    tls: {{mode: disable}}\n    connect_timeout: 1s\npolicies: [{{name: a}}]\nmail: {{transport: none}}\njournal: {{path: x.db}}\nlog: {{level: trace}}\n"
        );
        let yaml = yaml
            .replace("    tls: {mode: disable}\n", if address.contains("connection_string") { "" } else { "    tls: {mode: disable}\n" });
        std::fs::write(&config, yaml).unwrap();
        for (command, code) in [("check-config", if wrong { 64 } else { 0 }), ("doctor", if wrong { 64 } else { 1 })] {
            let output = Command::new(CREDKEEPER).arg("--config").arg(&config).arg(command).stdin(Stdio::null()).output_in_time();
            told.push((format!("{address} {command}"), format!("{}{}", text(&output.stdout), text(&output.stderr))));
            assert_eq!(output.status.code(), Some(code), "{:?}", told.last());
        }
    }

    let plain = base64(format!("\0print\0{SECRET}").as_bytes());
    let needles = ["S3cret", "päss", "wörd", "p%C3%A4ss", &plain, base64(SECRET.as_bytes()).trim_end_matches('=')].map(str::to_owned);
    assert!(told.len() > 35);
    for (name, text) in &told {
        assert!(!text.is_empty(), "{name} is empty");
        for needle in &needles {
            assert!(!text.contains(needle), "{name} shows {needle}:\n{text}");
        }
    }
}

/// The configuration's `Debug`, read in this process: what comes from the environment is taken from a file instead.
fn config_debug(path: &Path, yaml: &str) -> String {
    let beside = path.with_file_name("debug.yaml");
    std::fs::write(&beside, yaml).unwrap();
    format!("{:?}", credkeeper::config::Config::load(&beside).unwrap_or_else(|problems| panic!("{problems}")))
}

fn yaml_without_env(path: &Path) -> String {
    let yaml = std::fs::read_to_string(path).unwrap();
    yaml.replace("{env: MAIL_PASSWORD}", "{file: ../password}").replace("{credential: mail}", "{file: ../password}")
}
