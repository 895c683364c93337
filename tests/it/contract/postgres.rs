//! The contract in the shapes that a PostgreSQL site may have, and what only PostgreSQL can show.

use credkeeper::store::Move;

use super::*;
use credkeeper::config::schema_map::{ExpiresKind, Member, Zone};

#[tokio::test]
async fn postgres_keeps_the_contract() {
    every_case(&Bench::postgres().await).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract_with_other_names() {
    every_case(&other_names().await).await;
}

/// Every name that is a guess another one, and some that are not.
pub(super) async fn other_names() -> Bench {
    let mut bench = Bench::postgres().await;
    bench
        .sql(
            "ALTER SCHEMA tenant_1 RENAME TO \"Tenant 2\"; SET search_path = \"Tenant 2\";
             ALTER TABLE users RENAME TO people; ALTER TABLE people RENAME id TO person; ALTER TABLE people RENAME login TO \"User\";
             ALTER TABLE people RENAME email TO \"select\"; ALTER TABLE people RENAME name TO \"First Name\";
             ALTER TABLE people RENAME surname TO \"last\"\"name\"; ALTER TABLE people RENAME flag TO kind;
             ALTER TABLE people RENAME ou_id TO center; ALTER TABLE people RENAME ou_number TO \"center$no\"; ALTER TABLE people RENAME source TO origin;
             ALTER TABLE people RENAME pass TO \"secret word\"; ALTER TABLE people RENAME puk TO \"CAC\";
             ALTER TABLE users_cards RENAME TO cards; ALTER TABLE cards DROP COLUMN id; ALTER TABLE cards RENAME user_id TO owner;
             ALTER TABLE cards RENAME card TO \"Value\"; ALTER TABLE cards RENAME pin_expiration_date TO until;
             ALTER TABLE ou RENAME TO \"cost centers\"; ALTER TABLE \"cost centers\" RENAME id TO key;
             ALTER TABLE \"cost centers\" RENAME number TO no; ALTER TABLE \"cost centers\" RENAME name TO title;
             ALTER TABLE people ALTER person TYPE integer; ALTER TABLE cards ALTER owner TYPE integer; ALTER TABLE people ALTER center TYPE numeric;
             GRANT UPDATE (center, \"center$no\", \"secret word\", \"CAC\") ON people TO credkeeper",
        )
        .await;
    bench.config.schema = Some("Tenant 2".into());
    let map = &mut bench.config.map;
    let text = |name: &str| name.to_owned();
    (map.users.table, map.users.id, map.users.login) = (text("people"), text("person"), text("User"));
    (map.users.email, map.users.name, map.users.surname) = (text("select"), text("First Name"), text("last\"name"));
    map.users.source = Some(text("origin"));
    map.users.password = Some(text("secret word"));
    map.users.puk = Some(GuessedColumn { column: text("CAC"), verified: true });
    use credkeeper::config::schema_map::{GuessedColumn, Test};
    map.users.is_user =
        Test::All(vec![Test::BitsSet { column: text("kind"), mask: 1 }, Test::BitsClear { column: text("kind"), mask: 49_152 }]);
    (map.cards.table, map.cards.user, map.cards.value) = (text("cards"), text("owner"), text("Value"));
    map.cards.expires.column = text("until");
    let centers = &mut map.cost_centers;
    (centers.table, centers.id, centers.number, centers.name) = (text("cost centers"), text("key"), text("no"), text("title"));
    centers.member = Member::Column { id: text("center"), number: Some(text("center$no")) };
    // The bench writes the surname's column without escaping, so that one keeps a name without a quote.
    bench.sql("ALTER TABLE \"Tenant 2\".people RENAME \"last\"\"name\" TO lastname").await;
    bench.config.map.users.surname = text("lastname");
    bench
}

#[tokio::test]
async fn postgres_keeps_the_contract_without_any_index() {
    let bench = Bench::postgres().await;
    bench
        .sql(
            "SET search_path = tenant_1; DROP INDEX users_login_idx; DROP INDEX users_cards_card_idx;
             ALTER TABLE users_cards DROP CONSTRAINT users_cards_pkey; ALTER TABLE users_cards DROP CONSTRAINT users_cards_user_id_fkey;
             ALTER TABLE users_aliases DROP CONSTRAINT users_aliases_user_id_fkey;
             DROP TABLE users_roles; ALTER TABLE users DROP CONSTRAINT users_pkey",
        )
        .await;
    every_case(&bench).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract_with_a_unique_card() {
    let bench = Bench::postgres().await;
    bench.sql("CREATE UNIQUE INDEX one_card ON tenant_1.users_cards (card) WHERE dual_pin IS DISTINCT FROM 'twice'").await;
    every_case(&bench).await;
    a_value_that_the_vendor_inserts_meanwhile_is_taken(&bench).await;
}

async fn of_type(kind: ExpiresKind, zone: Zone, alter: &str) {
    let mut bench = Bench::postgres().await;
    bench.sql(&format!("ALTER TABLE tenant_1.users_cards ALTER pin_expiration_date TYPE {alter}")).await;
    bench.config.map.cards.expires.kind = kind;
    bench.config.map.cards.expires.zone = zone;
    every_case(&bench).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract_with_timestamps_in_utc() {
    of_type(ExpiresKind::Timestamp, Zone::Utc, "timestamp").await;
}

#[tokio::test]
async fn postgres_keeps_the_contract_with_moments() {
    of_type(ExpiresKind::Timestamptz, Zone::Local, "timestamptz").await;
    of_type(ExpiresKind::Timestamptz, Zone::Utc, "timestamptz").await;
}

#[tokio::test]
async fn postgres_keeps_the_contract_with_dates() {
    of_type(ExpiresKind::Date, Zone::Local, "date").await;
}

#[tokio::test]
async fn postgres_keeps_the_contract_with_seconds() {
    of_type(ExpiresKind::EpochSeconds, Zone::Local, "bigint USING NULL").await;
    of_type(ExpiresKind::EpochSeconds, Zone::Utc, "bigint USING NULL").await;
}

#[tokio::test]
async fn postgres_keeps_the_contract_with_milliseconds() {
    of_type(ExpiresKind::EpochMillis, Zone::Local, "bigint USING NULL").await;
    of_type(ExpiresKind::EpochMillis, Zone::Utc, "bigint USING NULL").await;
}

/// With a unique index the insert waits for the vendor's open transaction and then gives way.
async fn a_value_that_the_vendor_inserts_meanwhile_is_taken(bench: &Bench) {
    bench.reset().await;
    bench.add_users(&[NewUser::new(1, "a"), NewUser::new(2, "b")]).await;
    let store = bench.store().await;
    let (mut transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
    let change = new_pin(&users[0], "740218", None);
    let columns = "user_id, card, replicated_card, replicated_card_flag";
    let insert = format!("BEGIN; INSERT INTO tenant_1.users_cards ({columns}) VALUES (2, '{}', 0, 0)", pin("740218"));
    bench.sql(&insert).await;
    let (outcomes, ()) = tokio::join!(transaction.write(std::slice::from_ref(&change)), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.sql("COMMIT").await;
    });
    assert_eq!(outcomes.unwrap(), [Outcome::PinTaken]);
    assert!(matches!(transaction.commit().await, Committed::Yes));
    assert_eq!(bench.card_values(1).await, Vec::<String>::new());
}

#[tokio::test]
async fn wild_expiries_do_not_stop_the_read() {
    let bench = Bench::postgres().await;
    bench.add_user(NewUser::new(1, "a")).await;
    for (digits, end) in [("1111", "'infinity'"), ("2222", "'-infinity'"), ("3333", "'99999-01-01'"), ("4444", "'2026-05-01 10:00:00.999'")]
    {
        bench
            .sql(&format!(
                "INSERT INTO tenant_1.users_cards (user_id, card, pin_expiration_date, replicated_card, replicated_card_flag)
                 VALUES (1, '{}', {end}, 0, 0)",
                pin(digits)
            ))
            .await;
    }
    let store = bench.store().await;
    let found = user(store.reader(), 1).await;
    let end = |digits: &str| found.pins.iter().find(|p| p.value == stored(digits)).unwrap().expires;
    assert_eq!(end("1111"), None);
    assert!(end("2222").unwrap() < WallClock(0));
    assert!(end("3333").unwrap() > WallClock(253_402_300_799));
    assert_eq!(end("4444"), Some(WallClock(1_777_629_600)), "whole seconds, rounded down");
    assert_eq!(write(&store, &[new_pin(&found, "740218", Some(i64::MAX))]).await, [Outcome::Applied]);
    assert_eq!(user(store.reader(), 1).await.pins[0].expires, Some(WallClock(253_402_300_799)));
}

#[tokio::test]
async fn a_pin_for_hours_in_a_date_column_is_not_born_expired() {
    let mut bench = Bench::postgres().await;
    bench.sql("ALTER TABLE tenant_1.users_cards ALTER pin_expiration_date TYPE date").await;
    bench.config.map.cards.expires.kind = ExpiresKind::Date;
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    let change = new_pin(&user(store.reader(), 1).await, "740218", Some(LATER + 12 * 3600));
    assert_eq!(write(&store, std::slice::from_ref(&change)).await, [Outcome::Applied]);
    assert_eq!(user(store.reader(), 1).await.pins[0].expires, Some(WallClock(LATER + 86_400)));
    assert_eq!(store.landed(&[image(&change)]).await.unwrap(), [true], "the rounded value is still ours");
}

#[tokio::test]
async fn an_hour_that_the_local_clock_skips_still_lands() {
    let mut bench = Bench::postgres().await;
    bench.sql("ALTER TABLE tenant_1.users_cards ALTER pin_expiration_date TYPE timestamptz").await;
    bench.config.map.cards.expires.kind = ExpiresKind::Timestamptz;
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    // 2027-03-28 02:30 does not exist in Prague.
    let change = new_pin(&user(store.reader(), 1).await, "740218", Some(1_806_201_000));
    assert_eq!(write(&store, std::slice::from_ref(&change)).await, [Outcome::Applied]);
    assert_eq!(store.landed(&[image(&change)]).await.unwrap(), [true]);
    let again = new_pin(&user(store.reader(), 1).await, "918273", None);
    assert_eq!(write(&store, &[again]).await, [Outcome::Applied], "and compares equal to what was read");
}

#[tokio::test]
async fn the_connections_default_schema_serves_when_none_is_named() {
    let bench = Bench::postgres().await;
    let name = match &bench.config.target {
        credkeeper::config::DatabaseTarget::Postgres { database, .. } => database.clone(),
        _ => unreachable!(),
    };
    bench.sql(&format!("ALTER ROLE credkeeper IN DATABASE {name} SET search_path = tenant_1")).await;
    let named = bench.store().await;
    bench.add_user(NewUser::new(1, "a")).await;
    let unnamed = Store::connect(&credkeeper::config::DatabaseConfig { schema: None, ..bench.config.clone() }).await.unwrap();
    assert_eq!(ids(&read(unnamed.reader(), &Filter::default()).await), BTreeSet::from([1]));
    // The lock is on the schema that is really used: one of the two leads.
    let held = named.lead().await.unwrap();
    assert!(held.is_some());
    assert!(unnamed.lead().await.unwrap().is_none());
}

#[tokio::test]
async fn safeq5_has_no_cost_center_number_and_is_read_all_the_same() {
    let mut bench = Bench::postgres().await;
    bench.config.map.cost_centers.member = Member::Column { id: "ou_id".into(), number: None };
    bench.config.map.users.source = None;
    bench.sql("ALTER TABLE tenant_1.users DROP COLUMN ou_number, DROP COLUMN source").await;
    bench.sql("GRANT UPDATE (ou_id) ON tenant_1.users TO credkeeper").await;
    bench.sql("INSERT INTO tenant_1.users (id, login, ou_id) VALUES (1, 'a', 11)").await;
    let store = bench.store().await;
    let found = user(store.reader(), 1).await;
    // The number is that of the cost center's own row.
    assert_eq!((found.cost_center.id.0, found.cost_center.number, found.source.clone()), (11, 100, None));
    let has_pin = CostCenterRef::Name("Has PIN".into());
    let places = store.reader().places(&Wanted { cost_centers: BTreeSet::from([has_pin.clone()]), ..Wanted::default() }).await.unwrap();
    let to = places.get(&has_pin).unwrap().clone();
    let mut change = new_pin(&found, "740218", None);
    change.cost_center = Some(Move { from: found.cost_center, to: to.clone() });
    assert_eq!(write(&store, &[change]).await, [Outcome::Applied]);
    let moved = user(store.reader(), 1).await;
    assert_eq!((moved.cost_center.id, moved.cost_center.number), (to.id, to.number));
    let image = AfterImage { cost_center: Some(to), ..AfterImage::of(user_id(1)) };
    assert_eq!(store.landed(&[image]).await.unwrap(), [true]);
}

#[tokio::test]
async fn the_write_lock_keeps_two_stores_apart() {
    let bench = Bench::postgres().await;
    bench.add_users(&[NewUser::new(1, "a"), NewUser::new(2, "b")]).await;
    let (one, two) = (bench.store().await, bench.store().await);
    let (mut first, users) = one.begin(&[user_id(1)]).await.unwrap();
    assert_eq!(first.write(&[new_pin(&users[0], "740218", None)]).await.unwrap(), [Outcome::Applied]);
    let second = async {
        let (mut second, users) = two.begin(&[user_id(2)]).await.unwrap();
        second.write(&[new_pin(&users[0], "740218", None)]).await.unwrap()
    };
    let (outcomes, ()) = tokio::join!(second, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(matches!(first.commit().await, Committed::Yes));
    });
    assert_eq!(outcomes, [Outcome::PinTaken], "the second sees what the first committed");
}

#[tokio::test]
async fn a_batch_costs_the_same_statements_for_10_users_and_for_1000() {
    let bench = Bench::postgres().await;
    let name = bench.rows("SELECT current_database()").await[0][0].clone().unwrap();
    bench.sql(&format!("ALTER DATABASE {name} SET log_statement = 'all'")).await;
    let store = bench.store().await;
    let mut counts = Vec::new();
    for (round, size) in [(0, 1), (1, 10), (2, 1000)] {
        bench.reset().await;
        let first = 1 + round * 10_000;
        let people: Vec<NewUser> = (first..first + size).map(|id| NewUser::new(id, &format!("u{id}"))).collect();
        bench.add_users(&people).await;
        // Half of them have a PIN to replace; all are moved.
        for part in people.chunks(2) {
            bench.add_card(part[0].id, &pin(&format!("{:08}", part[0].id)), Some(LONG_AGO), "").await;
        }
        let before = crate::pg::cluster().log_of(&name).len();
        let batch: Vec<UserId> = people.iter().map(|p| user_id(p.id)).collect();
        let (mut transaction, users) = store.begin(&batch).await.unwrap();
        let changes: Vec<UserChange> =
            users.iter().map(|u| moved(new_pin(u, &format!("7{:07}", u.id.0), Some(LATER)), u.cost_center, has_pin())).collect();
        let outcomes = transaction.write(&changes).await.unwrap();
        assert!(outcomes.iter().all(|o| *o == Outcome::Applied));
        assert!(matches!(transaction.commit().await, Committed::Yes));
        let log = crate::pg::cluster().log_of(&name);
        let statements = log[before..].iter().filter(|line| line.contains("execute ") || line.contains("statement: ")).count();
        counts.push(statements);
    }
    // Begin with its settings, lock, read; insert, replace, move; commit. The first round also looks at the tables.
    assert_eq!(counts[1], counts[2], "{counts:?}");
    assert!(counts[2] <= 10, "{counts:?}");
}

/// Statistics that know of empty tables, no index on the cards, and everybody due: every statement must still end soon.
#[tokio::test]
async fn stale_statistics_do_not_make_it_slow() {
    for indexed in [true, false] {
        let bench = Bench::postgres().await;
        if !indexed {
            bench.sql("DROP INDEX tenant_1.users_cards_card_idx; DROP INDEX tenant_1.users_login_idx").await;
        }
        // One row each, so that the statistics say so.
        bench.add_user(NewUser::new(1, "first")).await;
        bench.add_card(1, "card-1", None, "").await;
        bench.sql("VACUUM ANALYZE").await;
        bench
            .sql(
                "INSERT INTO tenant_1.users (id, login, ou_id, ou_number) SELECT i, 'u' || i, 11, 100 FROM generate_series(2, 20000) i;
                 INSERT INTO tenant_1.users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date)
                   SELECT i, CASE WHEN i % 2 = 0 THEN 'PIN' || md5(i::text) ELSE 'card' || i END, 0, 0,
                          CASE WHEN i % 4 = 0 THEN timestamp '2020-01-01' END FROM generate_series(2, 20000) i",
            )
            .await;
        let store = bench.store().await;
        let start = Instant::now();
        let due = Filter { due: Some(everything_due()), ..Filter::default() };
        let pinless = Pinless::default();
        let counted: Vec<_> = store.reader().read_counting(&due, &pinless).collect().await;
        assert_eq!((counted.len(), pinless.get()), (20, Some(&10_000)));
        let found = read(store.reader(), &due).await;
        assert_eq!(found.len(), 20_000);
        assert_eq!(read(store.reader(), &Filter::default()).await.len(), 20_000);
        assert_eq!(read(store.reader(), &Filter { above: Some(UserId(19_000)), ..due }).await.len(), 1000);
        let counts = store.reader().counts().await.unwrap();
        assert_eq!((counts.users, counts.pins), (20_000, 10_000));
        let mut images = Vec::new();
        for batch in found[..4000].chunks(1000) {
            let batch: Vec<UserId> = batch.iter().map(|u| u.id).collect();
            let (mut transaction, users) = store.begin(&batch).await.unwrap();
            let changes: Vec<UserChange> = users
                .iter()
                .map(|u| moved(new_pin(u, &format!("{:08}", 7_000_000 + u.id.0), Some(LATER)), u.cost_center, has_pin()))
                .collect();
            let outcomes = transaction.write(&changes).await.unwrap();
            assert!(outcomes.iter().all(|o| *o == Outcome::Applied));
            assert!(matches!(transaction.commit().await, Committed::Yes));
            images.extend(changes.iter().map(image));
        }
        assert!(store.landed(&images).await.unwrap().into_iter().all(|landed| landed));
        let took = start.elapsed();
        eprintln!("indexed: {indexed}, took {took:?}");
        assert!(took < Duration::from_secs(15), "took {took:?} (indexed: {indexed})");
    }
}
