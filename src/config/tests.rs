use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::schema_map::{CostCentersMap, ExpiresKind, LinkMap, Member, RolesMap, Test, UsersMap, Value, Zone};
use super::*;
use crate::domain::template::Variable;
use crate::domain::{CostCenterRef, Share};
use crate::policy::{PinRewrite, Placement, Recipient, Tripwires};

/// A configuration that is right, for tests that change one thing of it.
const GOOD: &str = "
databases: [{name: main, url: sqlite:x.db, profile: sandbox}]
policies: [{name: a, pin: {length: 6, rewrite: never}, notify: {template: t}}]
mail: {transport: directory, from: print@example.com}
templates: {t: {subject: s, parts: ['{{ pin }}']}}
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    std::path::absolute("conf").unwrap()
}

/// Without an environment.
fn read(text: &str) -> Result<Config, ConfigProblems> {
    parse(text, &folder().join("config.yaml"), |_| None)
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Key and message of each problem.
fn problems(text: &str) -> Vec<String> {
    let problems = read(text).err().map_or_else(Vec::new, |problems| problems.problems);
    problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
}

/// `UPDATE_GOLDENS=1` writes them anew.
#[test]
fn each_sample_says_what_its_golden_says() {
    let folder = root().join("tests/data/config");
    let update = std::env::var_os("UPDATE_GOLDENS").is_some();
    let files = |extension: &str| -> BTreeSet<PathBuf> {
        let all = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.extension().is_some_and(|found| found == extension)).map(|path| path.with_extension("")).collect()
    };
    let samples = files("yaml");
    assert!(!samples.is_empty());
    let mut wrong = Vec::new();
    for sample in &samples {
        let text = std::fs::read_to_string(sample.with_extension("yaml")).unwrap();
        let name = sample.with_extension("yaml").file_name().map(PathBuf::from).unwrap();
        let said = match read(&text) {
            Ok(config) => {
                let lines = config.warnings.iter().map(|warning| format!("warning: {warning}\n"));
                format!("accepted\n{}", lines.collect::<String>())
            }
            Err(problems) => format!("{}\n", ConfigProblems { path: name, ..problems }),
        };
        let said = said.replace(&format!("{}{}", self::folder().display(), std::path::MAIN_SEPARATOR), "conf/");
        let golden = sample.with_extension("txt");
        if update {
            std::fs::write(&golden, &said).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default().replace("\r\n", "\n") != said {
            wrong.push(format!("{} now says:\n{said}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(files("txt"), samples, "a golden without its sample, or the other way round");
}

#[test]
fn the_shipped_configuration_loads() {
    let config = Config::load(&root().join("config.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.path.is_absolute());
    assert!(matches!(&config.databases[0].target, DatabaseTarget::Sqlite { path } if *path == root().join("sandbox.db")));
    assert_eq!(config.databases[0].policies.iter().map(|policy| policy.name.0.as_str()).collect::<Vec<_>>(), ["visitors", "staff"]);
    assert!(matches!(&config.mail.transport, TransportConfig::Directory(path) if *path == root().join("outbox")));
    assert_eq!(config.warnings.len(), 0, "{:?}", config.warnings);
}

/// The two programs that measure the speed are given these.
#[test]
fn the_configurations_of_the_benchmark_load() {
    const COMMON: &str = "
databases:
  - name: main
    url: postgres://bench@127.0.0.1:5433/bench
    tls: {mode: disable}
    schema: tenant_1
    profile: safeq6
    schema_map:
      cost_centers: {verified: true}
    pin_format: md5
limits:
  users_per_pass: unlimited
  replace_percent: unlimited
  mails_per_minute: unlimited
policies:
  - name: everybody
    match:
      username: '[^@]+@[^@]+\\.[^@]+'
      email: '.*@example\\.com'
    pin:
      length: 8
      rewrite: expired
      valid_for: 365d
    cost_center:
      move_to: Has PIN
";
    let silent = good(&format!(
        "{COMMON}    notify: {{to: none, unannounced: true}}\nmail:\n  transport: none\njournal:\n  path: /tmp/x/journal.db\n  key: {{file: /tmp/x/journal.key}}\n"
    ));
    assert!(matches!(silent.mail.transport, TransportConfig::None) && silent.mail.from.is_none());
    assert_eq!(silent.databases[0].policies[0].notify.to, Recipient::Nobody);
    assert_eq!(silent.databases[0].policies[0].limits.users_per_pass, Limit::Unlimited);
    assert_eq!(silent.databases[0].policies[0].limits.replace_percent, Limit::Unlimited);
    assert_eq!(silent.limits.mails_per_minute, Limit::Unlimited);
    assert!(silent.journal.key.ends_with("x/journal.key"));
    assert!(silent.databases[0].map.cost_centers.verified);

    let mailed = good(&format!(
        "{COMMON}    notify:\n      to: email\n      template: visitor\nmail:\n  transport: directory\n  from: Print Service <print@example.com>\n  directory: /tmp/x/outbox\ntemplates:\n  visitor:\n    subject: Your documents are waiting\n    parts:\n      - \"Release your documents at any printer with PIN {{{{ pin }}}}.\"\n"
    ));
    let from = mailed.mail.from.unwrap();
    assert_eq!((from.name.as_deref(), from.address.address()), (Some("Print Service"), "print@example.com"));
    let policy = &mailed.databases[0].policies[0];
    assert_eq!((&policy.notify.to, policy.notify.template.as_deref()), (&Recipient::Email, Some("visitor")));
    assert!(policy.selector.username.as_ref().is_some_and(|pattern| pattern.matches("a@b.c") == Ok(true)));
    assert!(matches!(&policy.placement, Some(Placement::MoveTo(CostCenterRef::Name(name))) if name == "Has PIN"));
    assert!(mailed.templates["visitor"].tells(Variable::Pin));
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = good(GOOD);
    let database = &config.databases[0];
    assert_eq!((database.pool_size, database.connect_timeout.as_secs(), database.statement_timeout.as_secs()), (4, 10, 60));
    assert_eq!((database.schema.as_deref(), database.template_user.as_deref()), (None, Some("template")));
    assert_eq!(database.pin_format, PinFormat::Md5);
    assert_eq!(config.schedule.poll.as_secs(), 5);
    assert!(matches!(config.schedule.resync, Resync::Every(every) if every.as_secs() == 600));
    assert!((config.schedule.jitter - 0.1).abs() < 1e-9);
    assert_eq!((config.limits.mails_per_minute, config.limits.batch_size), (Limit::At(30), 1_000));
    let share = |percent| Limit::At(Share::percent(percent).unwrap());
    let span = |seconds| Limit::At(std::time::Duration::from_secs(seconds));
    let Tripwires { users_shrunk, unexplained_pins, pinless_rise, clock_skew, delivery_down } = config.limits.tripwires;
    assert_eq!([users_shrunk, unexplained_pins, pinless_rise], [share(20.0), share(50.0), share(10.0)]);
    assert_eq!([clock_skew, delivery_down], [span(60), span(1_800)]);
    assert_eq!((config.mode, &config.pilot), (Mode::Enforce, &None));
    let policy = &config.databases[0].policies[0];
    assert_eq!(policy.limits.users_per_pass, Limit::At(1_000));
    assert_eq!(policy.limits.replace_percent, Limit::At(Share::percent(5.0).unwrap()));
    assert_eq!(policy.limits.min_interval.as_secs(), 120);
    assert_eq!(policy.notify.to, Recipient::Username);
    let pin = policy.pin.as_ref().unwrap();
    assert_eq!((pin.length.digits(), pin.rewrite, pin.valid_for, pin.allow_trivial), (6, PinRewrite::Never, None, false));
    assert!(!pin.allow_dense);
    assert_eq!(config.mail.give_up_after.as_secs(), 48 * 3_600);
    assert!(matches!(&config.mail.transport, TransportConfig::Directory(path) if *path == folder().join("outbox")));
    assert_eq!(config.journal.keep.as_secs(), 400 * 86_400);
    assert_eq!(config.http, Some(SocketAddr::from(([127, 0, 0, 1], 9464))));
    assert_eq!((config.log.levels, config.log.json), (Levels { default: tracing::Level::INFO, rooms: BTreeMap::new() }, false));
    assert!(config.log.file.is_none());
}

#[test]
fn brakes_are_read_as_written() {
    let config = good(&std::fs::read_to_string(root().join("tests/data/config/observe-and-pilot.yaml")).unwrap());
    let share = |percent| Limit::At(Share::percent(percent).unwrap());
    let expected = Tripwires {
        users_shrunk: Limit::Unlimited,
        unexplained_pins: share(0.0),
        pinless_rise: share(12.5),
        clock_skew: Limit::Unlimited,
        delivery_down: Limit::At(std::time::Duration::from_secs(7_200)),
    };
    assert_eq!(config.limits.tripwires, expected);
    assert_eq!(config.mode, Mode::Observe);
    let pilot = config.pilot.unwrap();
    assert_eq!(pilot.logins.iter().map(String::as_str).collect::<Vec<_>>(), ["4711", "eva"]);
    let centers = [CostCenterRef::Name("IT".to_owned()), CostCenterRef::Number(12), CostCenterRef::Number(-1)];
    assert_eq!(pilot.cost_center, centers);
    assert!(config.databases[0].policies[0].pin.as_ref().is_some_and(|pin| pin.allow_dense));
}

#[test]
fn every_default_may_be_written_out_and_null_is_as_good_as_absent() {
    let written = "
mode: enforce
pilot: null
seal_key: null
databases:
  - {name: main, url: 'sqlite:x.db', password: null, connection_string: null, tls: null, schema: null, profile: sandbox, schema_map: {}, policies: [],
     pool_size: 4, connect_timeout: 10s, statement_timeout: 60s, pin_format: md5, plain_max_length: 6, cac_cipher: null,
     password_encoding: bcrypt, template_user: template}
schedule: {poll: 5s, resync: 10m, jitter: 10%, census: 1h}
limits: {users_per_pass: 1000, replace_percent: 5%, mails_per_minute: 30, min_interval: 120s, batch_size: 1000, users_shrunk: 20%,
         unexplained_pins: 50%, pinless_rise: 10%, clock_skew: 60s, delivery_down: 30m}
policies:
  - name: a
    match: {username: '.*', email: null, cost_center: [], not_cost_center: [], role: [], not_role: [], has_card: null, source: []}
    pin: {length: 6, rewrite: never, valid_for: null, rotate_every: null, spread: 0d, allow_trivial: false, allow_dense: false, quarantine: 90d,
          send_existing: false, cap_unlimited: false, on_leave: keep}
    card_assignment_code: null
    password: null
    cost_center: null
    remove_role: null
    notify: {to: username, template: t, reminders: [], unannounced: false}
    limits: {}
mail: {transport: directory, host: null, port: 587, tls: starttls, allow_plaintext: false, auth: {method: none}, ca_file: null, ca_directory: null,
       client_certificate: null, insecure_skip_verify: false, hello_name: null, from: print@example.com, envelope_from: null, redirect_to: null,
       connections: 2, timeout: 30s, give_up_after: 48h, on_undeliverable: take_back, directory: outbox}
admin: null
templates: {t: {subject: s, parts: ['{{ pin }}'], html_parts: null, translations: [], reminder: null}}
journal: {path: null, key: null, keep: 400d, pseudonymize_after: 90d, undo_for: 7d}
http: {listen: '127.0.0.1:9464', tls: null, basic_auth: null}
log: {level: info, format: text, file: null, remote: null}
external_auth: null
";
    assert_eq!(format!("{:?}", good(written)), format!("{:?}", good(GOOD)));
    let windows = format!("\u{feff}{}", written.replace('\n', "\r\n"));
    assert_eq!(format!("{:?}", good(&windows)), format!("{:?}", good(GOOD)));
}

/// The part of the reference that shows the profile `safeq6`, as its authors wrote it down.
const REFERENCE: &str = "
      users: {table: users, id: id, login: login, email: email, name: name, surname: surname, password: pass, puk: {column: puk, verified: false},
              is_user: {all: [{bits_set: {column: flag, mask: 1}}, {bits_clear: {column: flag, mask: 49152}}]}, is_deleted: null, source: source}
      cards: {table: users_cards, user: user_id, value: card, expires: {column: pin_expiration_date, type: timestamp, zone: local},
              insert_defaults: {replicated_card: 0, replicated_card_flag: 0}}
      cost_centers: {model: column, table: ou, id: id, number: number, name: name,
              member: {id_column: ou_id, number_column: ou_number}, verified: false}
      roles: {model: users_rows, name: login, where: {bits_set: {column: flag, mask: 32768}},
              link: {table: users_roles, user: user_id, role: role_id}, verified: false}
";

fn map(profile: &str, schema_map: &str) -> SchemaMap {
    let text = GOOD.replace("profile: sandbox}]", &format!("profile: {profile}, schema_map: {schema_map}}}]"));
    good(&text).databases.remove(0).map
}

#[test]
fn the_profile_safeq6_is_that_of_the_reference() {
    let written = format!("{{{}}}", REFERENCE.trim().replace("}\n      c", "},\n      c").replace("}\n      r", "},\n      r"));
    let safeq6 = map("safeq6", "null");
    assert_eq!(safeq6, map("custom", &written));
    assert_eq!(
        safeq6.users.is_user,
        Test::All(vec![Test::BitsSet { column: "flag".to_owned(), mask: 1 }, Test::BitsClear { column: "flag".to_owned(), mask: 49_152 },])
    );
    assert_eq!(safeq6.cards.expires.kind, ExpiresKind::Timestamp);
    assert!(!safeq6.cost_centers.verified);
    let sandbox = map("sandbox", "null");
    assert!(sandbox.cost_centers.verified);
    let roles = |verified| sandbox.roles.clone().map(|roles| RolesMap { verified, ..roles });
    assert_eq!(sandbox.roles, roles(true));
    let cost_centers = CostCentersMap { verified: false, ..sandbox.cost_centers.clone() };
    let users = UsersMap { puk: safeq6.users.puk.clone(), ..sandbox.users.clone() };
    assert_eq!(SchemaMap { users, cost_centers, roles: roles(false), ..sandbox }, safeq6);
}

#[test]
fn overrides_change_only_what_they_name() {
    let changed = map(
        "safeq6",
        "{users: {email: mail, id: {grows: false}, source: null, is_user: {equals: {column: kind, value: U}}, is_deleted: {not: {is_null: gone}}}, \
                                 cards: {expires: {zone: utc}, insert_defaults: {origin: 'x', flag: 2, note: null}}, cost_centers: {verified: true}}",
    );
    let shipped = map("safeq6", "null");
    assert_eq!((changed.users.email.as_str(), changed.users.login.as_str()), ("mail", "login"));
    assert_eq!((changed.users.id.as_str(), changed.users.id_grows), ("id", false));
    assert_eq!(changed.users.source, None);
    assert_eq!(changed.users.is_user, Test::Equals { column: "kind".to_owned(), value: Value::Text("U".to_owned()) });
    assert_eq!(changed.users.is_deleted, Some(Test::Not(Box::new(Test::IsNull { column: "gone".to_owned() }))));
    assert_eq!((changed.cards.expires.column.as_str(), changed.cards.expires.zone), ("pin_expiration_date", Zone::Utc));
    let inserted = [("origin", Value::Text("x".to_owned())), ("flag", Value::Number(2)), ("note", Value::Null)];
    assert_eq!(changed.cards.insert_defaults, inserted.map(|(column, value)| (column.to_owned(), value)));
    assert_eq!(changed.cost_centers, CostCentersMap { verified: true, ..shipped.cost_centers });
}

#[test]
fn users_of_safeq5_hold_the_id_of_their_cost_center_alone() {
    let shipped = map("safeq5", "{}");
    let member = |number: Option<&str>| Member::Column { id: "ou_id".to_owned(), number: number.map(str::to_owned) };
    assert_eq!((shipped.users.source, shipped.cost_centers.member), (None, member(None)));
    let named = map("safeq5", "{cost_centers: {member: {number_column: ou_number}}}");
    assert_eq!(named.cost_centers.member, member(Some("ou_number")));
}

#[test]
fn each_model_of_cost_centers_and_roles_says_where_they_are() {
    let link = |to: &str| LinkMap { table: "links".to_owned(), user: "u".to_owned(), to: to.to_owned() };
    let rows = map(
        "safeq6",
        "{cost_centers: {model: users_rows, number: ou_number, name: surname, where: {bits_set: {column: flag, mask: 16384}}}}",
    );
    let centers = &rows.cost_centers;
    assert_eq!((centers.table.as_str(), centers.number.as_str(), centers.name.as_str()), ("users", "ou_number", "surname"));
    assert_eq!(centers.rows, Some(Test::BitsSet { column: "flag".to_owned(), mask: 16_384 }));
    assert_eq!(centers.member, map("safeq6", "null").cost_centers.member);
    let linked = map("safeq6", "{cost_centers: {model: link_table, link: {table: links, user: u, cost_center: c}}}").cost_centers;
    assert_eq!((linked.table.as_str(), linked.rows, linked.member), ("ou", None, Member::Link(link("c"))));
    let roles = map("safeq6", "{roles: {model: table, table: roles, id: key, name: title, link: {table: links, user: u, role: r}}}").roles;
    let table = RolesMap { table: "roles".into(), id: "key".into(), name: "title".into(), rows: None, link: link("r"), verified: false };
    assert_eq!(roles, Some(table));
    assert_eq!(map("safeq6", "{roles: null}").roles, None);
}

#[test]
fn the_schema_is_the_profiles_where_none_is_named() {
    let schema = |rest: &str| {
        let text = GOOD.replace("url: sqlite:x.db, profile: sandbox", &format!("url: 'postgres://u@localhost/d'{rest}"));
        good(&text).databases.remove(0).schema
    };
    assert_eq!(schema("").as_deref(), Some("tenant_1"));
    assert_eq!(schema(", schema: tenant_2").as_deref(), Some("tenant_2"));
    assert_eq!(schema(", schema: ''"), None);
    assert_eq!(schema(", profile: sandbox"), None);
}

#[test]
fn secrets_come_from_files_the_environment_and_systemd() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("one-newline"), "S3cret \n").unwrap();
    std::fs::write(folder.path().join("windows"), "\u{feff}S3cret\r\n").unwrap();
    std::fs::write(folder.path().join("two-newlines"), "S3cret\n\n").unwrap();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    std::fs::write(folder.path().join("bytes"), [0xff, 0xfe, 0x41]).unwrap();
    std::fs::write(folder.path().join("coded"), "code,-3,5,98,127\n").unwrap();
    std::fs::create_dir(folder.path().join("credentials")).unwrap();
    std::fs::write(folder.path().join("credentials/db"), "S3cret\n").unwrap();
    let read = |password: &str| {
        let text = GOOD.replace("url: sqlite:x.db", &format!("url: 'postgres://u@localhost/d', password: {password}"));
        let credentials = folder.path().join("credentials").into_os_string();
        let environment = move |name: &str| match name {
            "FULL" => Some("S3cret".into()),
            "EMPTY" => Some("".into()),
            "CREDENTIALS_DIRECTORY" => Some(credentials.clone()),
            _ => None,
        };
        parse(&text, &folder.path().join("config.yaml"), environment)
    };
    let secret = |password: &str| {
        let config = read(password).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(!format!("{config:?}").contains("S3cret"), "Debug shows a secret");
        match config.databases.into_iter().next().map(|database| database.target) {
            Some(DatabaseTarget::Postgres { password: Some(password), .. }) => password.expose().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    for (password, expected) in [
        ("{file: one-newline}", "S3cret "),
        ("{file: windows}", "S3cret"),
        ("{file: two-newlines}", "S3cret\n"),
        ("{env: FULL}", "S3cret"),
        ("{credential: db}", "S3cret"),
        ("S3cret", "S3cret"),
        ("12345", "12345"),
    ] {
        assert_eq!(secret(password), expected, "{password}");
    }
    for (password, expected) in [
        ("{file: absent}", "does not exist"),
        ("{file: empty}", "is empty"),
        ("{file: bytes}", "is not UTF-8"),
        ("{env: ABSENT}", "the environment variable ABSENT is not set"),
        ("{env: EMPTY}", "the environment variable EMPTY is empty"),
        ("{credential: absent}", "the unit must say LoadCredential=absent:PATH"),
        ("{credential: ../one-newline}", "the name of a credential, without a folder"),
        ("{file: one-newline, env: FULL}", "expected one of {file: PATH}, {env: NAME} or {credential: NAME}"),
        ("{}", "expected one of {file: PATH}, {env: NAME} or {credential: NAME}"),
        ("[S3cret]", "expected {file: PATH}, {env: NAME} or {credential: NAME}"),
        ("''", "is empty"),
        ("'code,-3,5,98,127'", "run `credkeeper seal`"),
        ("{file: coded}", "run `credkeeper seal`"),
    ] {
        let problems = read(password).map(|_| ()).expect_err(password);
        assert!(problems.to_string().contains(expected), "{password}: {problems}");
        assert_eq!(problems.problems.len(), 1, "{password}: {problems}");
        assert!(!problems.to_string().contains("S3cret"), "{problems}");
    }
}

#[cfg(unix)]
#[test]
fn a_secret_that_everybody_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "S3cret").unwrap();
    let text = GOOD.replace("url: sqlite:x.db", "url: 'postgres://u@localhost/d', password: {file: password}");
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let config = parse(&text, &folder.path().join("config.yaml"), |_| None).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.warnings.iter().any(|warning| warning.contains("every account")), warned, "{mode:o}");
    }
}

#[test]
fn the_journal_is_in_the_state_directory_unless_it_is_named() {
    let journal = |text: &str, state: Option<&'static str>| {
        let config = parse(text, &folder().join("config.yaml"), move |name| match name {
            "STATE_DIRECTORY" | "ProgramData" => state.map(Into::into),
            _ => None,
        });
        config.unwrap_or_else(|problems| panic!("{problems}")).journal
    };
    let named = journal(&format!("{GOOD}journal: {{path: state/j.db}}"), None);
    assert_eq!((named.path, named.key), (folder().join("state/j.db"), folder().join("state/journal.key")));
    #[cfg(unix)]
    for (state, expected) in [(None, "/var/lib/credkeeper"), (Some("/srv/a:/srv/b"), "/srv/a"), (Some(""), "/var/lib/credkeeper")] {
        let journal = journal(GOOD, state);
        assert_eq!((journal.path, journal.key), (Path::new(expected).join("journal.db"), Path::new(expected).join("journal.key")));
    }
    #[cfg(windows)]
    assert_eq!(journal(GOOD, Some(r"D:\Data")).path, Path::new(r"D:\Data\credkeeper\journal.db"));
}

#[test]
fn the_status_page_can_be_moved_and_switched_off() {
    assert_eq!(good(&format!("{GOOD}http: null")).http, None);
    assert_eq!(good(&format!("{GOOD}http: {{listen: null}}")).http, None);
    assert_eq!(good(&format!("{GOOD}http: {{listen: '[::1]:80'}}")).http, Some(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 80))));
}

