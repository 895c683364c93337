//! What every dialect must do, asked of SQLite and of PostgreSQL in all the shapes that a site may have.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use credkeeper::domain::{CostCenterId, CostCenterRef, Pin, PinFormat, StoredValue, UserId, WallClock};
use credkeeper::inventory::{Membership, Standing};
use credkeeper::store::{AfterImage, Committed, DueFilter, Filter, InCostCenter, Move, Outcome, Store, UserChange, Wanted};
use futures_util::StreamExt;

use crate::bench::{Bench, LATER, LONG_AGO, NewUser, has_pin, ids, moved, named, new_pin, only_move, pin, read, stored, user, user_id};

/// Runs every case on a fresh set of users; the name of the case is printed, and shown when it fails.
macro_rules! every_case {
    ($bench:expr) => {
        every_case!(
            $bench,
            a_row_is_read_as_it_stands,
            standing_is_told_apart,
            filters_return_part_of_the_whole_and_the_same_rows,
            a_filter_that_nobody_meets_returns_nobody,
            reads_come_in_chunks,
            figures_and_places,
            a_pin_is_inserted_with_its_expiry_and_defaults,
            whoever_got_a_pin_meanwhile_is_left_alone,
            a_pin_that_stands_in_any_form_is_taken,
            two_users_of_a_batch_never_get_the_same_pin,
            an_expired_pin_is_replaced_in_place_and_what_is_not_mapped_lives,
            two_pins_and_duplicates_become_one,
            a_replacement_compares_all_that_was_named,
            a_move_compares_and_writes_both_halves,
            whoever_is_refused_a_pin_is_not_moved,
            a_move_that_misses_after_the_pin_tears_and_cannot_be_committed,
            dropping_rolls_back_and_frees_the_lock,
            one_batch_of_everything,
            who_is_gone_is_changed_meanwhile,
            what_landed_is_what_stands_whole,
            hostile_text_goes_in_and_out_unchanged,
            one_leads,
            the_clock_goes
        )
    };
    ($bench:expr, $($case:ident),+) => {{
        let bench = &$bench;
        $(
            eprintln!("case: {}", stringify!($case));
            bench.reset().await;
            $case(bench).await;
        )+
    }};
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    every_case!(Bench::sqlite().await);
}

#[cfg(unix)]
mod postgres {
    use super::*;
    use credkeeper::config::schema_map::{ExpiresKind, Zone};

    #[tokio::test]
    async fn postgres_keeps_the_contract() {
        every_case!(Bench::postgres().await);
    }

