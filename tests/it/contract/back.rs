//! What only a take-back writes: what was there before comes back.

use credkeeper::store::{NewPin, PinChange, ValueChange};

use super::*;

pub async fn a_pin_comes_beside_those_that_are_named(bench: &Bench) {
    bench.add_users(&[NewUser::new(1, "a"), NewUser::new(2, "b")]).await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    assert_eq!(write(&store, &[new_pin(&seen, "740218", None)]).await, [Outcome::Applied]);
    let beside = |old: &[&str], digits: &str, id| {
        let new = NewPin { value: stored(digits), forms: PinFormat::every_form(&Pin::new(digits.into())), expires: expiry(LATER) };
        let old = old.iter().map(|digits| named(&pin(digits), None)).collect();
        UserChange { pin: Some(PinChange { old, to: PinTarget::Beside(new) }), ..UserChange::of(user_id(id)) }
    };
    assert_eq!(
        write(&store, &[beside(&[], "918273", 1), beside(&[], "740218", 2)]).await,
        [Outcome::ChangedMeanwhile, Outcome::PinTaken],
        "the user has another PIN than was named, and the PIN of another"
    );
    assert_eq!(write(&store, &[beside(&["740218"], "918273", 1)]).await, [Outcome::Applied]);
    let mut there = bench.card_values(1).await;
    there.sort();
    let mut wanted = [pin("740218"), pin("918273")];
    wanted.sort();
    assert_eq!(there, wanted);
}

pub async fn an_end_goes_again(bench: &Bench) {
    bench.add_user(NewUser::new(1, "a")).await;
    let store = bench.store().await;
    let seen = user(store.reader(), 1).await;
    assert_eq!(write(&store, &[new_pin(&seen, "740218", Some(LATER))]).await, [Outcome::Applied]);
    let seen = user(store.reader(), 1).await;
    let change = PinChange { old: seen.pins.clone(), to: PinTarget::End { pins: seen.pins, at: None } };
    assert_eq!(write(&store, &[UserChange { pin: Some(change), ..UserChange::of(user_id(1)) }]).await, [Outcome::Applied]);
    assert_eq!(user(store.reader(), 1).await.pins[0].expires, None);
}

pub async fn a_code_and_a_password_go_again(bench: &Bench) {
    three(bench).await;
    let store = with_values(bench).await;
    let gone = |old: &str| Some(ValueChange { old: Some(value(old)), new: None });
    let changes = [
        UserChange { code: gone("CODE2"), password: gone("$2a$two"), ..UserChange::of(user_id(2)) },
        UserChange { code: gone("CODE9"), ..UserChange::of(user_id(3)) },
    ];
    assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::ChangedMeanwhile]);
    assert_eq!((held(bench, 2).await, held(bench, 3).await), ((None, None), (Some("CODE3".into()), None)));
    let none = |id| AfterImage { code: Some(value("")), password: Some(value("")), ..AfterImage::of(user_id(id)) };
    assert_eq!(store.landed(&[none(2), none(3)]).await.expect("an answer"), [true, false], "an empty text is none");
}
