//! Card assignment codes and passwords: values in columns of `users`.

use credkeeper::policy::Needs;
use credkeeper::store::{Move, ValueChange};

use super::*;

/// The same database, with a policy that asks for codes and passwords.
pub async fn with_values(bench: &Bench) -> Store {
    let mut config = bench.config.clone();
    config.needs = Needs { codes: true, passwords: true, ..config.needs };
    Store::connect(&config).await.expect("a store")
}

pub fn value(text: &str) -> StoredValue {
    StoredValue::new(text.to_owned())
}

fn change(old: Option<&str>, new: &str) -> Option<ValueChange> {
    Some(ValueChange { old: old.map(value), new: Some(value(new)) })
}

/// User 1 has neither (NULL and empty), user 2 both, user 3 a code.
pub async fn three(bench: &Bench) {
    bench.add_users(&[NewUser::new(1, "a"), NewUser::new(2, "b"), NewUser::new(3, "c")]).await;
    let map = &bench.config.map.users;
    let (table, code) = (bench.table(&map.table), &map.puk.as_ref().expect("a column").column);
    let password = map.password.as_ref().expect("a column");
    for (id, puk, pass) in [(1, "NULL", "''"), (2, "'CODE2'", "'$2a$two'"), (3, "'CODE3'", "NULL")] {
        bench.sql(&format!("UPDATE {table} SET \"{code}\" = {puk}, \"{password}\" = {pass} WHERE \"{}\" = {id}", map.id)).await;
    }
}

pub async fn held(bench: &Bench, id: i64) -> (Option<String>, Option<String>) {
    let store = with_values(bench).await;
    let users = read(store.reader(), &Filter::default()).await;
    let user = users.into_iter().find(|user| user.id == user_id(id)).expect("the user");
    let text = |value: &StoredValue| value.expose().to_owned();
    (user.code.as_ref().map(text), user.password.as_ref().map(|password| text(&password.value)))
}

pub async fn codes_and_passwords_are_read_only_where_a_policy_asks(bench: &Bench) {
    three(bench).await;
    assert_eq!(held(bench, 1).await, (None, None), "NULL and the empty text are none");
    assert_eq!(held(bench, 2).await, (Some("CODE2".into()), Some("$2a$two".into())));
    let plain = bench.store().await;
    let quiet = read(plain.reader(), &Filter::default()).await;
    assert!(quiet.iter().all(|user| user.code.is_none() && user.password.is_none()));
    let counts = with_values(bench).await.reader().counts().await.expect("figures");
    assert_eq!((counts.codes, counts.passwords), (2, 1));
    assert_eq!(plain.reader().counts().await.map(|counts| (counts.codes, counts.passwords)).expect("figures"), (0, 0));
}

pub async fn who_lacks_a_code_or_a_password_is_found(bench: &Bench) {
    three(bench).await;
    let reader = with_values(bench).await;
    let found = async |due: DueFilter| {
        let mut found: Vec<i64> =
            read(reader.reader(), &Filter { due: Some(due), ..Filter::default() }).await.iter().map(|user| user.id.0).collect();
        found.sort_unstable();
        found
    };
    assert_eq!(found(DueFilter { without_code: Some(InCostCenter::Any), ..DueFilter::default() }).await, [1]);
    assert_eq!(found(DueFilter { without_password: Some(InCostCenter::Any), ..DueFilter::default() }).await, [1, 3]);
    let elsewhere = Some(InCostCenter::Of(BTreeSet::from([12])));
    assert_eq!(found(DueFilter { without_password: elsewhere, ..DueFilter::default() }).await, [0; 0]);
}

pub async fn codes_and_passwords_are_written_where_the_old_ones_stand(bench: &Bench) {
    three(bench).await;
    let store = with_values(bench).await;
    let changes = [
        UserChange { code: change(None, "NEW1"), password: change(None, "$2a$new1"), ..UserChange::of(user_id(1)) },
        UserChange { password: change(Some("$2a$two"), "$2a$new2"), ..UserChange::of(user_id(2)) },
        UserChange { code: change(Some("CODE9"), "NEW3"), ..UserChange::of(user_id(3)) },
    ];
    assert_eq!(write(&store, &changes).await, [Outcome::Applied, Outcome::Applied, Outcome::ChangedMeanwhile]);
    assert_eq!(held(bench, 1).await, (Some("NEW1".into()), Some("$2a$new1".into())));
    assert_eq!(held(bench, 2).await, (Some("CODE2".into()), Some("$2a$new2".into())), "the code is not touched");
    assert_eq!(held(bench, 3).await, (Some("CODE3".into()), None));
    let stands = |code: Option<&str>, password: Option<&str>| AfterImage {
        code: code.map(value),
        password: password.map(value),
        ..AfterImage::of(user_id(1))
    };
    let images =
        [stands(Some("NEW1"), Some("$2a$new1")), stands(Some("NEW1"), Some("$2a$old")), stands(Some("X"), None), stands(None, None)];
    assert_eq!(store.landed(&images).await.expect("an answer"), [true, false, false, true]);
    assert_eq!(store.reader().present(&images).await.expect("an answer"), [true, false, false, true]);
}

pub async fn a_code_is_one_users(bench: &Bench) {
    three(bench).await;
    let store = with_values(bench).await;
    let asked = ["CODE2", "FREE", "CODE3"].map(value);
    assert_eq!(store.reader().codes_taken(&asked).await.expect("an answer"), [true, false, true]);
    let mut all: Vec<String> = Vec::new();
    let mut stream = store.reader().codes();
    while let Some(chunk) = stream.next().await {
        all.extend(chunk.expect("codes").iter().map(|code| code.expose().to_owned()));
    }
    all.sort();
    assert_eq!(all, ["CODE2", "CODE3"]);

    let seen = user(store.reader(), 1).await;
    let with_pin = UserChange { code: change(None, "CODE2"), ..new_pin(&seen, "4711", None) };
    let free = UserChange { code: change(Some("CODE3"), "FREE"), ..UserChange::of(user_id(3)) };
    let again = UserChange { code: change(Some("CODE2"), "FREE"), ..UserChange::of(user_id(2)) };
    let outcomes = write(&store, &[with_pin, free, again]).await;
    assert_eq!(outcomes, [Outcome::CodeTaken, Outcome::Applied, Outcome::CodeTaken]);
    assert!(user(store.reader(), 1).await.pins.is_empty(), "whoever is refused a code gets nothing");
}

pub async fn a_password_that_misses_after_the_pin_tears(bench: &Bench) {
    three(bench).await;
    let store = with_values(bench).await;
    let seen = user(store.reader(), 1).await;
    let torn = UserChange { password: change(Some("$2a$other"), "$2a$new"), ..new_pin(&seen, "4711", None) };
    let (mut transaction, _) = store.begin(&[user_id(1)]).await.expect("begin");
    assert_eq!(transaction.write(&[torn]).await.expect("write"), [Outcome::Torn]);
    assert!(matches!(transaction.commit().await, Committed::Refused(_)));
    let moved = UserChange {
        password: change(None, "$2a$new"),
        cost_center: Some(Move { from: Membership { id: CostCenterId(9), number: 9 }, to: has_pin() }),
        ..UserChange::of(user_id(1))
    };
    let (mut transaction, _) = store.begin(&[user_id(1)]).await.expect("begin");
    assert_eq!(transaction.write(&[moved]).await.expect("write"), [Outcome::Torn], "a move that misses after the password tears too");
    drop(transaction);
    assert_eq!(held(bench, 1).await, (None, None));
}