    /// Every name that is a guess, and some that are not.
    #[tokio::test]
    async fn postgres_keeps_the_contract_with_other_names() {
        let mut bench = Bench::postgres().await;
        bench
            .sql(
                "ALTER SCHEMA tenant_1 RENAME TO \"Tenant 2\"; SET search_path = \"Tenant 2\";
                 ALTER TABLE users RENAME TO people; ALTER TABLE people RENAME id TO person; ALTER TABLE people RENAME login TO \"User\";
                 ALTER TABLE people RENAME email TO \"select\"; ALTER TABLE people RENAME name TO \"First Name\";
                 ALTER TABLE people RENAME surname TO \"last\"\"name\"; ALTER TABLE people RENAME flag TO kind;
                 ALTER TABLE people RENAME ou_id TO center; ALTER TABLE people RENAME ou_number TO \"center$no\"; ALTER TABLE people RENAME source TO origin;
                 ALTER TABLE users_cards RENAME TO cards; ALTER TABLE cards DROP COLUMN id; ALTER TABLE cards RENAME user_id TO owner;
                 ALTER TABLE cards RENAME card TO \"Value\"; ALTER TABLE cards RENAME pin_expiration_date TO until;
                 ALTER TABLE ou RENAME TO \"cost centers\"; ALTER TABLE \"cost centers\" RENAME id TO key;
                 ALTER TABLE \"cost centers\" RENAME number TO no; ALTER TABLE \"cost centers\" RENAME name TO title;
                 ALTER TABLE people ALTER person TYPE integer; ALTER TABLE cards ALTER owner TYPE integer; ALTER TABLE people ALTER center TYPE numeric;
                 GRANT UPDATE (center, \"center$no\") ON people TO credkeeper",
            )
            .await;
        bench.config.schema = Some("Tenant 2".into());
        let map = &mut bench.config.map;
        let text = |name: &str| name.to_owned();
        (map.users.table, map.users.id, map.users.login) = (text("people"), text("person"), text("User"));
        (map.users.email, map.users.name, map.users.surname) = (text("select"), text("First Name"), text("last\"name"));
        map.users.source = Some(text("origin"));
        use credkeeper::config::schema_map::Test;
        map.users.is_user =
            Test::All(vec![Test::BitsSet { column: text("kind"), mask: 1 }, Test::BitsClear { column: text("kind"), mask: 49_152 }]);
        (map.cards.table, map.cards.user, map.cards.value) = (text("cards"), text("owner"), text("Value"));
        map.cards.expires.column = text("until");
        let centers = &mut map.cost_centers;
        (centers.table, centers.id, centers.number, centers.name) = (text("cost centers"), text("key"), text("no"), text("title"));
        (centers.member_id, centers.member_number) = (text("center"), Some(text("center$no")));
        // The bench writes the surname's column without escaping, so that one keeps a name without a quote.
        bench.sql("ALTER TABLE \"Tenant 2\".people RENAME \"last\"\"name\" TO lastname").await;
        bench.config.map.users.surname = text("lastname");
        every_case!(bench);
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
        every_case!(bench);
    }

    #[tokio::test]
    async fn postgres_keeps_the_contract_with_a_unique_card() {
        let bench = Bench::postgres().await;
        bench.sql("CREATE UNIQUE INDEX one_card ON tenant_1.users_cards (card) WHERE dual_pin IS DISTINCT FROM 'twice'").await;
        every_case!(bench);
        a_value_that_the_vendor_inserts_meanwhile_is_taken(&bench).await;
    }

    async fn of_type(kind: ExpiresKind, zone: Zone, alter: &str) {
        let mut bench = Bench::postgres().await;
        bench.sql(&format!("ALTER TABLE tenant_1.users_cards ALTER pin_expiration_date TYPE {alter}")).await;
        bench.config.map.cards.expires.kind = kind;
        bench.config.map.cards.expires.zone = zone;
        every_case!(bench);
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
        for (digits, end) in
            [("1111", "'infinity'"), ("2222", "'-infinity'"), ("3333", "'99999-01-01'"), ("4444", "'2026-05-01 10:00:00.999'")]
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
        bench.config.map.cost_centers.member_number = None;
        bench.config.map.users.source = None;
        bench.sql("ALTER TABLE tenant_1.users DROP COLUMN ou_number, DROP COLUMN source").await;
        bench.sql("GRANT UPDATE (ou_id) ON tenant_1.users TO credkeeper").await;
        bench.sql("INSERT INTO tenant_1.users (id, login, ou_id) VALUES (1, 'a', 11)").await;
        let store = bench.store().await;
        let found = user(store.reader(), 1).await;
        // The number is that of the cost center's own row.
        assert_eq!((found.cost_center.id.0, found.cost_center.number, found.source.clone()), (11, 100, None));
        let wanted = Wanted::from([CostCenterRef::Name("Has PIN".into())]);
        let places = store.reader().places(&wanted).await.unwrap();
        let to = places.get(&CostCenterRef::Name("Has PIN".into())).unwrap().clone();
        let mut change = new_pin(&found, "740218", None);
        change.cost_center = Some(Move { from: found.cost_center, to: to.clone() });
        assert_eq!(write(&store, &[change]).await, [Outcome::Applied]);
        let moved = user(store.reader(), 1).await;
        assert_eq!((moved.cost_center.id, moved.cost_center.number), (to.id, to.number));
        let image = AfterImage { user: user_id(1), pin: None, cost_center: Some(to) };
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
            let found = read(store.reader(), &due).await;
            assert_eq!(found.len(), 20_000);
            assert_eq!(read(store.reader(), &Filter::default()).await.len(), 20_000);
            assert_eq!(read(store.reader(), &Filter { above: Some(UserId(19_000)), ..due }).await.len(), 1000);
            assert_eq!(store.reader().counts().await.unwrap().pins, 10_000);
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
}

// ---- what each case needs ----

/// One batch from begin to commit.
async fn write(store: &Store, changes: &[UserChange]) -> Vec<Outcome> {
    let batch: Vec<UserId> = changes.iter().map(|c| c.user).collect();
    let (mut transaction, _) = store.begin(&batch).await.expect("begin");
    let outcomes = transaction.write(changes).await.expect("write");
    match transaction.commit().await {
        Committed::Yes => outcomes,
        other => panic!("{other:?} after {outcomes:?}"),
    }
}

fn image(change: &UserChange) -> AfterImage {
    AfterImage {
        user: change.user,
        pin: change.pin.as_ref().map(|p| (p.new.clone(), p.expires)),
        cost_center: change.cost_center.as_ref().map(|m| m.to.clone()),
    }
}

fn everything_due() -> DueFilter {
    DueFilter {
        without_pin: Some(InCostCenter::Any),
        expired_at: Some(WallClock(LATER - 86_400)),
        to_move: vec![(InCostCenter::Of(BTreeSet::from([11])), has_pin())],
    }
}

fn expiry(at: i64) -> Option<WallClock> {
    Some(WallClock(at))
}

// ---- the cases ----

async fn a_row_is_read_as_it_stands(bench: &Bench) {
    let plain = NewUser { center: (11, 100), ..NewUser::new(5, "jana") };
    let bare = NewUser { email: None, source: None, ..NewUser::new(6, "Jana") };
    bench.add_users(&[plain, bare]).await;
    bench.add_card(5, &pin("1234"), Some(LATER), "").await;
    bench.add_card(5, &pin("9999"), None, "").await;
    bench.add_card(5, "81dc9bdb52d04dc20036dbd8313ed055", None, "").await;
    bench.add_card(5, "04A1B2C3", None, "").await;
    let store = bench.store().await;
    let all = read(store.reader(), &Filter::default()).await;
    let jana = &all[0];
    assert_eq!((jana.id, jana.login.as_str(), jana.email.as_str()), (UserId(5), "jana", "5@example.com"));
    assert_eq!((jana.name.as_str(), jana.surname.as_str(), jana.standing), ("Jana", "Nováková", Standing::Active));
    assert_eq!(jana.cost_center, Membership { id: CostCenterId(11), number: 100 });
    assert_eq!(jana.source.as_deref(), Some("INTERNAL_DATABASE"));
    assert_eq!(jana.cards, 2, "what no PIN form explains is a card");
    let mut expected = vec![named(&pin("1234"), Some(LATER)), named(&pin("9999"), None)];
    expected.sort_by(|a, b| a.value.cmp(&b.value));
    assert_eq!(jana.pins, expected);
    let bare = &all[1];
    assert_eq!((bare.email.as_str(), bare.source.as_deref(), bare.pins.len(), bare.cards), ("", None, 0, 0));
}

async fn standing_is_told_apart(bench: &Bench) {
    bench
        .add_users(&[
            NewUser::new(1, "user"),
            NewUser { flag: 163_840, ..NewUser::new(2, "role") },
            NewUser { flag: 16_385, ..NewUser::new(3, "deleted") },
            NewUser::new(4, "template"),
            NewUser::new(5, "Template"),
            NewUser { flag: 0, ..NewUser::new(6, "nothing") },
        ])
        .await;
    let store = bench.store().await;
    let standing: Vec<Standing> = read(store.reader(), &Filter::default()).await.iter().map(|u| u.standing).collect();
    use Standing::{Active, NotAUser, Template};
    assert_eq!(standing, [Active, NotAUser, NotAUser, Template, Active, NotAUser], "a login is compared exactly");
    // Only real users are due or polled, but whoever is asked for by login is shown.
    let due = Filter { due: Some(everything_due()), ..Filter::default() };
    assert_eq!(ids(&read(store.reader(), &due).await), BTreeSet::from([1, 5]));
    let poll = Filter { above: Some(UserId(0)), ..Filter::default() };
    assert_eq!(ids(&read(store.reader(), &poll).await), BTreeSet::from([1, 5]));
    let login = |login: &str| Filter { login: Some(login.into()), ..Filter::default() };
    assert_eq!(ids(&read(store.reader(), &login("role")).await), BTreeSet::from([2]));
    assert_eq!(ids(&read(store.reader(), &login("template")).await), BTreeSet::from([4]));
    assert_eq!(ids(&read(store.reader(), &login("TEMPLATE")).await), BTreeSet::new());
    assert_eq!(store.reader().counts().await.unwrap().users, 2);
}

async fn filters_return_part_of_the_whole_and_the_same_rows(bench: &Bench) {
    let center = |id: i64, login: &str, center: (i64, i64)| NewUser { center, ..NewUser::new(id, login) };
    bench
        .add_users(&[
            center(1, "bare", (0, 0)),
            center(2, "bare-visitor", (11, 100)),
            center(3, "card-only", (11, 100)),
            center(4, "settled", (12, 200)),
            center(5, "expired", (12, 200)),
            center(6, "expires-now", (0, 0)),
            center(7, "one-of-two-expired", (0, 0)),
            center(8, "half-moved", (12, 100)),
            center(9, "with-pin-to-move", (11, 100)),
            center(10, "later", (0, 0)),
        ])
        .await;
    bench.add_card(3, "04A1B2C3", Some(LONG_AGO), "").await;
    bench.add_card(4, &pin("4444"), None, "").await;
    bench.add_card(5, &pin("5555"), Some(LONG_AGO), "").await;
    bench.add_card(6, &pin("6666"), Some(LATER), "").await;
    bench.add_card(7, &pin("7777"), Some(LONG_AGO), "").await;
    bench.add_card(7, &pin("7778"), None, "").await;
    bench.add_card(8, &pin("8888"), None, "").await;
    bench.add_card(9, &pin("9999"), Some(LATER + 86_400), "").await;
    bench.add_card(10, &pin("1010"), Some(LATER + 86_400), "").await;
    let store = bench.store().await;
    let all = read(store.reader(), &Filter::default()).await;
    let any_or = |center: Option<i64>| center.map_or(InCostCenter::Any, |c| InCostCenter::Of(BTreeSet::from([c])));
    let cases: [(&str, DueFilter, &[i64]); 8] = [
        ("no PIN", DueFilter { without_pin: Some(any_or(None)), ..DueFilter::default() }, &[1, 2, 3]),
        ("no PIN, one center", DueFilter { without_pin: Some(any_or(Some(11))), ..DueFilter::default() }, &[2, 3]),
        ("no PIN, no center", DueFilter { without_pin: Some(InCostCenter::Of(BTreeSet::new())), ..DueFilter::default() }, &[]),
        ("expired, up to and with that second", DueFilter { expired_at: expiry(LATER), ..DueFilter::default() }, &[5, 6, 7]),
        ("expired, the second before", DueFilter { expired_at: expiry(LATER - 1), ..DueFilter::default() }, &[5, 7]),
        ("to move", DueFilter { to_move: vec![(any_or(Some(11)), has_pin())], ..DueFilter::default() }, &[2, 3, 9]),
        ("half moved", DueFilter { to_move: vec![(any_or(Some(12)), has_pin())], ..DueFilter::default() }, &[8]),
        (
            "all of it",
            DueFilter { without_pin: Some(any_or(None)), expired_at: expiry(LATER), to_move: vec![(any_or(None), has_pin())] },
            &[1, 2, 3, 5, 6, 7, 8, 9, 10],
        ),
    ];
    for (name, due, expected) in cases {
        let found = read(store.reader(), &Filter { due: Some(due.clone()), ..Filter::default() }).await;
        assert_eq!(ids(&found), expected.iter().copied().collect(), "{name}");
        for user in &found {
            assert!(all.contains(user), "{name}: user {} is the same in the full read", user.id);
        }
        let polled = read(store.reader(), &Filter { due: Some(due), above: Some(UserId(4)), login: None }).await;
        assert_eq!(ids(&polled), expected.iter().copied().filter(|id| *id > 4).collect(), "{name}, polled");
        assert!(polled.iter().all(|user| all.contains(user)), "{name}, polled");
    }
    let one = read(store.reader(), &Filter { login: Some("one-of-two-expired".into()), ..Filter::default() }).await;
    assert_eq!(one, [all[6].clone()]);
}

async fn a_filter_that_nobody_meets_returns_nobody(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    for filter in [
        Filter { due: Some(DueFilter::default()), ..Filter::default() },
        Filter { above: Some(UserId(1)), ..Filter::default() },
        Filter { login: Some("nobody".into()), ..Filter::default() },
    ] {
        assert_eq!(read(store.reader(), &filter).await, []);
    }
}

async fn reads_come_in_chunks(bench: &Bench) {
    let people: Vec<NewUser> = (1..=2500).map(|id| NewUser::new(id, &format!("u{id}"))).collect();
    bench.add_users(&people).await;
    let store = bench.store().await;
    assert_eq!(read(store.reader(), &Filter::default()).await.len(), 2500);
    // Dropped after one chunk, again and again: no connection of the pool stays busy.
    for _ in 0..10 {
        let filter = Filter::default();
        let mut stream = store.reader().read(&filter);
        assert!(stream.next().await.is_some_and(|chunk| chunk.is_ok()));
    }
    assert_eq!(store.reader().counts().await.unwrap().users, 2500);
}

async fn figures_and_places(bench: &Bench) {
    let store = bench.store().await;
    assert_eq!(store.reader().counts().await.unwrap(), credkeeper::inventory::Counts::default());
    bench.add_users(&[NewUser::new(7, "a"), NewUser { flag: 32_768, ..NewUser::new(9, "role") }]).await;
    bench.add_card(7, &pin("1234"), None, "").await;
    bench.add_card(7, "04A1B2C3", None, "").await;
    let counts = store.reader().counts().await.unwrap();
    assert_eq!((counts.users, counts.pins, counts.newest), (1, 1, 9));
    let name = |name: &str| CostCenterRef::Name(name.into());
    let wanted =
        BTreeSet::from([name("Has PIN"), name("has pin"), name("' OR 1=1 --"), CostCenterRef::Number(100), CostCenterRef::Number(7)]);
    let places = store.reader().places(&wanted).await.unwrap();
    assert_eq!(places.get(&name("Has PIN")), Some(&has_pin()));
    assert_eq!(places.get(&CostCenterRef::Number(100)).map(|c| c.name.as_str()), Some("Needs PIN"));
    let absent: Vec<_> = places.0.iter().filter(|(_, found)| found.is_none()).map(|(wanted, _)| wanted).collect();
    assert_eq!(absent.len(), 3, "{absent:?}");
    assert_eq!(places.0.len(), 5);
}

async fn a_pin_is_inserted_with_its_expiry_and_defaults(bench: &Bench) {
    bench.add_users(&[NewUser::new(1, "a"), NewUser::new(2, "b")]).await;
    bench.add_card(1, "04A1B2C3", None, "mine").await;
    let store = bench.store().await;
    let (mut transaction, users) = store.begin(&[user_id(1), user_id(2), user_id(2)]).await.unwrap();
    assert_eq!(ids(&users), BTreeSet::from([1, 2]));
    assert_eq!(users.len(), 2, "nobody twice");
    let find = |id: i64| users.iter().find(|u| u.id.0 == id).unwrap();
    let changes = [new_pin(find(2), "740218", None), new_pin(find(1), "001234", Some(LATER))];
    assert_eq!(transaction.write(&changes).await.unwrap(), [Outcome::Applied, Outcome::Applied]);
    assert!(bench.cards(2).await.is_empty(), "not visible before the commit");
    assert!(matches!(transaction.commit().await, Committed::Yes));
    let row = bench.cards(2).await;
    let text = |t: &str| Some(t.to_owned());
    assert_eq!(row, [vec![Some(pin("740218")), None, None, text("0"), text("0")]]);
    let read_back = user(store.reader(), 1).await;
    assert_eq!(read_back.pins, [named(&pin("001234"), Some(LATER))]);
    assert_eq!(read_back.cards, 1, "the card is untouched");
    assert!(bench.cards(1).await.contains(&vec![text("04A1B2C3"), None, text("mine"), text("7"), text("8")]));
}

async fn whoever_got_a_pin_meanwhile_is_left_alone(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    bench.add_card(1, &pin("5555"), Some(LONG_AGO), "theirs").await;
    assert_eq!(write(&store, &[new_pin(&seen, "740218", None)]).await, [Outcome::ChangedMeanwhile]);
    assert_eq!(bench.card_values(1).await, [pin("5555")]);
}

async fn a_pin_that_stands_in_any_form_is_taken(bench: &Bench) {
    let forms = PinFormat::every_form(&Pin::new("740218".into()));
    for form in &forms {
        bench.reset().await;
        bench.add_users(&[NewUser::new(1, "a"), NewUser::new(2, "b"), NewUser::new(3, "c")]).await;
        bench.add_card(1, form.expose(), None, "").await;
        bench.add_card(3, &pin("3333"), Some(LONG_AGO), "").await;
        let store = bench.store().await;
        let (mut transaction, users) = store.begin(&[user_id(2), user_id(3)]).await.unwrap();
        let find = |id: i64| users.iter().find(|u| u.id.0 == id).unwrap();
        for id in [2, 3] {
            let change = moved(new_pin(find(id), "740218", None), find(id).cost_center, has_pin());
            assert_eq!(transaction.write(&[change]).await.unwrap(), [Outcome::PinTaken]);
        }
        // Drawn again in the same transaction.
        let again = [new_pin(find(2), "918273", None), new_pin(find(3), "918274", None)];
        assert_eq!(transaction.write(&again).await.unwrap(), [Outcome::Applied, Outcome::Applied]);
        assert!(matches!(transaction.commit().await, Committed::Yes));
        assert_eq!(bench.card_values(2).await, [pin("918273")]);
        assert_eq!(bench.card_values(3).await, [pin("918274")]);
        assert_eq!(bench.card_values(1).await, [form.expose()]);
        assert_eq!((bench.center(2).await, bench.center(3).await), ((0, 0), (0, 0)));
    }
}

async fn two_users_of_a_batch_never_get_the_same_pin(bench: &Bench) {
    bench.add_users(&[NewUser::new(1, "a"), NewUser::new(2, "b"), NewUser::new(3, "c")]).await;
    bench.add_card(3, &pin("3333"), Some(LONG_AGO), "").await;
    let store = bench.store().await;
    let users = read(store.reader(), &Filter::default()).await;
    let changes: Vec<UserChange> = users.iter().map(|u| new_pin(u, "740218", None)).collect();
    assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::PinTaken, Outcome::PinTaken]);
    assert_eq!(bench.card_values(1).await, [pin("740218")]);
    assert_eq!(bench.card_values(3).await, [pin("3333")]);
    // One user twice in a batch: the second change does not fight the first.
    let seen = user(store.reader(), 2).await;
    let twice = [new_pin(&seen, "918273", None), new_pin(&seen, "918274", None)];
    assert_eq!(write(&store, &twice).await, [Outcome::Applied, Outcome::ChangedMeanwhile]);
    assert_eq!(bench.card_values(2).await, [pin("918273")]);
}

