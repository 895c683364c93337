//! The cases about writing.

use super::*;

pub async fn a_pin_is_inserted_with_its_expiry_and_defaults(bench: &Bench) {
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

pub async fn whoever_got_a_pin_meanwhile_is_left_alone(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    bench.add_card(1, &pin("5555"), Some(LONG_AGO), "theirs").await;
    assert_eq!(write(&store, &[new_pin(&seen, "740218", None)]).await, [Outcome::ChangedMeanwhile]);
    assert_eq!(bench.card_values(1).await, [pin("5555")]);
}

pub async fn a_pin_that_stands_in_any_form_is_taken(bench: &Bench) {
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

pub async fn two_users_of_a_batch_never_get_the_same_pin(bench: &Bench) {
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

pub async fn an_expired_pin_is_replaced_in_place_and_what_is_not_mapped_lives(bench: &Bench) {
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

pub async fn two_pins_and_duplicates_become_one(bench: &Bench) {
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

pub async fn a_replacement_compares_all_that_was_named(bench: &Bench) {
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

pub async fn a_new_end_changes_the_chosen_pins_and_nothing_else(bench: &Bench) {
    bench.add_users(&[NewUser { center: (11, 100), ..NewUser::new(1, "a") }, NewUser::new(2, "b")]).await;
    bench.add_card(1, &pin("1111"), Some(LONG_AGO), "mine").await;
    bench.add_card(1, &pin("1112"), None, "other").await;
    bench.add_card(1, "04A1B2C3", Some(LONG_AGO), "card").await;
    bench.add_card(2, &pin("2222"), Some(LONG_AGO), "").await;
    bench.add_card(2, &pin("2223"), Some(LONG_AGO), "again").await;
    let before = (bench.cards(1).await, bench.cards(2).await);
    let store = bench.store().await;
    let (one, two) = (user(store.reader(), 1).await, user(store.reader(), 2).await);
    let changes = [moved(end_pins(&one, LATER, |pin| pin.expires.is_some()), one.cost_center, has_pin()), end_pins(&two, LATER, |_| true)];
    assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::Applied]);
    assert_eq!(store.landed(&changes.each_ref().map(image)).await.unwrap(), [true, true]);
    let after = user(store.reader(), 1).await;
    assert_eq!(after.pins.iter().map(|p| p.expires.map(|at| at.0)).collect::<BTreeSet<_>>(), BTreeSet::from([Some(LATER), None]));
    assert_eq!(bench.center(1).await, (12, 200));
    // All but the ends is as it was, the unmapped columns too.
    let without_ends = |rows: &[Vec<Option<String>>]| rows.iter().map(|r| [&r[..1], &r[2..]].concat()).collect::<BTreeSet<_>>();
    assert_eq!(without_ends(&bench.cards(1).await), without_ends(&before.0));
    assert_eq!(without_ends(&bench.cards(2).await), without_ends(&before.1));
    let card = |rows: &[Vec<Option<String>>]| rows.iter().find(|r| r[0].as_deref() == Some("04A1B2C3")).cloned();
    assert_eq!(card(&bench.cards(1).await), card(&before.0), "a card keeps its end");
    assert!(user(store.reader(), 2).await.pins.iter().all(|p| p.expires == expiry(LATER)));
}

pub async fn only_the_chosen_pins_are_removed(bench: &Bench) {
    bench.add_users(&[NewUser::new(1, "a"), NewUser::new(2, "b")]).await;
    bench.add_card(1, &pin("1111"), Some(LONG_AGO), "").await;
    bench.add_card(1, &pin("1112"), None, "").await;
    bench.add_card(1, "04A1B2C3", None, "").await;
    bench.add_card(2, &pin("2222"), None, "").await;
    let store = bench.store().await;
    let (one, two) = (user(store.reader(), 1).await, user(store.reader(), 2).await);
    let changes = [remove_pins(&one, |pin| pin.expires.is_some()), remove_pins(&two, |_| true)];
    let images = changes.each_ref().map(image);
    assert_eq!(store.landed(&images).await.unwrap(), [false, false]);
    assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::Applied]);
    assert_eq!(store.landed(&images).await.unwrap(), [true, true]);
    assert_eq!(bench.card_values(1).await, ["04A1B2C3".to_owned(), pin("1112")]);
    assert_eq!(bench.card_values(2).await, Vec::<String>::new());
}

pub async fn new_ends_and_removals_compare_all_that_was_named(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    bench.add_card(1, &pin("1111"), Some(LONG_AGO), "").await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    bench.add_card(1, &pin("1112"), None, "").await;
    let before = bench.cards(1).await;
    for change in [end_pins(&seen, LATER, |_| true), remove_pins(&seen, |_| true)] {
        assert_eq!(write(&store, std::slice::from_ref(&change)).await, [Outcome::ChangedMeanwhile], "a PIN came meanwhile");
        assert_eq!(bench.cards(1).await, before);
    }
    let gone = UserChange { user: user_id(9), ..remove_pins(&seen, |_| true) };
    assert_eq!(write(&store, &[gone]).await, [Outcome::ChangedMeanwhile], "nobody has that id");
    let seen = user(store.reader(), 1).await;
    let elsewhere = Membership { id: CostCenterId(11), number: 999 };
    let (mut transaction, _) = store.begin(&[user_id(1)]).await.unwrap();
    let torn = moved(end_pins(&seen, LATER, |_| true), elsewhere, has_pin());
    assert_eq!(transaction.write(&[torn]).await.unwrap(), [Outcome::Torn]);
    drop(transaction);
    assert_eq!(bench.cards(1).await, before);
}

pub async fn a_move_compares_and_writes_both_halves(bench: &Bench) {
    let center = |id: i64, center: (i64, i64)| NewUser { center, ..NewUser::new(id, &format!("u{id}")) };
    bench.add_users(&[center(1, (11, 100)), center(2, (11, 100)), center(3, (12, 100)), center(4, (11, 100))]).await;
    let store = bench.store().await;
    let users = read(store.reader(), &Filter::default()).await;
    bench
        .sql(&format!(
            "UPDATE {} SET \"{}\" = 12 WHERE \"{}\" = 2",
            bench.table(&bench.config.map.users.table),
            bench.member_columns()[0],
            bench.config.map.users.id
        ))
        .await;
    let changes: Vec<UserChange> = users[..3].iter().map(|u| only_move(u, has_pin())).collect();
    assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::ChangedMeanwhile, Outcome::Applied]);
    let centers = [bench.center(1).await, bench.center(2).await, bench.center(3).await, bench.center(4).await];
    assert_eq!(centers, [(12, 200), (12, 100), (12, 200), (11, 100)]);
}

