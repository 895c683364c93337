//! A small site on either dialect: the vendor's tables, a configuration, mails into a folder. Passes run in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use credkeeper::cli::Once;
use credkeeper::config::Config;
use credkeeper::domain::{PassId, Timestamp};
use credkeeper::journal::{JournalReader, Owner};
use credkeeper::logging::Progress;
use credkeeper::plan::{Plan, Step};
use credkeeper::reconcile::{self, Ask, Watch};
use credkeeper::report::{PassKind, PolicyReport, Report};
use credkeeper::store::Reader;
use credkeeper::{clock, commands, once};
use tokio::sync::Notify;

use crate::pg::TestDb;
use crate::site::{Mail, parse};

const TABLES: &str = include_str!("../../src/sandbox/tables.sql");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

pub struct SmallSite {
    pub dialect: Dialect,
    config: PathBuf,
    folder: tempfile::TempDir,
    postgres: Option<TestDb>,
}

impl SmallSite {
    /// `keys` stand in the entry of the database, as a YAML flow without braces; `rest` is the configuration from the limits on,
    /// without mail, one template `t` and the journal.
    pub async fn make(dialect: Dialect, keys: &str, rest: &str) -> SmallSite {
        SmallSite::mapped(
            dialect,
            "cost_centers: {verified: true}, roles: {verified: true}, users: {puk: {column: puk, verified: true}}",
            keys,
            rest,
        )
        .await
    }

    /// The same with a `schema_map` of its own, without braces.
    pub async fn mapped(dialect: Dialect, map: &str, keys: &str, rest: &str) -> SmallSite {
        let folder = tempfile::tempdir().unwrap();
        let postgres = match dialect {
            Dialect::Sqlite => None,
            Dialect::Postgres => Some(TestDb::new().await),
        };
        let database = match &postgres {
            None => format!("url: 'sqlite:site.db', profile: sandbox, schema_map: {{{map}}}"),
            Some(db) => {
                format!("url: 'postgres://credkeeper@127.0.0.1:{}/{}', schema_map: {{{map}}}", db.port, db.name)
            }
        };
        let config = folder.path().join("config.yaml");
        let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
        let yaml = format!(
            "databases: [{{name: main, {database}{keys}}}]\n{rest}\
             mail: {{transport: directory, directory: outbox, from: print@example.com}}\n\
             templates: {{t: {{subject: 'Hello {{{{ name }}}}', parts: ['{{{{ name }}}}: PIN {{{{ pin }}}}', 'CODE {{{{ card_assignment_code }}}}', 'PASSWORD {{{{ password }}}}']}}}}\n\
             journal: {{path: journal.db}}\n"
        );
        std::fs::write(&config, yaml).unwrap();
        let site = SmallSite { dialect, config, folder, postgres };
        match dialect {
            Dialect::Sqlite => {
                site.sql(&format!(
                    "{TABLES}; INSERT INTO ou (id, number, name) VALUES (0, 0, 'Default'), (11, 100, 'Needs PIN'), (12, 200, 'Has PIN')"
                ))
                .await
            }
            Dialect::Postgres => site.sql("SET search_path = tenant_1").await,
        }
        site.sql("INSERT INTO ou (id, number, name) VALUES (13, 300, 'Staff')").await;
        site
    }

    /// What is wrong with the configuration, or `None`.
    pub fn refusal(&self) -> Option<String> {
        Config::load(&self.config).err().map(|problems| problems.to_string())
    }

    pub fn load(&self) -> Arc<Config> {
        Arc::new(Config::load(&self.config).unwrap_or_else(|problems| panic!("{problems}")))
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    // --- the database, without the store ---

    pub async fn sql(&self, statements: &str) {
        match &self.postgres {
            None => rusqlite::Connection::open(self.folder().join("site.db"))
                .unwrap()
                .execute_batch(statements)
                .unwrap_or_else(|e| panic!("{e}\nin: {statements}")),
            Some(db) => db.sql(statements).await,
        }
    }

    /// One column as text.
    pub async fn column(&self, query: &str) -> Vec<String> {
        match &self.postgres {
            None => {
                let db = rusqlite::Connection::open(self.folder().join("site.db")).unwrap();
                let mut statement = db.prepare(query).unwrap();
                statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
            }
            Some(db) => db.rows(query).await.into_iter().map(|row| row[0].clone().unwrap_or_default()).collect(),
        }
    }

    /// So many hours from now, for the expiry column.
    pub fn hours(&self, hours: i32) -> String {
        match self.dialect {
            Dialect::Sqlite => format!("datetime('now', 'localtime', '{hours} hours')"),
            Dialect::Postgres => format!("date_trunc('second', localtimestamp + interval '{hours} hours')"),
        }
    }

    // --- passes ---

    pub async fn once(&self) -> Report {
        self.once_as(&Once::default()).await
    }

    pub async fn once_as(&self, asked: &Once) -> Report {
        let config = self.load();
        let metrics = Arc::new(commands::metrics(&config));
        once::run(config, asked, metrics, &Progress::new(false)).await.unwrap().remove(0).outcome.unwrap()
    }

    /// What a pass would do so many seconds from now, with the read filter or without.
    pub async fn plan(&self, seconds: i64, filtered: bool) -> (Plan, Report) {
        let config = self.load();
        let database = &config.databases[0];
        let reader = Reader::connect(database).await.unwrap();
        let journal = JournalReader::open(&config.journal, Owner::all(&config.databases), &database.name).await.unwrap();
        let utc = Timestamp(clock::now().0 + seconds);
        let ask = Ask { filtered, ..Ask::full(PassKind::Once, utc) };
        let policies = config.databases[0].policies.iter().map(|p| PolicyReport::new(p.name.clone())).collect();
        let mut report = Report::new(PassId("p".into()), "main".into(), PassKind::Once, true, utc, policies);
        let watch = Watch { progress: &|_, _| {}, line: &|_| {}, committed: &Notify::new(), stop: &|| false };
        let looked = reconcile::look(&reader, journal.as_ref(), &config, database, &ask, &mut report, &watch).await.unwrap();
        (looked.plan, report)
    }

    pub async fn steps(&self, seconds: i64, filtered: bool) -> Vec<Step> {
        let mut steps = self.plan(seconds, filtered).await.0.steps;
        steps.sort();
        steps
    }

    pub fn mails(&self) -> Vec<Mail> {
        let outbox = self.folder().join("outbox");
        let files = std::fs::read_dir(outbox).map(|dir| dir.map(|e| e.unwrap().path()).collect::<Vec<_>>()).unwrap_or_default();
        files.into_iter().map(|file| parse(&std::fs::read_to_string(file).unwrap())).collect()
    }
}