#[test]
fn cost_centers_are_numbers_where_the_text_is_one() {
    let text = GOOD.replace("pin: {", "match: {cost_center: [Needs PIN, 12, '7', -1, 1a, +5]}, pin: {");
    let names = |name: &str| CostCenterRef::Name(name.to_owned());
    let numbers = CostCenterRef::Number;
    let expected = [names("Needs PIN"), numbers(12), numbers(7), numbers(-1), names("1a"), names("+5")];
    assert_eq!(good(&text).databases[0].policies[0].selector.cost_center, expected);
}

#[test]
fn senders_are_a_name_and_an_address() {
    let sender = |from: &str| {
        let from = good(&GOOD.replace("print@example.com", from)).mail.from.unwrap();
        (from.name, from.address.address().to_owned())
    };
    let address = "p@example.com".to_owned();
    assert_eq!(sender("p@example.com"), (None, address.clone()));
    assert_eq!(sender("<p@example.com>"), (None, address.clone()));
    assert_eq!(sender("'\"Print, Service\" <p@example.com>'"), (Some("Print, Service".to_owned()), address.clone()));
    assert_eq!(sender("Tisk žluť <p@example.com>"), (Some("Tisk žluť".to_owned()), address));
    for bad in [
        "'p@example.com, q@example.com'",
        "'a <p@example.com> b'",
        "\"a\\nBcc: q@example.com <p@example.com>\"",
        "'<'",
        "'a <b> <p@example.com>'",
    ] {
        assert_eq!(problems(&GOOD.replace("print@example.com", bad)).len(), 1, "{bad}");
    }
}