async fn an_expired_pin_is_replaced_in_place_and_what_is_not_mapped_lives(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    bench.add_card(1, &pin("1111"), Some(LONG_AGO), "unmapped").await;
    bench.add_card(1, "04A1B2C3", Some(LONG_AGO), "card").await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    assert_eq!(write(&store, &[new_pin(&seen, "740218", Some(LATER))]).await, [Outcome::Applied]);
    let rows = bench.cards(1).await;
    let text = |t: &str| Some(t.to_owned());
    let ours = rows.iter().find(|row| row[0] == Some(pin("740218"))).expect("the new PIN");
    assert_eq!(ours[2..], [text("unmapped"), text("7"), text("8")]);
    assert!(rows.iter().any(|row| row[0] == text("04A1B2C3") && row[2] == text("card")));
    assert_eq!(rows.len(), 2);
    assert_eq!(user(store.reader(), 1).await.pins, [named(&pin("740218"), Some(LATER))]);
    // Back to never.
    let seen = user(store.reader(), 1).await;
    assert_eq!(write(&store, &[new_pin(&seen, "918273", None)]).await, [Outcome::Applied]);
    assert_eq!(user(store.reader(), 1).await.pins, [named(&pin("918273"), None)]);
}

async fn two_pins_and_duplicates_become_one(bench: &Bench) {
    bench.add_users(&[NewUser::new(1, "two"), NewUser::new(2, "same"), NewUser::new(3, "other")]).await;
    bench.add_card(1, &pin("1111"), Some(LONG_AGO), "").await;
    bench.add_card(1, &pin("1112"), None, "").await;
    for _ in 0..3 {
        bench.add_card(2, &pin("2222"), Some(LONG_AGO), "twice").await;
    }
    bench.add_card(2, &pin("2222"), None, "twice").await;
    bench.add_card(3, &pin("3333"), None, "").await;
    let store = bench.store().await;
    let users = read(store.reader(), &Filter::default()).await;
    assert_eq!(users[1].pins.len(), 4, "duplicates count");
    // Named once less than they stand there: not what was planned.
    let mut short = new_pin(&users[1], "740218", None);
    if let Some(pin) = &mut short.pin {
        pin.old.pop();
    }
    assert_eq!(write(&store, &[short]).await, [Outcome::ChangedMeanwhile]);
    assert_eq!(bench.card_values(2).await.len(), 4);
    let changes = [new_pin(&users[0], "740218", Some(LATER)), new_pin(&users[1], "740219", None)];
    assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::Applied]);
    assert_eq!(bench.card_values(1).await, [pin("740218")]);
    assert_eq!(bench.card_values(2).await, [pin("740219")]);
    assert_eq!(bench.card_values(3).await, [pin("3333")]);
}

