//! The cases about reading, looking up and leading.

use super::*;

pub async fn a_row_is_read_as_it_stands(bench: &Bench) {
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

pub async fn standing_is_told_apart(bench: &Bench) {
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

pub async fn filters_return_part_of_the_whole_and_the_same_rows(bench: &Bench) {
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
    let cases: [(&str, DueFilter, &[i64]); 12] = [
        ("no PIN", DueFilter { without_pin: Some(any_or(None)), ..DueFilter::default() }, &[1, 2, 3]),
        ("no PIN, one center", DueFilter { without_pin: Some(any_or(Some(11))), ..DueFilter::default() }, &[2, 3]),
        ("no PIN, no center", DueFilter { without_pin: Some(InCostCenter::Of(BTreeSet::new())), ..DueFilter::default() }, &[]),
        ("expired, up to and with that second", DueFilter { expired_at: expiry(LATER), ..DueFilter::default() }, &[5, 6, 7]),
        ("expired, the second before", DueFilter { expired_at: expiry(LATER - 1), ..DueFilter::default() }, &[5, 7]),
        ("to move", DueFilter { to_move: vec![(any_or(Some(11)), has_pin())], ..DueFilter::default() }, &[2, 3, 9]),
        ("half moved", DueFilter { to_move: vec![(any_or(Some(12)), has_pin())], ..DueFilter::default() }, &[8]),
        ("a PIN without an end", DueFilter { unlimited_pin: true, ..DueFilter::default() }, &[4, 7, 8]),
        ("everybody in a center", DueFilter { everybody: Some(any_or(Some(12))), ..DueFilter::default() }, &[4, 5, 8]),
        ("everybody", DueFilter { everybody: Some(any_or(None)), ..DueFilter::default() }, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("these users", DueFilter { users: vec![UserId(4), UserId(10), UserId(99)], ..DueFilter::default() }, &[4, 10]),
        (
            "all of it",
            DueFilter {
                without_pin: Some(any_or(None)),
                expired_at: expiry(LATER),
                to_move: vec![(any_or(None), has_pin())],
                ..DueFilter::default()
            },
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

pub async fn a_filter_that_nobody_meets_returns_nobody(bench: &Bench) {
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

pub async fn reads_come_in_chunks(bench: &Bench) {
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

/// The figures and the search for users without a PIN ask SQL, the rows are judged in Rust.
pub async fn sql_and_rust_agree_on_what_a_pin_is(bench: &Bench) {
    let hex = "81dc9bdb52d04dc20036dbd8313ed055";
    let values = [
        format!("PIN{hex}"),
        hex.to_owned(),
        format!("PIN{}", hex.to_uppercase()),
        format!("pin{hex}"),
        format!("PIN{hex}\n"),
        format!("PIN{hex} "),
        format!("PIN{hex}0"),
        format!(" PIN{hex}"),
        format!("{}PIN", hex),
        format!("PINé{}", &hex[1..]),
        format!("PIN\\{}", &hex[1..]),
        format!("PIN{}g", &hex[1..]),
        format!("{}PIN{}", &hex[..16], &hex[16..]),
        "PIN".into(),
        "PIN1".into(),
        "PINPIN12".into(),
        "12PIN".into(),
        "PIN12345678901234567890".into(),
        "1".into(),
        "123456".into(),
        "1234567".into(),
        "12 34".into(),
        "١٢٣٤".into(),
        "12345\n".into(),
        String::new(),
    ];
    for (value, id) in values.iter().zip(1..) {
        bench.add_user(NewUser::new(id, &format!("u{id}"))).await;
        bench.add_card(id, value, None, "").await;
    }
    for format in [PinFormat::Md5, PinFormat::Md5WithoutPrefix, PinFormat::Prefix, PinFormat::Plain { max_length: 6 }] {
        let config = credkeeper::config::DatabaseConfig { pin_format: format, ..bench.config.clone() };
        let store = Store::connect(&config).await.unwrap();
        let is_pin: Vec<bool> = values.iter().map(|value| format.is_pin(value)).collect();
        let pins = is_pin.iter().filter(|is_pin| **is_pin).count();
        assert_eq!(store.reader().counts().await.unwrap().pins, u64::try_from(pins).unwrap(), "{format:?}");
        let due = DueFilter { without_pin: Some(InCostCenter::Any), ..DueFilter::default() };
        let bare = ids(&read(store.reader(), &Filter { due: Some(due), ..Filter::default() }).await);
        for ((value, is_pin), id) in values.iter().zip(is_pin).zip(1..) {
            assert_eq!(bare.contains(&id), !is_pin, "{format:?}: {value:?}");
        }
    }
}

/// Each figure against the rows themselves, judged in Rust.
pub async fn figures_tell_forms_lengths_and_who_has_no_pin(bench: &Bench) {
    let hash = |n: u32| pin(&n.to_string());
    let bare = |n: u32| hash(n).replacen("PIN", "", 1);
    let digits = |n: usize| "7".repeat(n);
    // By user: the values of the card column.
    let people: Vec<Vec<String>> = vec![
        vec![hash(1)],
        vec![hash(2), hash(3), "04A1B2C3".into()],
        vec![bare(4)],
        vec![bare(5), hash(6)],
        vec!["PIN1".into()],
        vec!["PIN123456".into(), "PIN654321".into()],
        vec![format!("PIN{}", digits(16)), format!("PIN{}", digits(17)), format!("PIN{}", digits(32))],
        vec![digits(4)],
        vec![digits(6), "123456".into()],
        vec![digits(7), digits(32)],
        vec!["card".into()],
        vec![],
    ];
    for (values, id) in people.iter().zip(1..) {
        bench.add_user(NewUser::new(id, &format!("u{id}"))).await;
        for value in values {
            bench.add_card(id, value, None, "").await;
        }
    }
    // None of these counts as a user without a PIN.
    bench.add_users(&[NewUser { flag: 32_768, ..NewUser::new(90, "role") }, NewUser::new(91, "template")]).await;
    let all = || people.iter().flatten();
    for format in [PinFormat::Md5, PinFormat::Md5WithoutPrefix, PinFormat::Prefix, PinFormat::Plain { max_length: 6 }] {
        let config = credkeeper::config::DatabaseConfig { pin_format: format, ..bench.config.clone() };
        let counts = Store::connect(&config).await.unwrap().reader().counts().await.unwrap();
        let number = |n: usize| u64::try_from(n).unwrap();
        assert_eq!(counts.users, 12, "{format:?}");
        assert_eq!(counts.newest, 91, "{format:?}");
        assert_eq!(counts.pins, number(all().filter(|v| format.is_pin(v)).count()), "{format:?}");
        // Found by the read, wherever it looks for users without a PIN.
        let reader = credkeeper::store::Reader::connect(&config).await.unwrap();
        let bare = number(people.iter().filter(|values| !values.iter().any(|v| format.is_pin(v))).count());
        for (within, read) in [(InCostCenter::Any, bare), (InCostCenter::Of(BTreeSet::from([999])), 0)] {
            let pinless = Pinless::default();
            let due = DueFilter { without_pin: Some(within), ..DueFilter::default() };
            let found: Vec<_> = reader.read_counting(&Filter { due: Some(due), ..Filter::default() }, &pinless).collect().await;
            assert_eq!(found.into_iter().map(|chunk| number(chunk.unwrap().len())).sum::<u64>(), read, "{format:?}");
            assert_eq!(pinless.get(), Some(&bare), "{format:?}: of all real users, wherever they are");
        }
        let of = |form: PinFormat, shape: fn(&str) -> bool| {
            number(all().filter(|v| form != format && form.is_pin(v) && shape(v) && !format.is_pin(v)).count())
        };
        let foreign = credkeeper::inventory::Foreign {
            md5: of(PinFormat::Md5, |_| true),
            md5_without_prefix: of(PinFormat::Md5WithoutPrefix, |_| true),
            prefix: of(PinFormat::Prefix, |v| v.len() <= 19),
        };
        assert_eq!(counts.foreign, foreign, "{format:?}");
        let before = match format {
            PinFormat::Md5 | PinFormat::Md5WithoutPrefix => {
                assert_eq!(counts.by_length, None, "a hash hides its length");
                continue;
            }
            PinFormat::Prefix => 3,
            PinFormat::Plain { .. } => 0,
        };
        for length in 1..=16 {
            let pins = number(all().filter(|v| format.is_pin(v) && v.len() == before + length).count());
            assert_eq!(counts.by_length.unwrap()[length - 1], pins, "{format:?}, {length} digits");
        }
    }
}

pub async fn who_has_no_pin_is_told_only_where_all_are_looked_at(bench: &Bench) {
    bench.add_users(&[NewUser::new(1, "a"), NewUser::new(2, "b"), NewUser { flag: 32_768, ..NewUser::new(3, "role") }]).await;
    bench.add_card(1, &pin("1234"), None, "").await;
    let store = bench.store().await;
    let due = |without_pin| Some(DueFilter { without_pin, expired_at: Some(WallClock(LATER)), ..DueFilter::default() });
    for (filter, expected) in [
        (Filter { due: due(Some(InCostCenter::Any)), ..Filter::default() }, Some(1)),
        (Filter { due: due(None), ..Filter::default() }, None),
        (Filter { due: due(Some(InCostCenter::Any)), above: Some(UserId(0)), ..Filter::default() }, None),
        (Filter { login: Some("b".into()), ..Filter::default() }, None),
    ] {
        let pinless = Pinless::default();
        let read: Vec<_> = store.reader().read_counting(&filter, &pinless).collect().await;
        assert!(read.iter().all(Result::is_ok));
        assert_eq!(pinless.get().copied(), expected, "{filter:?}");
    }
}

pub async fn figures_and_places(bench: &Bench) {
    let store = bench.store().await;
    assert_eq!(store.reader().newest().await.unwrap(), UserId(0));
    assert_eq!(store.reader().counts().await.unwrap(), credkeeper::inventory::Counts::default());
    bench.add_users(&[NewUser::new(7, "a"), NewUser { flag: 32_768, ..NewUser::new(9, "role") }]).await;
    bench.add_card(7, &pin("1234"), None, "").await;
    bench.add_card(7, "04A1B2C3", None, "").await;
    let counts = store.reader().counts().await.unwrap();
    assert_eq!((counts.users, counts.pins, counts.newest), (1, 1, 9));
    assert_eq!(store.reader().newest().await.unwrap(), UserId(9));
    let name = |name: &str| CostCenterRef::Name(name.into());
    let wanted =
        BTreeSet::from([name("Has PIN"), name("has pin"), name("' OR 1=1 --"), CostCenterRef::Number(100), CostCenterRef::Number(7)]);
    let places = store.reader().places(&Wanted { cost_centers: wanted, ..Wanted::default() }).await.unwrap();
    assert_eq!(places.get(&name("Has PIN")), Some(&has_pin()));
    assert_eq!(places.get(&CostCenterRef::Number(100)).map(|c| c.name.as_str()), Some("Needs PIN"));
    let absent: Vec<_> = places.cost_centers.iter().filter(|(_, found)| found.is_none()).map(|(wanted, _)| wanted).collect();
    assert_eq!(absent.len(), 3, "{absent:?}");
    assert_eq!(places.cost_centers.len(), 5);
}

pub async fn what_landed_is_what_stands_whole(bench: &Bench) {
    bench.add_users(&[NewUser { center: (12, 200), ..NewUser::new(1, "a") }, NewUser { center: (12, 100), ..NewUser::new(2, "b") }]).await;
    bench.add_card(1, &pin("1111"), Some(LATER), "").await;
    bench.add_card(1, &pin("1112"), None, "").await;
    bench.add_card(2, &pin("2222"), None, "").await;
    let store = bench.store().await;
    let look = |user: i64, pin: Option<(&str, Option<i64>)>, center: bool| AfterImage {
        pins: pin.map(|(digits, end)| (stored(digits), end.map(WallClock))).into_iter().collect(),
        cost_center: center.then(has_pin),
        ..AfterImage::of(user_id(user))
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
        (AfterImage { gone: vec![stored("1113"), stored("2222")], ..look(1, None, true) }, true, "what is gone is gone"),
        (AfterImage { gone: vec![stored("1113"), stored("1112")], ..look(1, None, true) }, false, "one that should be gone stands"),
        (AfterImage { held: vec![stored("1111"), stored("1112")], ..look(1, None, false) }, true, "both PINs, whatever their ends"),
        (AfterImage { held: vec![stored("1111"), stored("1113")], ..look(1, None, false) }, false, "one of two is not held"),
        (AfterImage { held: vec![stored("2222")], ..look(1, None, false) }, false, "another user holds it"),
        (AfterImage { held: vec![stored("1111")], gone: vec![stored("1112")], ..look(1, None, false) }, false, "held, and not gone"),
        (AfterImage { pins: vec![(stored("1111"), expiry(LATER)), (stored("1112"), None)], ..look(1, None, false) }, true, "both PINs"),
        (
            AfterImage { pins: vec![(stored("1111"), expiry(LATER)), (stored("1112"), expiry(LATER))], ..look(1, None, false) },
            false,
            "one of two PINs",
        ),
    ];
    let wanted: Vec<AfterImage> = images.iter().map(|(image, ..)| image.clone()).collect();
    let (landed, present) = (store.landed(&wanted).await.unwrap(), store.reader().present(&wanted).await.unwrap());
    for (i, (_, expected, why)) in images.iter().enumerate() {
        assert_eq!((landed[i], present[i]), (*expected, *expected), "{why}");
    }
    assert_eq!(store.landed(&[]).await.unwrap(), Vec::<bool>::new());
}

pub async fn hostile_text_goes_in_and_out_unchanged(bench: &Bench) {
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
    let change = with_value(new_pin(&all[0], "740218", None), "'); DELETE FROM users; -- \\ $1 ž");
    assert_eq!(write(&store, &[change]).await, [Outcome::Applied]);
    assert!(bench.card_values(1).await.contains(&"'); DELETE FROM users; -- \\ $1 ž".to_owned()));
    assert_eq!(read(store.reader(), &Filter::default()).await.len(), texts.len());
}

pub async fn every_value_of_the_card_column_is_read(bench: &Bench) {
    let people: Vec<NewUser> = (1..=1200).map(|id| NewUser::new(id, &format!("u{id}"))).collect();
    bench.add_users(&people).await;
    let store = bench.store().await;
    let all = async || {
        let chunks: Vec<Vec<StoredValue>> = futures_util::TryStreamExt::try_collect(store.reader().pins()).await.unwrap();
        chunks.into_iter().flatten().map(|value| value.expose().to_owned()).collect::<BTreeSet<String>>()
    };
    assert_eq!(all().await, BTreeSet::new());
    let mut wanted = BTreeSet::new();
    for id in 1..=1200 {
        let value = if id % 2 == 0 { pin(&format!("{id:06}")) } else { format!("CARD{id}") };
        bench.add_card(id, &value, None, "").await;
        wanted.insert(value);
    }
    assert_eq!(all().await, wanted);
    // Given up after one chunk, again and again: no connection of the pool stays busy.
    for _ in 0..10 {
        assert!(store.reader().pins().next().await.is_some_and(|chunk| chunk.is_ok()));
    }
    assert_eq!(store.reader().counts().await.unwrap().pins, 600);
}

pub async fn one_leads(bench: &Bench) {
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

pub async fn the_clock_goes(bench: &Bench) {
    let store = bench.store().await;
    let pulse = store.reader().pulse().await.unwrap();
    let now = store.reader().clock().await.unwrap().0;
    assert!((pulse.wall.0 - now).abs() <= 1, "one clock: {pulse:?}, {now}");
    assert_eq!(pulse.read_only, None, "our own sessions are read-only, the database is not");
    let utc = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    // A wall clock is at most 14 hours from UTC, and UTC itself is told to the second.
    let zone = bench.config.map.cards.expires.zone;
    let allowed = if zone == credkeeper::config::schema_map::Zone::Utc { 5 } else { 14 * 3600 + 5 };
    assert!((now - utc).abs() <= allowed, "{now} is not near {utc}");
    assert!((pulse.utc.0 - utc).abs() <= 5, "{pulse:?} is not near {utc}");
}
