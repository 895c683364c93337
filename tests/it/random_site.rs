//! A site of random people under a random choice of policies, on either dialect.

use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use crate::pg::TestDb;
use crate::properties::Anybody;

const TABLES: &str = include_str!("../../src/sandbox/tables.sql");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

pub struct RandomSite {
    pub config: PathBuf,
    folder: tempfile::TempDir,
    postgres: Option<TestDb>,
}

/// Policies in the order in which they stand; bit n of the choice takes the n-th.
const POLICIES: [&str; 5] = [
    "  - name: excluded\n    match: {username: '[x-z].*'}\n",
    "  - name: visitors
    match: {username: '[^@]+@.*', cost_center: [Needs PIN]}
    pin: {length: 6, rewrite: never, valid_for: 30d}
    cost_center: {move_to: Has PIN}
    notify: {to: username, template: t}\n",
    "  - name: movers\n    match: {username: '[a-f].*', not_cost_center: [Has PIN]}\n    cost_center: {move_to: Has PIN}\n",
    "  - name: staff
    match: {email: '.*@example[.]example', has_card: null}
    pin: {length: 6, rewrite: expired, valid_for: 365d}
    notify: {to: email, template: t}\n",
    "  - name: everybody
    pin: {length: 7, rewrite: expired, valid_for: 10d}
    notify: {to: username, template: t}\n",
];

impl RandomSite {
    pub async fn make(dialect: Dialect, people: &[Anybody], choice: u8) -> RandomSite {
        let folder = tempfile::tempdir().unwrap();
        let chosen: String = POLICIES.iter().enumerate().filter(|(n, _)| choice & (1 << n) != 0).map(|(_, policy)| *policy).collect();
        let policies = if chosen.is_empty() { POLICIES[4].to_owned() } else { chosen };
        let postgres = match dialect {
            Dialect::Sqlite => None,
            Dialect::Postgres => Some(TestDb::new().await),
        };
        let database = match &postgres {
            None => "    url: sqlite:site.db\n    profile: sandbox".to_owned(),
            Some(db) => format!(
                "    url: postgres://credkeeper@127.0.0.1:{}/{}\n    schema_map: {{cost_centers: {{verified: true}}}}",
                db.port, db.name
            ),
        };
        let config = folder.path().join("config.yaml");
        let yaml = format!(
            "databases:\n  - name: main\n{database}\nlimits: {{mails_per_minute: unlimited, batch_size: 7}}\npolicies:\n{policies}\
             mail: {{transport: directory, directory: outbox, from: print@example.com}}\n\
             templates: {{t: {{subject: 'Hello {{{{ name }}}}', parts: ['{{{{ name }}}}: PIN {{{{ pin }}}}']}}}}\n\
             journal: {{path: journal.db}}\n"
        );
        std::fs::write(&config, yaml).unwrap();
        let site = RandomSite { config, folder, postgres };
        site.fill(people).await;
        site
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    async fn fill(&self, people: &[Anybody]) {
        let (prefix, now) = match &self.postgres {
            None => ("", "datetime('now', 'localtime', '{} hours')"),
            Some(_) => ("tenant_1.", "localtimestamp + interval '{} hours'"),
        };
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let mut sql = String::new();
        match &self.postgres {
            None => {
                sql.push_str(TABLES);
                sql.push_str("INSERT INTO ou (id, number, name) VALUES (0, 0, 'Default'), (11, 100, 'Needs PIN'), (12, 200, 'Has PIN'), (13, 300, 'Staff');");
            }
            Some(_) => sql.push_str("INSERT INTO tenant_1.ou (id, number, name) VALUES (13, 300, 'Staff');"),
        }
        let places = [(0, 0), (11, 100), (12, 200), (12, 7)]; // the last is half in place
        for (index, person) in people.iter().enumerate() {
            let id = index + 1;
            let (place, number) = places[person.place];
            sql.push_str(&format!(
                "INSERT INTO {prefix}users (id, login, email, name, flag, ou_id, ou_number) VALUES ({id}, {}, {}, {}, {}, {place}, {number});",
                quote(&person.login),
                quote(&person.email),
                quote(&person.name),
                person.flag
            ));
            let mut card = |value: &str, expires: String| {
                sql.push_str(&format!(
                    "INSERT INTO {prefix}users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES ({id}, {}, 0, 0, {expires});",
                    quote(value)
                ));
            };
            for (n, hours) in person.pins.iter().enumerate() {
                // Eight digits: none of those that the policies draw.
                let hash: String = Md5::digest(format!("{id:06}{n:02}")).iter().map(|b| format!("{b:02x}")).collect();
                card(&format!("PIN{hash}"), hours.map_or("NULL".to_owned(), |h| now.replace("{}", &h.to_string())));
            }
            person.cards.iter().for_each(|value| card(value, "NULL".to_owned()));
        }
        match &self.postgres {
            None => rusqlite::Connection::open(self.folder().join("site.db")).unwrap().execute_batch(&sql).unwrap(),
            Some(db) => db.sql(&sql).await,
        }
    }

    /// What no policy may ever change: who the users are, and their cards.
    pub async fn rows(&self) -> Vec<String> {
        let prefix = if self.postgres.is_some() { "tenant_1." } else { "" };
        let users = format!("SELECT id || '/' || login || '/' || email || '/' || name || '/' || flag FROM {prefix}users ORDER BY id");
        let cards = format!("SELECT user_id || '/' || card FROM {prefix}users_cards ORDER BY 1");
        let mut rows = Vec::new();
        for query in [users, cards] {
            let found: Vec<String> = match &self.postgres {
                None => {
                    let db = rusqlite::Connection::open(self.folder().join("site.db")).unwrap();
                    let mut statement = db.prepare(&query).unwrap();
                    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
                }
                Some(db) => db.rows(&query).await.into_iter().map(|row| row[0].clone().unwrap_or_default()).collect(),
            };
            let is_pin = |row: &String| {
                row.split_once("/PIN")
                    .is_some_and(|(_, hash)| hash.len() == 32 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
            };
            rows.extend(found.into_iter().filter(|row| !is_pin(row)));
        }
        rows.sort();
        rows
    }
}