async fn a_replacement_compares_all_that_was_named(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    bench.add_card(1, &pin("1111"), Some(LONG_AGO), "").await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    let with_old = |old| {
        let mut change = new_pin(&seen, "740218", None);
        if let Some(pin) = &mut change.pin {
            pin.old = old;
        }
        change
    };
    for (old, why) in [
        (vec![named(&pin("1112"), Some(LONG_AGO))], "another value"),
        (vec![named(&pin("1111"), Some(LATER))], "another expiry"),
        (vec![named(&pin("1111"), None)], "no expiry"),
        (vec![named(&pin("1111"), Some(LONG_AGO)), named(&pin("1112"), None)], "one that is gone"),
        (vec![named(&pin("1111"), Some(LONG_AGO)); 2], "once too often"),
        (vec![], "none, but there is one"),
    ] {
        assert_eq!(write(&store, &[with_old(old)]).await, [Outcome::ChangedMeanwhile], "{why}");
        assert_eq!(bench.card_values(1).await, [pin("1111")], "{why}");
    }
    assert_eq!(write(&store, &[with_old(seen.pins.clone())]).await, [Outcome::Applied]);
}

async fn a_move_compares_and_writes_both_halves(bench: &Bench) {
    let center = |id: i64, center: (i64, i64)| NewUser { center, ..NewUser::new(id, &format!("u{id}")) };
    bench.add_users(&[center(1, (11, 100)), center(2, (11, 100)), center(3, (12, 100)), center(4, (11, 100))]).await;
    let store = bench.store().await;
    let users = read(store.reader(), &Filter::default()).await;
    bench
        .sql(&format!(
            "UPDATE {} SET \"{}\" = 12 WHERE \"{}\" = 2",
            bench.table(&bench.config.map.users.table),
            bench.config.map.cost_centers.member_id,
            bench.config.map.users.id
        ))
        .await;
    let changes: Vec<UserChange> = users[..3].iter().map(|u| only_move(u, has_pin())).collect();
    assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::ChangedMeanwhile, Outcome::Applied]);
    let centers = [bench.center(1).await, bench.center(2).await, bench.center(3).await, bench.center(4).await];
    assert_eq!(centers, [(12, 200), (12, 100), (12, 200), (11, 100)]);
}

