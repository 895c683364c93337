//! The configuration and the command line.

use super::{OUTBOX, Scene, yaml};
use crate::bounded::Bounded;

const SANDBOX: &str = "    url: sqlite:sandbox.db\n    profile: sandbox";

/// The right configuration with one thing changed; checked, and met by a pass.
fn changed(title: &str, from: &str, to: &str) -> Scene {
    let right = yaml(SANDBOX, OUTBOX);
    let wrong = right.replacen(from, to, 1);
    assert_ne!(right, wrong, "the change changed nothing");
    refused(Scene::new(title).config(wrong))
}

/// `check-config` says why, with 64; a start says the same.
fn refused(mut scene: Scene) -> Scene {
    assert_eq!(scene.run(&["check-config"]), 64, "{}", scene.told);
    let [checked, started] = ["check-config", "--once"].map(|what| scene.command(&[what]).output_in_time());
    assert_eq!((started.status, started.stderr), (checked.status, checked.stderr));
    scene
}

#[test]
fn a_wrong_configuration_is_told_by_key_and_place() {
    changed("A key that does not exist", "{length: 6, rewrite", "{lenght: 6, rewrite").is("unknown-key");
    changed("A value of another type", "length: 6", "length: six").is("wrong-type");
    changed("A pattern with a parenthesis that nobody closes", "'.+@.+'", "'(.+@.+'").is("bad-pattern");
    changed("A pattern without quotes", "match: {username: '.+@.+', cost_center: [Needs PIN]}", "match:\n      username: [^@]+@[^@]+")
        .is("pattern-without-quotes");
    changed("A template with a variable that does not exist", "{{ pin }}", "{{ pim }}").is("unknown-variable");
    changed("A template that is not there", "template: visitor", "template: visitors").is("unknown-template");
    changed("A PIN of which nobody would learn", "{{ pin }}", "the PIN that you know").is("nobody-is-told");
    changed("A move whose names were never compared", "profile: sandbox", "profile: safeq6").is("unverified-names");
    changed("Two mistakes at once", "length: 6, rewrite: never", "length: 60, rewrite: maybe").is("two-mistakes");
    changed("An address of a product that is not supported", "sqlite:sandbox.db", "sqlserver://sa@db.example.com/SQDB6").is("sql-server");
}

#[test]
fn a_configuration_that_cannot_be_read_is_told() {
    refused(Scene::new("An empty file").config("")).is("empty-file");
    refused(Scene::new("A file of comments").config("# to be written\n")).is("only-comments");
    let utf16: Vec<u8> = std::iter::once(0xfeff).chain("databases: []\n".encode_utf16()).flat_map(u16::to_le_bytes).collect();
    refused(Scene::new("Saved as UTF-16, as Notepad's “Unicode”").config(utf16)).is("utf-16");
    refused(Scene::new("Saved in the code page of old").config(b"mail: {from: Tiskov\xe9 slu\x9eby <print@example.com>}\n"))
        .is("other-encoding");
    refused(Scene::new("No configuration here")).is("no-file");
    let scene = Scene::new("A folder in place of the file");
    std::fs::create_dir(scene.folder().join("config.yaml")).unwrap();
    refused(scene).is("a-folder");
    let scene = Scene::new("A file that only its owner may read").config(yaml(SANDBOX, OUTBOX)).run_by_a_stranger();
    hidden_from_all(&scene.folder().join("config.yaml"));
    refused(scene).is("file-not-readable");
}

/// From the account of the program too.
fn hidden_from_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
}

#[test]
fn a_secret_that_is_not_there_is_told() {
    let with = |title: &str, password: &str| {
        let database = format!(
            "    url: postgres://credkeeper@db.example.com/SQDB6\n    schema_map: {{cost_centers: {{verified: true}}}}\n    password: {password}"
        );
        refused(Scene::new(title).config(yaml(&database, OUTBOX)))
    };
    with("A password file that is not there", "{file: db-password}").is("password-file-missing");
    with("A password from an environment without it", "{env: CREDKEEPER_TEST_DB_PASSWORD}").is("password-variable-missing");
}

#[test]
fn a_wrong_command_line_is_told() {
    for (title, arguments, golden) in [
        ("A command that does not exist", &["docter"][..], "unknown-command"),
        ("An option that does not exist", &["--once", "--dryrun"], "unknown-option"),
        ("An option that needs another", &["--dry-run"], "option-alone"),
        ("A wait without a unit", &["--once", "--user", "anna", "--wait", "30"], "wait-without-unit"),
        ("A report in a form that does not exist", &["--once", "--report", "report.pdf"], "report-form"),
    ] {
        let mut scene = Scene::new(title);
        assert_eq!(scene.run(arguments), 64);
        scene.is(golden);
    }
}
