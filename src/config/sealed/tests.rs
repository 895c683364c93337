use std::path::Path;

use super::*;
use crate::config::{Config, ConfigProblems, DatabaseTarget, parse};
use crate::seal::make_key;

/// Every character that means something in a url, a connection string or YAML.
const AWKWARD: &str = "p@ss/w:rd?#%&=+ '\"\\{};[]x}é ,$";

struct Folder {
    dir: tempfile::TempDir,
    key: Key,
}

impl Folder {
    fn new() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let key = make_key(&dir.path().join(DEFAULT_KEY)).unwrap();
        Folder { dir, key }
    }

    fn seal(&self, secret: &str) -> String {
        seal(&self.key, &Secret::new(secret.to_owned())).unwrap()
    }

    fn read(&self, text: &str) -> Result<Config, ConfigProblems> {
        parse(text, &self.dir.path().join("config.yaml"), |_| None)
    }

    fn with_database(&self, keys: &str) -> Result<Config, ConfigProblems> {
        self.read(&format!(
            "databases:\n  - name: main\n    {}\npolicies: [{{name: a, pin: {{length: 6, rewrite: never}}, notify: {{unannounced: true}}}}]\nmail: {{transport: none}}\n",
            keys.replace('\n', "\n    ")
        ))
    }
}

fn server(config: &Config) -> (String, String, String) {
    match &config.databases[0].target {
        DatabaseTarget::Postgres { hosts, user, password: Some(password), .. } => {
            (hosts[0].0.clone(), user.clone(), password.expose().to_owned())
        }
        other => panic!("{other:?}"),
    }
}