#[test]
fn mail_in_the_clear_stays_on_this_machine_unless_allowed() {
    let smtp = |rest: &str| GOOD.replace("transport: directory", rest);
    let SmtpConfig { host, port, connections, .. } = match good(&smtp("host: localhost, tls: none")).mail.transport {
        TransportConfig::Smtp(smtp) => *smtp,
        other => panic!("{other:?}"),
    };
    assert_eq!((host.as_str(), port, connections), ("localhost", 25, 2));
    assert_eq!(problems(&smtp("host: mail, tls: none")).len(), 1);
    assert_eq!(problems(&smtp("host: mail, tls: none, allow_plaintext: true")), Vec::<String>::new());
    let login = "auth: {method: password, user: u, password: p}";
    let said = problems(&smtp(&format!("host: mail, tls: none, {login}")));
    assert_eq!(
        said,
        [
            "mail.tls: PINs and the password of mail.auth would cross the network to mail unencrypted; set allow_plaintext: true if it is trusted"
        ]
    );
    let warned = good(&smtp(&format!("host: mail, tls: none, allow_plaintext: true, {login}"))).warnings;
    assert!(
        warned.iter().any(|warning| warning.contains("PINs and the password of mail.auth cross the network to mail unencrypted")),
        "{warned:?}"
    );
}

