//! kill -9 while something is taken back: by itself, where a mail was refused, and by `undo`.

use std::collections::BTreeMap;

use credkeeper::fault::Point;

use crate::cases::{Cases, Kind};
use crate::crash::{OF_A_BATCH, OF_RECOVERY, killed_at};
use crate::scenario::{Scenario, Stage, USERS, ended};
use crate::site::Ended;

const SCENARIOS: [Scenario; 2] = [Scenario::Pin, Scenario::Everything];

/// Whom the mail server refuses.
fn refused(user: i64) -> bool {
    user % 3 == 0
}

/// With the mail server that refuses by the address, and what it refuses taken back.
async fn stage(scenario: Scenario) -> Stage {
    let stage =
        Stage::with_aiosmtpd(scenario).await.configured(|yaml| yaml.replace("on_undeliverable: keep", "on_undeliverable: take_back"));
    let addresses = "UPDATE users SET email = 'reject550.5.1.1@user' || id || '.example.com' WHERE id % 3 = 0 AND id <= 24";
    stage.site.sql(addresses).await;
    stage
}

/// What each user has: PINs with their ends, code and password.
async fn standing(stage: &Stage) -> BTreeMap<i64, String> {
    let rows = stage
        .site
        .rows(
            "SELECT u.id::text, coalesce(puk, '') || ' ' || coalesce(pass, '') || ' ' || coalesce((SELECT string_agg(card || ' ' ||
               date_trunc('second', pin_expiration_date)::text, ' ' ORDER BY card) FROM users_cards c WHERE c.user_id = u.id), '') FROM users u",
        )
        .await;
    rows.into_iter().map(|(user, has)| (user.parse().unwrap(), has)).collect()
}

/// Users on hold, and issuances by their states; what keeps a secret that it needs no more fails.
fn journal(stage: &Stage) -> (i64, BTreeMap<String, i64>) {
    let db = rusqlite::Connection::open(stage.journal_path()).unwrap();
    let held = db.query_row("SELECT count(*) FROM hold", [], |row| row.get(0)).unwrap();
    let secrets: i64 = db
        .query_row(
            "SELECT count(*) FROM issuance i JOIN batch b ON b.id = i.batch WHERE secret IS NOT NULL AND coalesce(i.state, b.state) NOT IN
               ('planned', 'committed', 'undeliverable')",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(secrets, 0, "a secret outlives its use");
    let mut states =
        db.prepare("SELECT coalesce(i.state, b.state), count(*) FROM issuance i JOIN batch b ON b.id = i.batch GROUP BY 1").unwrap();
    let states = states.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    (held, states.map(Result::unwrap).collect())
}

async fn at_rest(stage: &Stage, before: &BTreeMap<i64, String>, is_back: impl Fn(i64) -> bool) {
    let settled = stage.settle().await;
    assert_eq!(settled.code, 0, "{}", settled.all());
    let after = standing(stage).await;
    let changed = |user: i64| stage.scenario.told(user).is_some();
    for user in 1..=USERS {
        if is_back(user) || !changed(user) {
            assert_eq!(after[&user], before[&user], "user {user} has not what was there before");
        } else {
            assert_ne!(after[&user], before[&user], "user {user} has nothing new");
        }
    }
    let (held, states) = journal(stage);
    let back = (1..=USERS).filter(|user| is_back(*user) && changed(*user)).count() as i64;
    assert_eq!((held, states.get("taken_back")), (back, Some(&back)), "{states:?}");
    for open in ["planned", "committed", "undeliverable"] {
        assert_eq!(states.get(open), None, "{states:?}");
    }
    let (fingerprint, mails) = (stage.site.fingerprint().await, stage.mails().len());
    let again = ended(stage.start(&[], &["--once", "--format", "json"])).await;
    assert!(again.code == 0 && again.stdout.contains("\"unchanged\""), "{}", again.all());
    assert_eq!((stage.site.fingerprint().await, stage.mails().len()), (fingerprint, mails), "a second run does something");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_delivered() {
    let mut cases = Cases::new("crash: what could not be delivered is taken back");
    for scenario in SCENARIOS {
        for point in OF_A_BATCH {
            cases.add(format!("{scenario:?} at {} of the take-back", point.as_str()), Kind::Busy, async move {
                let stage = stage(scenario).await;
                let before = standing(&stage).await;
                // The first batch issues.
                killed_at(&stage, point, 2, &["--once"]).await;
                at_rest(&stage, &before, refused).await;
            });
        }
        for (first, second) in
            [Point::BatchPlanned, Point::BatchCommitted].into_iter().flat_map(|first| OF_RECOVERY.map(|second| (first, second)))
        {
            let name = format!("{scenario:?} at {} of the take-back, then at {}", first.as_str(), second.as_str());
            cases.add(name, Kind::Busy, async move {
                let stage = stage(scenario).await;
                let before = standing(&stage).await;
                killed_at(&stage, first, 2, &["--once"]).await;
                killed_at(&stage, second, 1, &["--once"]).await;
                at_rest(&stage, &before, refused).await;
            });
        }
    }
    cases.end().await;
}

fn pass_of(passed: &Ended) -> String {
    let report: serde_json::Value = serde_json::from_str(&passed.stdout).unwrap_or_else(|e| panic!("{e}: {}", passed.all()));
    report["pass"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_undone() {
    let mut cases = Cases::new("crash: undo");
    for scenario in SCENARIOS {
        for point in OF_A_BATCH {
            cases.add(format!("{scenario:?}, undo at {}", point.as_str()), Kind::Busy, async move {
                let stage = Stage::new(scenario).await;
                let before = standing(&stage).await;
                let passed = ended(stage.start(&[], &["--once", "--format", "json"])).await;
                assert_eq!(passed.code, 0, "{}", passed.all());
                let pass = pass_of(&passed);
                killed_at(&stage, point, 1, &["undo", &pass]).await;
                let undone = ended(stage.start(&[], &["undo", &pass])).await;
                let whole = undone.code == 0 && undone.stdout.contains("are taken back");
                let already = undone.code == 4 && undone.stderr.contains("nothing to take back");
                assert!(whole || already, "{}", undone.all());
                at_rest(&stage, &before, |_| true).await;
            });
        }
    }
    cases.end().await;
}
