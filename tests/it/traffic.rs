//! Sessions that break, servers that refuse, locks that are not given: what the store says, and that it goes on afterwards.

use std::time::{Duration, Instant};

use credkeeper::config::DatabaseTarget;
use credkeeper::store::{Committed, Filter, Outcome, Store};

use crate::bench::{Bench, NewUser, new_pin, pin, read, user, user_id, with_value};

/// Ends every session of credkeeper on this database, as an administrator or a restart would.
async fn cut(bench: &Bench) {
    bench
        .rows(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name = 'credkeeper' AND pid <> pg_backend_pid()",
        )
        .await;
}

#[tokio::test]
async fn a_session_that_was_cut_is_replaced() {
    let bench = Bench::postgres().await;
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    for digits in ["740218", "918273"] {
        let (mut transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
        assert_eq!(transaction.write(&[new_pin(&users[0], digits, None)]).await.unwrap(), [Outcome::Applied]);
        assert!(matches!(transaction.commit().await, Committed::Yes));
        assert_eq!(read(store.reader(), &Filter::default()).await.len(), 1);
        cut(&bench).await;
    }
    assert_eq!(bench.card_values(1).await, [pin("918273")]);
}

#[tokio::test]
async fn a_cut_inside_a_transaction_is_told_and_leaves_nothing() {
    let bench = Bench::postgres().await;
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    let (mut transaction, _) = store.begin(&[user_id(1)]).await.unwrap();
    assert_eq!(transaction.write(&[new_pin(&seen, "740218", None)]).await.unwrap(), [Outcome::Applied]);
    cut(&bench).await;
    // Nobody can know from here whether it stands.
    match transaction.commit().await {
        Committed::Unknown(error) => assert_eq!((error.kind(), error.is_transient()), ("connect", true)),
        other => panic!("{other:?}"),
    }
    let (mut transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
    assert!(users[0].pins.is_empty());
    cut(&bench).await;
    let error = transaction.write(&[new_pin(&seen, "740218", None)]).await.unwrap_err();
    assert_eq!(error.kind(), "connect");
    assert!(matches!(transaction.commit().await, Committed::Refused(_)), "COMMIT is not even sent");
}

#[tokio::test]
async fn a_leader_whose_session_was_cut_knows() {
    let bench = Bench::postgres().await;
    let store = bench.store().await;
    let held = store.lead().await.unwrap().unwrap();
    held.verify().await.unwrap();
    cut(&bench).await;
    assert_eq!(held.verify().await.unwrap_err().kind(), "connect");
    assert!(store.lead().await.unwrap().is_some());
}

#[tokio::test]
async fn a_lock_that_is_not_given_in_time_is_told() {
    let bench = Bench::postgres().await;
    bench.add_user(NewUser::new(1, "a")).await;
    let (one, two) = (bench.store().await, bench.store().await);
    let (transaction, _) = one.begin(&[user_id(1)]).await.unwrap();
    let start = Instant::now();
    let error = two.landed(&[credkeeper::store::AfterImage::of(user_id(1))]).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), ("lock_timeout", true));
    assert!((9..14).contains(&start.elapsed().as_secs()));
    drop(transaction);
    two.begin(&[user_id(1)]).await.unwrap();
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let bench = Bench::postgres().await;
    bench.sql("CREATE FUNCTION tenant_1.sneak() RETURNS boolean LANGUAGE sql AS 'UPDATE tenant_1.users SET ou_id = 99; SELECT true'").await;
    bench.sql("GRANT ALL ON ALL TABLES IN SCHEMA tenant_1 TO credkeeper").await;
    bench.add_user(NewUser::new(1, "a")).await;
    // A view in place of the table, which tries to write when it is read.
    bench
        .sql("ALTER TABLE tenant_1.users RENAME TO people; CREATE VIEW tenant_1.users AS SELECT * FROM tenant_1.people WHERE tenant_1.sneak();
              GRANT ALL ON tenant_1.users TO credkeeper")
        .await;
    let store = bench.store().await;
    for _ in 0..3 {
        // Also on a session that comes back from the pool.
        let error = store.reader().counts().await.unwrap_err();
        assert_eq!(error.kind(), "read_only");
    }
    assert_eq!(bench.rows("SELECT ou_id FROM tenant_1.people").await, [[Some("0".to_owned())]]);
}

/// The server's DETAIL quotes the row, and a trigger may say anything: none of it comes out.
#[tokio::test]
async fn no_error_quotes_a_stored_value() {
    let bench = Bench::postgres().await;
    bench
        .sql(
            "CREATE FUNCTION tenant_1.tell() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN RAISE EXCEPTION ''no %'', new.card USING DETAIL = new.card, HINT = new.card; END';
             CREATE TRIGGER tell BEFORE INSERT ON tenant_1.users_cards FOR EACH ROW EXECUTE FUNCTION tenant_1.tell();
             ALTER TABLE tenant_1.users_cards ADD CONSTRAINT short CHECK (length(card) < 40)",
        )
        .await;
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    let texts = async |change| {
        let (mut transaction, _) = store.begin(&[user_id(1)]).await.unwrap();
        let error = transaction.write(&[change]).await.unwrap_err();
        let mut text = format!("{error:?} {error}");
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(cause) = next {
            text += &format!(" {cause:?} {cause}");
            next = cause.source();
        }
        (error.kind(), text)
    };
    let (_, told) = texts(new_pin(&seen, "740218", None)).await;
    bench.sql("DROP TRIGGER tell ON tenant_1.users_cards").await;
    let long = "LEAK".repeat(20);
    let (kind, refused) = texts(with_value(new_pin(&seen, "740218", None), &long)).await;
    assert_eq!(kind, "constraint");
    let (_, cut) = texts(with_value(new_pin(&seen, "740218", None), &"LEAK".repeat(100))).await;
    for text in [told, refused, cut] {
        assert!(!text.contains("LEAK") && !text.contains(&pin("740218")[3..]), "{text}");
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_a_timeout() {
    let mut bench = Bench::postgres().await;
    bench.config.statement_timeout = Duration::from_millis(300);
    bench
        .sql(
            "ALTER TABLE tenant_1.users RENAME TO people; CREATE VIEW tenant_1.users AS SELECT p.* FROM tenant_1.people p, pg_sleep(3);
              GRANT SELECT ON tenant_1.users TO credkeeper",
        )
        .await;
    let store = bench.store().await;
    let error = store.reader().counts().await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), ("timeout", true));
}

#[tokio::test]
async fn whoever_is_refused_is_told_why() {
    let bench = Bench::postgres().await;
    let with = |user: &str, password: Option<&str>, database: Option<&str>, port: Option<u16>| {
        let mut config = bench.config.clone();
        if let DatabaseTarget::Postgres { hosts, database: db, user: u, password: p, .. } = &mut config.target {
            *u = user.into();
            *p = password.map(|p| credkeeper::domain::Secret::new(p.into()));
            if let Some(database) = database {
                *db = database.into();
            }
            hosts[0].1 = port.unwrap_or(hosts[0].1);
        }
        config
    };
    for (config, kind, transient) in [
        (with("locked", Some("wrong"), None, None), "auth", false),
        (with("locked", None, None, None), "auth", false),
        (with("stranger", None, None, None), "auth", false),
        (with("credkeeper", None, Some("nowhere"), None), "schema", false),
        (with("credkeeper", None, None, Some(1)), "connect", true),
    ] {
        let store = Store::connect(&config).await.expect("lazy");
        for error in [store.reader().clock().await.unwrap_err(), store.begin(&[]).await.err().unwrap(), store.lead().await.err().unwrap()] {
            assert_eq!((error.kind(), error.is_transient()), (kind, transient), "{error:?}");
            assert!(!format!("{error:?}").contains("wrong\""));
        }
    }
    let right = Store::connect(&with("locked", Some("right"), None, None)).await.unwrap();
    right.reader().clock().await.unwrap();
}

/// The first host is a port where nobody listens.
#[tokio::test]
async fn of_several_hosts_the_one_that_answers_serves() {
    let mut bench = Bench::postgres().await;
    if let DatabaseTarget::Postgres { hosts, .. } = &mut bench.config.target {
        hosts.insert(0, ("127.0.0.1".into(), 1));
    }
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    let (mut transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
    assert_eq!(transaction.write(&[new_pin(&users[0], "740218", None)]).await.unwrap(), [Outcome::Applied]);
    assert!(matches!(transaction.commit().await, Committed::Yes));
    assert_eq!(read(store.reader(), &Filter::default()).await[0].pins.len(), 1);
}