#[test]
fn mail_is_encrypted_and_verified_unless_told_otherwise() {
    let smtp = |rest: &str| match good(&GOOD.replace("transport: directory", rest)).mail.transport {
        TransportConfig::Smtp(smtp) => smtp,
        other => panic!("{other:?}"),
    };
    for (rest, wanted) in [("host: mail", 587), ("host: mail, tls: implicit", 465), ("host: mail, tls: starttls, port: 25", 25)] {
        let smtp = smtp(rest);
        assert_eq!((smtp.port, smtp.is_plaintext(), smtp.is_unverified(), smtp.login.is_none()), (wanted, false, false, true));
        let settings = TlsSettings { verify: Verify::Full, ca_file: None, ca_directory: None, client: None, server_name: None };
        match (&smtp.encryption, rest.contains("implicit")) {
            (Encryption::Implicit(found), true) | (Encryption::StartTls(found), false) => assert_eq!(*found, settings),
            other => panic!("{other:?}"),
        }
    }
    assert!(smtp("host: mail, insecure_skip_verify: true").is_unverified());
    assert!(smtp("host: mail, tls: none, allow_plaintext: true").is_plaintext());
    assert!(!smtp("host: localhost, tls: none").is_plaintext());
    let login = smtp("host: mail, auth: {method: password, user: u, password: S3cret}").login.unwrap();
    assert!(login.user == "u" && matches!(&login.proof, Proof::Password(password) if password.expose() == "S3cret"));
    assert!(!format!("{login:?}").contains("S3cret"));
}