pub async fn whoever_is_refused_a_pin_is_not_moved(bench: &Bench) {
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

pub async fn a_move_that_misses_after_the_pin_tears_and_cannot_be_committed(bench: &Bench) {
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

pub async fn dropping_rolls_back_and_frees_the_lock(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    for _ in 0..3 {
        let (mut transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
        let change = moved(new_pin(&users[0], "740218", None), users[0].cost_center, has_pin());
        assert_eq!(transaction.write(&[change]).await.unwrap(), [Outcome::Applied]);
        drop(transaction);
    }
    assert_eq!(store.landed(&[image(&new_pin(&user(store.reader(), 1).await, "740218", None))]).await.unwrap(), [false]);
    assert_eq!(bench.card_values(1).await, Vec::<String>::new());
    assert_eq!(bench.center(1).await, (0, 0));
}

pub async fn one_batch_of_everything(bench: &Bench) {
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

pub async fn who_is_gone_is_changed_meanwhile(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    bench.reset().await;
    let (mut transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
    assert_eq!(users, []);
    assert_eq!(transaction.write(&[new_pin(&seen, "740218", None)]).await.unwrap(), [Outcome::ChangedMeanwhile]);
    assert_eq!(transaction.write(&[only_move(&seen, has_pin())]).await.unwrap(), [Outcome::ChangedMeanwhile]);
    assert!(matches!(transaction.commit().await, Committed::Yes));
    let gone = AfterImage::of(user_id(1));
    assert_eq!(store.landed(&[gone]).await.unwrap(), [false]);
}