fn told(read: Result<Config, ConfigProblems>) -> String {
    match read {
        Ok(config) => format!("accepted {:?}", config.warnings),
        Err(problems) => problems.problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

#[test]
fn a_sealed_value_opens_wherever_a_secret_may_stand() {
    let folder = Folder::new();
    let (token, url) = (folder.seal(AWKWARD), folder.seal("postgres://u:p%40ss@localhost/d"));
    let string = folder.seal("host=localhost dbname=d user=u password='two words'");
    for (keys, password) in [
        (format!("url: postgres://u@localhost/d\npassword: {token}"), AWKWARD),
        (format!("url: postgres://u@localhost/d\npassword: \"{token}\""), AWKWARD),
        (format!("url: postgres://u:{token}@localhost/d"), AWKWARD),
        (format!("connection_string: host=localhost dbname=d user=u password={token}"), AWKWARD),
        (format!("connection_string: host=localhost password='{token}' dbname=d user=u"), AWKWARD),
        (format!("url: {url}"), "p@ss"),
        (format!("connection_string: {string}"), "two words"),
    ] {
        let config = folder.with_database(&keys).unwrap_or_else(|problems| panic!("{keys}: {problems}"));
        assert_eq!(server(&config), ("localhost".to_owned(), "u".to_owned(), password.to_owned()), "{keys}");
        assert!(!config.warnings.iter().any(|warning| warning.contains("plain text")), "{:?}", config.warnings);
        assert!(!format!("{config:?}").contains(password), "Debug shows a secret");
    }
    let two = format!("url: postgres://{}:{token}@localhost/d", folder.seal("o'brien"));
    assert_eq!(server(&folder.with_database(&two).unwrap()).1, "o'brien");
}

#[test]
fn in_the_form_of_odbc_it_stands_in_braces() {
    for (text, whole) in [("DRIVER={x};PWD=#;UID=u", "DRIVER={x};PWD={a;b}}c};UID=u"), ("DRIVER={x};PWD={#}", "DRIVER={x};PWD={a;b}}c}")] {
        let (before, behind) = text.split_once('#').unwrap();
        let quoted = Quoting::of(text, "databases[0].connection_string").apply("a;b}c", before.ends_with('{'));
        assert_eq!(format!("{before}{}{behind}", *quoted), whole);
    }
}

#[test]
fn what_does_not_open_is_told_with_the_reason_and_nothing_else() {
    let folder = Folder::new();
    let token = folder.seal("S3cret");
    let foreign = Folder::new().seal("S3cret");
    let damaged = |at: usize| {
        let mut chars: Vec<char> = token.chars().collect();
        chars[at] = if chars[at] == 'A' { 'B' } else { 'A' };
        chars.into_iter().collect::<String>()
    };
    let with = |token: &str| told(folder.with_database(&format!("url: postgres://u@localhost/d\npassword: '{token}'")));
    for (token, reason) in [
        (foreign, "was sealed with another key than the one in"),
        (damaged(token.len() / 2), "is damaged"),
        (damaged(token.len() - 3), "is damaged"),
        (token[..token.len() - 1].to_owned(), "is damaged"),
        (VERSION.to_owned(), "is damaged"),
        (token.replace(":v1:", ":v2:"), "by a newer version"),
        (format!("{token}{token}x"), "is damaged"),
    ] {
        let told = with(&token);
        assert!(told.contains(reason) && told.contains("4:15: databases[0].password:"), "{token}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(!told.contains(&token[10..]) || token == VERSION, "not even the sealed form is repeated: {told}");
    }
    std::fs::write(folder.dir.path().join(DEFAULT_KEY), "no key").unwrap();
    assert!(with(&token).contains("does not hold 64 hexadecimal digits"), "{}", with(&token));
    std::fs::remove_file(folder.dir.path().join(DEFAULT_KEY)).unwrap();
    assert!(with(&token).contains("credkeeper.key does not exist") && with(&token).lines().count() == 1, "{}", with(&token));
    assert!(with("open").starts_with("accepted"), "without a sealed value no key is needed");
}

#[test]
fn the_key_is_where_the_configuration_says() {
    let folder = Folder::new();
    let token = folder.seal("S3cret");
    std::fs::create_dir(folder.dir.path().join("keys")).unwrap();
    std::fs::rename(folder.dir.path().join(DEFAULT_KEY), folder.dir.path().join("keys/other.key")).unwrap();
    let read = |seal_key: &str| {
        let text = "databases: [{name: main, url: 'postgres://u@localhost/d', password: 'TOKEN'}]\npolicies: [{name: a, pin: {length: 6, rewrite: never}, notify: {unannounced: true}}]\nmail: {transport: none}\n";
        told(folder.read(&format!("{}{seal_key}", text.replace("TOKEN", &token))))
    };
    assert!(read("seal_key: {file: keys/other.key}").starts_with("accepted"), "{}", read("seal_key: {file: keys/other.key}"));
    assert_eq!(
        read("seal_key: keys/other.key"),
        "4:11: seal_key: expected {file: PATH}: the key never stands in the configuration itself\n"
    );
    assert!(read("").contains("credkeeper.key does not exist"));
}

#[test]
fn the_keys_place_is_known_before_the_configuration_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let said = |text: &str| {
        std::fs::write(&path, text).unwrap();
        crate::config::seal_key(&path).map(|key| key.strip_prefix(dir.path()).unwrap().to_owned()).map_err(|problems| problems.to_string())
    };
    let key = |path: &str| Ok(Path::new(path).to_owned());
    assert_eq!(crate::config::seal_key(&path).unwrap(), dir.path().join(DEFAULT_KEY), "there is no configuration yet");
    assert_eq!(said(""), key(DEFAULT_KEY));
    assert_eq!(said("databases:\n"), key(DEFAULT_KEY));
    assert_eq!(said("seal_key: {file: k/x.key}\ndatabases: [\n"), key("k/x.key"));
    assert_eq!(said("unknown: 1\nseal_key: {file: x.key}\n"), key("x.key"));
    assert_eq!(said("databases: [\n\t"), key(DEFAULT_KEY));
    assert!(said("seal_key: x.key").unwrap_err().contains("seal_key: expected {file: PATH}"));
}

/// Somebody may seal what is no secret to us, or a whole address: no problem and no warning shows it all the same.
#[test]
fn no_message_shows_what_was_sealed_whatever_it_stands_for() {
    let folder = Folder::new();
    let samples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/config")).unwrap().map(|entry| entry.unwrap().path());
    let samples = samples.filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    let samples: Vec<String> = samples.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let (mut shown, mut tried) = (Vec::new(), 0);
    let (address, awkward) = (folder.seal("/hush@hush.example"), folder.seal("(hush\u{1b}\nhush{{"));
    for sample in &samples {
        let Ok(tree) = yaml::parse(sample) else { continue };
        for (line, column) in scalars(&tree) {
            let mut lines: Vec<String> = sample.lines().map(str::to_owned).collect();
            let token = if lines[line - 1].contains('@') { &address } else { &awkward };
            let text: Vec<char> = lines[line - 1].chars().collect();
            let end = value_end(&text, column - 1);
            lines[line - 1] = text[..column - 1].iter().collect::<String>() + token + &text[end..].iter().collect::<String>();
            tried += 1;
            let said = match folder.read(&lines.join("\n")) {
                Ok(config) => config.warnings.join("\n"),
                Err(problems) => problems.to_string(),
            };
            let told = said.lines().filter(|told| told.contains("hush") || told.contains(token));
            shown.extend(told.map(|told| format!("{}: {told}", lines[line - 1])));
        }
    }
    assert!(tried > 600, "{tried}");
    for address in [
        "postgres://hushuser:hushpw@hushhost/hushdb?hush_key=hushval&sslmode=hush",
        "postgres://hushuser@hushhost,hush2:x/hushdb",
        "postgres://%68ushuser:%68ushpw@%68ushhost/%68ushdb?%68ush=1",
        "postgres://%68ushuser:%68ushpw@%68ushhost/%68ushdb?sslmode=require",
        "sqlite:hush/hush\u{7}.db",
        "hush://hush",
    ] {
        for key in ["url", "connection_string"] {
            shown.push(told(folder.with_database(&format!("{key}: {}", folder.seal(address)))));
        }
    }
    for string in [
        "host=hushhost dbname=hush user=hush password=hush hush=1",
        "host=hush,hush2 dbname=hush user=hush sslmode=disable hush",
        "hush hush",
    ] {
        shown.push(told(folder.with_database(&format!("connection_string: {}", folder.seal(string)))));
    }
    // A part cannot break out of its place either.
    let part = folder.seal("x hush_key=1 host=hush");
    shown.push(told(folder.with_database(&format!("connection_string: host=h dbname=d user=u password={part}"))));
    shown.push(told(folder.with_database(&format!("url: postgres://u:{part}@h/d?x=1"))));
    shown.retain(|told| told.contains("hush"));
    shown.dedup();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}

/// The places of all values that are one scalar in one line.
fn scalars(node: &Node) -> Vec<(usize, usize)> {
    match &node.data {
        Data::Map(entries) => entries.iter().flat_map(|entry| scalars(&entry.value)).collect(),
        Data::List(items) => items.iter().flat_map(scalars).collect(),
        Data::Scalar { .. } => node.at.into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Where the scalar ends that begins at `start`.
fn value_end(text: &[char], start: usize) -> usize {
    let quote = text[start];
    if matches!(quote, '\'' | '"') {
        return start + 2 + text[start + 1..].iter().position(|c| *c == quote).unwrap();
    }
    start + text[start..].iter().position(|c| matches!(c, ',' | '}' | ']' | '#')).unwrap_or(text.len() - start)
}