async fn whoever_is_refused_a_pin_is_not_moved(bench: &Bench) {
    let center = |id: i64| NewUser { center: (11, 100), ..NewUser::new(id, &format!("u{id}")) };
    bench.add_users(&[center(1), center(2), center(3), center(4)]).await;
    let store = bench.store().await;
    let users = read(store.reader(), &Filter::default()).await;
    bench.add_card(1, &pin("1111"), None, "").await;
    bench.add_card(4, &pin("740219"), None, "").await;
    let change = |i: usize, digits: &str| moved(new_pin(&users[i], digits, None), users[i].cost_center, has_pin());
    let outcomes = write(&store, &[change(0, "740218"), change(1, "740219"), change(2, "740220")]).await;
    assert_eq!(outcomes, [Outcome::ChangedMeanwhile, Outcome::PinTaken, Outcome::Applied]);
    let centers = [bench.center(1).await, bench.center(2).await, bench.center(3).await];
    assert_eq!(centers, [(11, 100), (11, 100), (12, 200)]);
    assert_eq!(bench.card_values(2).await, Vec::<String>::new());
}

async fn a_move_that_misses_after_the_pin_tears_and_cannot_be_committed(bench: &Bench) {
    bench.add_user(NewUser { center: (11, 100), ..NewUser::new(1, "a") }).await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    let elsewhere = Membership { id: CostCenterId(11), number: 999 };
    let (mut transaction, _) = store.begin(&[user_id(1)]).await.unwrap();
    let change = moved(new_pin(&seen, "740218", None), elsewhere, has_pin());
    assert_eq!(transaction.write(&[change]).await.unwrap(), [Outcome::Torn]);
    assert!(matches!(transaction.commit().await, Committed::Refused(_)));
    assert_eq!(bench.card_values(1).await, Vec::<String>::new());
    assert_eq!(bench.center(1).await, (11, 100));
    // And the lock is free again.
    assert_eq!(write(&store, &[new_pin(&seen, "740218", None)]).await, [Outcome::Applied]);
}

