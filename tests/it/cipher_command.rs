//! Card assignment codes encrypted by a program of the administrator's: real processes, good and bad ones.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use credkeeper::domain::cipher::{Algorithm, CipherCommand, IvKind};
use credkeeper::domain::{Cipher, Code, CodeCipher, StoredValue};
use credkeeper::mint::cipher::{EncryptError, encrypt, encrypt_all, is_deterministic};

use crate::bounded::until;

fn command(program: &str, arguments: &[&str]) -> CodeCipher {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    CodeCipher::Command(CipherCommand { program: PathBuf::from(program), arguments, timeout: Duration::from_secs(20) })
}

/// `folder` is `$0` in the script.
fn shell(script: &str, folder: &Path) -> CodeCipher {
    command("/bin/sh", &["-c", script, folder.to_str().unwrap()])
}

fn within(cipher: CodeCipher, limit: Duration) -> CodeCipher {
    match cipher {
        CodeCipher::Command(command) => CodeCipher::Command(CipherCommand { timeout: limit, ..command }),
        built_in => built_in,
    }
}

fn codes(count: u32) -> Vec<Code> {
    (0..count).map(|n| Code::new(format!("{:06}", 4711 * n))).collect()
}

fn code() -> Code {
    Code::new("004711".to_owned())
}

async fn told(cipher: &CodeCipher) -> String {
    encrypt(cipher, &code()).await.unwrap_err().to_string()
}

fn openssl() -> CodeCipher {
    let (key, iv) = ("07".repeat(32), "09".repeat(16));
    let find = |folder: &&str| Path::new(folder).join("openssl").exists();
    let folder = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].into_iter().find(find).expect("openssl; ./test installs it");
    command(&format!("{folder}/openssl"), &["enc", "-aes-256-cbc", "-K", &key, "-iv", &iv, "-a", "-A"])
}

fn lives(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

#[tokio::test]
async fn a_batch_goes_through_openssl_and_comes_back_in_order() {
    let ours = Cipher::new(Algorithm::Aes256Cbc, &[7; 32], Some(IvKind::Fixed(&[9; 16]))).unwrap();
    let codes = codes(40);
    let made = encrypt_all(&openssl(), &codes).await;
    for (code, made) in codes.iter().zip(made) {
        assert_eq!(made.unwrap(), ours.encrypt(code, [0; 16]));
    }
    let built_in = encrypt_all(&CodeCipher::BuiltIn(ours.clone()), &codes).await;
    assert!(codes.iter().zip(built_in).all(|(code, made)| ours.decrypt(&made.unwrap()).as_ref() == Some(code)));
}

#[tokio::test]
async fn whether_a_code_has_one_form_is_found_by_trying() {
    let folder = tempfile::tempdir().unwrap();
    assert!(is_deterministic(&openssl()).await.unwrap());
    assert!(!is_deterministic(&shell("cat >/dev/null; echo $$", folder.path())).await.unwrap());
    let prefix = Cipher::new(Algorithm::Aes256Cbc, &[7; 32], Some(IvKind::Prefix)).unwrap();
    assert!(!is_deterministic(&CodeCipher::BuiltIn(prefix)).await.unwrap());
}

#[tokio::test]
async fn a_failure_names_the_program_and_how_it_ended_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let script = "read code; echo \"out $code\"; echo \"err $code\" >&2; exit 3";
    assert_eq!(told(&shell(script, folder.path())).await, "the cipher's command /bin/sh ended with exit code 3");
    assert_eq!(told(&shell("kill -9 $$", folder.path())).await, "the cipher's command /bin/sh ended with signal 9");
    let absent = told(&command("/nowhere/cipher", &[])).await;
    assert!(absent.starts_with("the cipher's command /nowhere/cipher cannot be started: No such file"), "{absent}");
    for (script, fault) in [
        ("cat >/dev/null", "printed nothing"),
        ("cat >/dev/null; echo", "printed nothing"),
        ("cat", "printed the code as it was"),
        ("cat >/dev/null; echo A; echo B", "is not one line"),
        ("cat >/dev/null; echo Error: no key", "is not one line"),
        ("cat >/dev/null; printf '\\377'", "is not one line"),
        ("yes", "printed more than 4 KiB"),
    ] {
        let said = told(&shell(script, folder.path())).await;
        assert!(said.starts_with("the cipher's command /bin/sh printed") && said.contains(fault), "{script}: {said}");
        assert!(!said.contains("004711") && !said.contains("no key"), "{said}");
    }
}

#[tokio::test]
async fn who_takes_too_long_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let slow = within(shell("sleep 300 & echo $! >$0/pid; wait", folder.path()), Duration::from_millis(500));
    let begun = Instant::now();
    assert_eq!(told(&slow).await, "the cipher's command /bin/sh did not end within 500ms and was killed");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    until("it is ended", Duration::from_secs(20), async || !lives(&pid)).await;
}

#[tokio::test]
async fn nothing_runs_on_once_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let slow = shell("echo $$ >$0/pid; exec sleep 300", folder.path());
    let file = folder.path().join("pid");
    let waiting = tokio::spawn(async move { encrypt(&slow, &code()).await.map(drop) });
    until("it says who it is", Duration::from_secs(20), async || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))).await;
    waiting.abort();
    let pid = fs::read_to_string(&file).unwrap();
    until("it is ended", Duration::from_secs(20), async || !lives(&pid)).await;
}

#[tokio::test]
async fn nothing_of_our_environment_reaches_it_but_what_a_program_needs() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "cargo sets it");
    let folder = tempfile::tempdir().unwrap();
    let script = "cat >/dev/null; echo ${CARGO_MANIFEST_DIR-absent},${PATH:+present}";
    let made = encrypt(&shell(script, folder.path()), &code()).await.unwrap();
    assert_eq!(made, StoredValue::new("absent,present".to_owned()));
}

#[tokio::test]
async fn a_program_that_prints_the_same_for_all_gives_no_code_to_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let made = encrypt_all(&shell("cat >/dev/null; echo AAAA", folder.path()), &codes(5)).await;
    assert_eq!(made.len(), 5);
    assert!(made.iter().all(|made| made.as_ref().unwrap_err().to_string().contains("the same for two different codes")));
    let twice = [code(), code()];
    let made = encrypt_all(&openssl(), &twice).await;
    assert!(made.iter().all(Result::is_ok), "the same code twice is something else");
}

#[tokio::test]
async fn at_most_as_many_run_at_once_as_there_are_cores_and_a_broken_one_is_given_up() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let folder = tempfile::tempdir().unwrap();
    let script = "mkdir $0/run.$$; ls -d $0/run.* | wc -l >$0/seen.$$; sleep 0.05; rmdir $0/run.$$; printf x; cat";
    let made = encrypt_all(&shell(script, folder.path()), &codes(8 * cores as u32)).await;
    assert!(made.iter().all(Result::is_ok));
    let files = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let seen: Vec<usize> = files().map(|file| fs::read_to_string(file).unwrap().trim().parse().unwrap()).collect();
    assert_eq!(seen.len(), 8 * cores);
    assert!(seen.iter().all(|at_once| *at_once <= cores), "{seen:?}");

    let broken = tempfile::tempdir().unwrap();
    let made = encrypt_all(&shell("touch $0/$$; exit 1", broken.path()), &codes(200)).await;
    let tried = fs::read_dir(broken.path()).unwrap().count();
    assert!((3..3 + cores).contains(&tried), "{tried}");
    let given_up = made.iter().filter(|made| matches!(made, Err(EncryptError::GivenUp { .. }))).count();
    assert_eq!((made.len(), given_up), (200, 200 - tried));
}
