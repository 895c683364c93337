//! Properties over random sites, on both dialects: a pass leaves nothing to do; the read filter never changes the plan;
//! no string in any field becomes a header, a recipient or an effect in SQL.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use credkeeper::cli::Once;
use credkeeper::commands;
use credkeeper::config::Config;
use credkeeper::domain::Timestamp;
use credkeeper::logging::Progress;
use credkeeper::once;
use credkeeper::plan::Step;
use credkeeper::reconcile::{self, Ask, Watch};
use credkeeper::report::{PassKind, PolicyReport, Report};
use credkeeper::store::Reader;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use tokio::sync::Notify;

use crate::random_site::{Dialect, RandomSite};
use crate::site::parse;

/// One user, as random as a database allows.
#[derive(Clone, Debug)]
pub struct Anybody {
    pub login: String,
    pub email: String,
    pub name: String,
    pub flag: i32,
    pub place: usize,
    /// Hours until each PIN expires; `None`: never.
    pub pins: Vec<Option<i32>>,
    pub cards: Vec<String>,
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("'; DROP TABLE users; --".to_owned()),
        Just("a@b.example\r\nBcc: evil@evil.example".to_owned()),
        Just("a@b.example, evil@evil.example".to_owned()),
        Just("a@b.example\0".replace('\0', "")),
        Just("\"quoted\"@b.example".to_owned()),
        Just("{{ pin }}@b.example".to_owned()),
        Just("%s' OR '1'='1".to_owned()),
        "[a-z]{1,8}@(visitors|example)\\.example".prop_map(|s| s),
        "[^\0]{0,40}",
    ]
}

fn anybody() -> impl Strategy<Value = Anybody> {
    let flag = prop_oneof![6 => Just(1), 1 => Just(163_840), 1 => Just(16_385), 1 => any::<i32>().prop_map(|f| f & 0xffff)];
    let pins = prop::collection::vec(prop::option::of(-100..100i32), 0..3);
    let cards = prop::collection::vec(prop_oneof![Just("PINEAPPLE".to_owned()), "[0-9a-f]{32}", "[A-Z0-9]{4,12}", "[^\0]{1,35}"], 0..2);
    (hostile(), hostile(), hostile(), flag, 0..4usize, pins, cards).prop_map(|(login, email, name, flag, place, pins, cards)| Anybody {
        login,
        email,
        name,
        flag,
        place,
        pins,
        cards,
    })
}

/// Which policies the site has, as bits: visitors, renewing staff, everybody else, a mover, an excluder.
fn site() -> impl Strategy<Value = (Vec<Anybody>, u8)> {
    (prop::collection::vec(anybody(), 1..25), any::<u8>())
}

fn check(dialect: Dialect, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Runs { cases, failure_persistence: None, max_shrink_iters: 200, ..Runs::default() });
    runner
        .run(&site(), |(people, policies)| {
            runtime.block_on(async {
                let site = RandomSite::make(dialect, &people, policies).await;
                let config = Arc::new(Config::load(&site.config).unwrap_or_else(|p| panic!("{p}")));
                let (filtered, whole) = (steps(&config, true).await, steps(&config, false).await);
                prop_assert_eq!(&filtered, &whole, "the read filter changed the plan");

                let before = site.rows().await;
                let metrics = Arc::new(commands::metrics(&config));
                let report = once::run(config.clone(), &Once::default(), metrics, &Progress::new(false)).await.unwrap();
                prop_assert_eq!(report.failed(), 0, "{:?}", report.problems);
                prop_assert!(steps(&config, true).await.is_empty(), "a second plan is not empty");
                prop_assert_eq!(site.rows().await, before, "rows of users came or went, or a login, mail or card changed");
                mails_are_as_meant(&site.folder().join("outbox"), &whole, &people)
            })
        })
        .unwrap();
}

#[test]
fn random_sites_on_sqlite() {
    check(Dialect::Sqlite, 60);
}

#[test]
fn random_sites_on_postgresql() {
    check(Dialect::Postgres, 25);
}

async fn steps(config: &Config, filtered: bool) -> Vec<Step> {
    let reader = Reader::connect(&config.databases[0]).await.unwrap();
    let database = &config.databases[0];
    let journal = credkeeper::journal::JournalReader::open(&config.journal, &database.identity()).await.unwrap();
    // Late enough for min_interval, early enough for every PIN that was just issued.
    let utc = Timestamp(credkeeper::clock::now().0 + 600);
    let ask = Ask { filtered, ..Ask::full(PassKind::Once, utc) };
    let policies = config.policies.iter().map(|p| PolicyReport::new(p.name.clone())).collect();
    let mut report = Report::new(credkeeper::domain::PassId("p".into()), "main".into(), PassKind::Once, true, utc, policies);
    let watch = Watch { progress: &|_, _| {}, line: &|_| {}, committed: &Notify::new(), stop: &|| false };
    let looked = reconcile::look(&reader, journal.as_ref(), config, database, &ask, &mut report, &watch).await.unwrap();
    let mut steps = looked.plan.steps;
    steps.sort();
    steps
}

/// As many mails as PINs were planned for; each has exactly the headers that we write, and one recipient, whose address is
/// some user's own field.
fn mails_are_as_meant(outbox: &Path, planned: &[Step], people: &[Anybody]) -> Result<(), TestCaseError> {
    let addresses: BTreeSet<&str> = people.iter().flat_map(|p| [p.login.as_str(), p.email.as_str()]).collect();
    let files = std::fs::read_dir(outbox).map(|dir| dir.map(|e| e.unwrap().path()).collect::<Vec<_>>()).unwrap_or_default();
    prop_assert_eq!(files.len(), planned.iter().filter(|s| s.pin.is_some()).count(), "mails and planned PINs differ");
    for file in files {
        let mail = parse(&std::fs::read_to_string(file).unwrap());
        let mut names: Vec<String> = mail.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        let expected =
            ["auto-submitted", "content-transfer-encoding", "content-type", "date", "from", "message-id", "mime-version", "subject", "to"];
        prop_assert_eq!(names, expected);
        prop_assert!(addresses.contains(mail.to.as_str()), "{} is nobody's", mail.to);
    }
    Ok(())
}