#[test]
fn tokens_come_over_an_encrypted_connection_that_the_mail_servers_authorities_vouch_for() {
    let endpoint = |url: &str, rest: &str| {
        let auth = format!("auth: {{method: oauth2, user: u, token_url: '{url}', client_id: c, client_secret: S3cret}}");
        match good(&GOOD.replace("transport: directory", &format!("host: localhost, {auth}, {rest}"))).mail.transport {
            TransportConfig::Smtp(smtp) => match smtp.login.unwrap().proof {
                Proof::Token(endpoint) => *endpoint,
                Proof::Password(_) => panic!("a password"),
            },
            other => panic!("{other:?}"),
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(&ca, rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap().pem()).unwrap();
    let system = TlsSettings { verify: Verify::Full, ca_file: None, ca_directory: None, client: None, server_name: None };
    let own = TlsSettings { ca_file: Some(ca.clone()), ..system.clone() };
    let ca = format!("ca_file: {}", ca.display());
    for (url, rest, wanted, tls) in [
        ("https://login.example.com", "tls: starttls", ("login.example.com", 443, "/"), Some(&system)),
        ("https://login.example.com:8443/t?x=1", "insecure_skip_verify: true", ("login.example.com", 8443, "/t?x=1"), Some(&system)),
        ("https://[::1]/t", &ca, ("::1", 443, "/t"), Some(&own)),
        ("https://login.example.com/t", &format!("tls: none, {ca}"), ("login.example.com", 443, "/t"), Some(&own)),
        ("http://127.0.0.1:8080/t", "tls: none", ("127.0.0.1", 8080, "/t"), None),
    ] {
        let found = endpoint(url, rest);
        assert_eq!((found.host.as_str(), found.port, found.path.as_str()), wanted);
        assert_eq!(found.tls.as_ref(), tls, "{url} {rest}");
        assert!(!format!("{found:?}").contains("S3cret"));
    }
}

#[test]
fn files_of_the_mail_servers_certificate_are_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let identity = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (one, other) = (identity("one"), identity("other"));
    write("one.pem", &one.0);
    write("one.key", &one.1);
    write("other.key", &other.1);
    write("text.pem", "not PEM");
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let read = |rest: &str| {
        let text = GOOD.replace("transport: directory", &format!("host: mail, {rest}"));
        parse(&text, &folder.path().join("config.yaml"), |_| None)
    };
    for right in ["ca_file: one.pem", "ca_directory: .", "client_certificate: {cert: one.pem, key: one.key}, tls: implicit"] {
        read(right).unwrap_or_else(|problems| panic!("{right}: {problems}"));
    }
    for (wrong, key, said) in [
        ("ca_file: absent.pem", "mail.ca_file", "does not exist"),
        ("ca_file: text.pem", "mail.ca_file", "is not PEM"),
        ("ca_file: one.key", "mail.ca_file", "holds no certificate"),
        ("ca_directory: absent", "mail.ca_directory", "does not exist"),
        ("ca_directory: empty", "mail.ca_directory", "holds no certificate"),
        ("client_certificate: {cert: absent.pem, key: one.key}", "mail.client_certificate", "absent.pem does not exist"),
        ("client_certificate: {cert: one.pem, key: one.pem}", "mail.client_certificate", "holds no private key"),
        ("client_certificate: {cert: one.pem, key: other.key}", "mail.client_certificate", "does not belong to"),
    ] {
        let problems = read(wrong).map(|_| ()).expect_err(wrong).problems;
        assert!(problems.len() == 1 && problems[0].key == key && problems[0].message.contains(said), "{wrong}: {problems:?}");
    }
    // Of a transport that is not used nothing is read.
    let unused = GOOD.replace("from:", "ca_file: absent.pem, insecure_skip_verify: true, from:");
    assert!(parse(&unused, &folder.path().join("config.yaml"), |_| None).is_ok());
}

#[test]
fn a_rehearsal_is_warned_of_without_the_address() {
    let config = good(&GOOD.replace("from:", "redirect_to: rehearsal@example.com, from:"));
    assert_eq!(config.mail.redirect_to.map(|to| to.address().to_owned()).as_deref(), Some("rehearsal@example.com"));
    assert!(config.warnings.iter().any(|warning| warning.contains("every mail goes to r…@example.com")), "{:?}", config.warnings);
}

#[test]
fn a_policy_may_move_without_telling_anybody() {
    let config = good(&GOOD.replace("pin: {length: 6, rewrite: never}, notify: {template: t}", "cost_center: {move_to: 5}"));
    assert!(matches!(config.databases[0].policies[0].placement, Some(Placement::MoveTo(CostCenterRef::Number(5)))));
    assert!(config.databases[0].policies[0].pin.is_none() && config.databases[0].policies[0].notify.template.is_none());
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Config::load(&path).map(|_| ()).unwrap_err().problems.remove(0).message
    };
    assert_eq!(said(b"a: 1\nb: \xe9\n"), "is not UTF-8: line 2 has other bytes; save it as UTF-8");
    assert!(said(b"\xff\xfea\0").starts_with("is UTF-16"));
    let problem = Config::load(folder.path()).unwrap_err();
    assert!(problem.problems[0].message.starts_with("is a directory; "));
    let absent = folder.path().join("absent.yaml");
    assert!(Config::load(&absent).unwrap_err().to_string().starts_with(&format!("{}: does not exist in ", absent.display())));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in r"([a-z]{1,9}: ?[\[\]{}a-z0-9'%.,*&!|-]{0,9}\n? {0,4}){0,8}") {
        let _ = read(&text);
        let _ = read(&format!("{GOOD}{text}"));
    }
}