async fn dropping_rolls_back_and_frees_the_lock(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    for _ in 0..3 {
        let (mut transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
        let change = moved(new_pin(&users[0], "740218", None), users[0].cost_center, has_pin());
        assert_eq!(transaction.write(&[change]).await.unwrap(), [Outcome::Applied]);
        drop(transaction);
    }
    assert_eq!(
        store.landed(&[AfterImage { user: user_id(1), pin: Some((stored("740218"), None)), cost_center: None }]).await.unwrap(),
        [false]
    );
    assert_eq!(bench.card_values(1).await, Vec::<String>::new());
    assert_eq!(bench.center(1).await, (0, 0));
}

async fn one_batch_of_everything(bench: &Bench) {
    let center = |id: i64| NewUser { center: (11, 100), ..NewUser::new(id, &format!("u{id}")) };
    let people: Vec<NewUser> = (1..=300).map(center).collect();
    bench.add_users(&people).await;
    for id in (1..=300).filter(|id| id % 3 == 0) {
        bench.add_card(id, &pin(&format!("1{id:05}")), Some(LONG_AGO), "").await;
    }
    let store = bench.store().await;
    let batch: Vec<UserId> = (1..=300).map(user_id).collect();
    let (mut transaction, users) = store.begin(&batch).await.unwrap();
    let changes: Vec<UserChange> = users
        .iter()
        .map(|u| match u.id.0 % 3 {
            1 => only_move(u, has_pin()),
            _ => moved(new_pin(u, &format!("2{:05}", u.id.0), Some(LATER)), u.cost_center, has_pin()),
        })
        .collect();
    assert!(transaction.write(&changes).await.unwrap().iter().all(|o| *o == Outcome::Applied));
    assert!(transaction.write(&[]).await.unwrap().is_empty());
    assert!(matches!(transaction.commit().await, Committed::Yes));
    let images: Vec<AfterImage> = changes.iter().map(image).collect();
    assert!(store.landed(&images).await.unwrap().iter().all(|landed| *landed));
    assert!(store.reader().present(&images).await.unwrap().iter().all(|there| *there));
    let due = DueFilter { without_pin: None, ..everything_due() };
    assert_eq!(read(store.reader(), &Filter { due: Some(due), ..Filter::default() }).await, []);
    assert_eq!(store.reader().counts().await.unwrap().pins, 200);
}

async fn who_is_gone_is_changed_meanwhile(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    bench.reset().await;
    let (mut transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
    assert_eq!(users, []);
    assert_eq!(transaction.write(&[new_pin(&seen, "740218", None)]).await.unwrap(), [Outcome::ChangedMeanwhile]);
    assert_eq!(transaction.write(&[only_move(&seen, has_pin())]).await.unwrap(), [Outcome::ChangedMeanwhile]);
    assert!(matches!(transaction.commit().await, Committed::Yes));
    let gone = AfterImage { user: user_id(1), pin: None, cost_center: None };
    assert_eq!(store.landed(&[gone]).await.unwrap(), [false]);
}

async fn what_landed_is_what_stands_whole(bench: &Bench) {
    bench.add_users(&[NewUser { center: (12, 200), ..NewUser::new(1, "a") }, NewUser { center: (12, 100), ..NewUser::new(2, "b") }]).await;
    bench.add_card(1, &pin("1111"), Some(LATER), "").await;
    bench.add_card(1, &pin("1112"), None, "").await;
    bench.add_card(2, &pin("2222"), None, "").await;
    let store = bench.store().await;
    let look = |user: i64, pin: Option<(&str, Option<i64>)>, center: bool| AfterImage {
        user: user_id(user),
        pin: pin.map(|(digits, end)| (stored(digits), end.map(WallClock))),
        cost_center: center.then(has_pin),
    };
    let images = [
        (look(1, Some(("1111", Some(LATER))), true), true, "all of it"),
        (look(1, Some(("1112", None)), false), true, "the PIN without an expiry"),
        (look(1, None, true), true, "the move"),
        (look(1, Some(("1111", None)), true), false, "another expiry"),
        (look(1, Some(("1112", Some(LATER))), true), false, "an expiry where none is"),
        (look(1, Some(("1113", None)), true), false, "another PIN"),
        (look(1, Some(("2222", None)), true), false, "the PIN of another user"),
        (look(2, Some(("2222", None)), true), false, "half of the move"),
        (look(2, Some(("2222", None)), false), true, "no move asked for"),
        (look(3, None, true), false, "nobody"),
    ];
    let wanted: Vec<AfterImage> = images.iter().map(|(image, ..)| image.clone()).collect();
    let (landed, present) = (store.landed(&wanted).await.unwrap(), store.reader().present(&wanted).await.unwrap());
    for (i, (_, expected, why)) in images.iter().enumerate() {
        assert_eq!((landed[i], present[i]), (*expected, *expected), "{why}");
    }
    assert_eq!(store.landed(&[]).await.unwrap(), Vec::<bool>::new());
}

async fn hostile_text_goes_in_and_out_unchanged(bench: &Bench) {
    let texts = [
        "O'Neil",
        "\"quoted\"",
        "back\\slash",
        "'; DROP TABLE users; --",
        "$1",
        "?1 :a @b",
        "%_*",
        "tab\tand\nline\r\n",
        "\u{1}\u{7f}\u{85}",
        "žluťoučký 🐎 ‏עברית",
        "e\u{301}",
        " blanks ",
        "{1,2}",
        "NULL",
        "[]",
    ];
    let people: Vec<NewUser> = texts
        .iter()
        .zip(1..)
        .map(|(text, id)| NewUser {
            email: Some((*text).into()),
            name: (*text).into(),
            surname: (*text).into(),
            source: Some((*text).into()),
            ..NewUser::new(id, text)
        })
        .collect();
    bench.add_users(&people).await;
    for (text, id) in texts.iter().zip(1..) {
        bench.add_card(id, text, None, text).await;
    }
    let store = bench.store().await;
    let all = read(store.reader(), &Filter::default()).await;
    for (text, user) in texts.iter().zip(&all) {
        for field in [&user.login, &user.email, &user.name, &user.surname] {
            assert_eq!(field, text);
        }
        assert_eq!(user.source.as_deref(), Some(*text));
        assert_eq!(user.cards, 1);
        let found = read(store.reader(), &Filter { login: Some((*text).into()), ..Filter::default() }).await;
        assert_eq!(found, std::slice::from_ref(user), "{text:?}");
    }
    // A stored value can be anything too.
    let mut change = new_pin(&all[0], "740218", None);
    if let Some(pin) = &mut change.pin {
        pin.new = StoredValue::new("'); DELETE FROM users; -- \\ $1 ž".into());
    }
    assert_eq!(write(&store, &[change]).await, [Outcome::Applied]);
    assert!(bench.card_values(1).await.contains(&"'); DELETE FROM users; -- \\ $1 ž".to_owned()));
    assert_eq!(read(store.reader(), &Filter::default()).await.len(), texts.len());
}

async fn one_leads(bench: &Bench) {
    let (one, two) = (bench.store().await, bench.store().await);
    let held = one.lead().await.unwrap().expect("nobody leads yet");
    held.verify().await.unwrap();
    assert!(two.lead().await.unwrap().is_none());
    // Leading is not writing: the other may still write.
    bench.add_user(NewUser::new(1, "a")).await;
    let seen = user(two.reader(), 1).await;
    assert_eq!(write(&two, &[new_pin(&seen, "740218", None)]).await, [Outcome::Applied]);
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(5);
    while two.lead().await.unwrap().is_none() {
        assert!(Instant::now() < deadline, "a server lets go soon after the session has gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn the_clock_goes(bench: &Bench) {
    let store = bench.store().await;
    let now = store.reader().clock().await.unwrap().0;
    let utc = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    // A wall clock is at most 14 hours from UTC, and UTC itself is told to the second.
    let zone = bench.config.map.cards.expires.zone;
    let allowed = if zone == credkeeper::config::schema_map::Zone::Utc { 5 } else { 14 * 3600 + 5 };
    assert!((now - utc).abs() <= allowed, "{now} is not near {utc}");
}
