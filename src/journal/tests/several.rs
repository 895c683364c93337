//! Several credentials in one issuance: what is sealed, told, looked for, and known of it later.

use super::*;

fn hash(text: &str) -> StoredValue {
    StoredValue::new(text.to_owned())
}

/// A PIN, a code and a password, the last two in place of others.
fn everything(user: i64) -> NewIssuance {
    NewIssuance {
        code: Some(IssuedCode { code: Code::new("778899".to_owned()), stored: hash("code-stored"), replaced: Some(hash("code-before")) }),
        password: Some(IssuedPassword {
            password: Password::new("Xy7pQ".to_owned()),
            stored: hash("$2a$new"),
            replaced: Some(hash("$2a$old")),
        }),
        ..announced(user, "1357")
    }
}

fn with_password(user: User, stored: &str) -> User {
    User { password: Some(StoredPassword::found(hash(stored))), ..user }
}

#[tokio::test]
async fn all_of_them_are_told_and_looked_for() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let batch = journal.planned(&pass(), vec![everything(1)], NOW).await.unwrap();
    let written = journal.unresolved().await.unwrap().remove(0).written.remove(0);
    assert_eq!((written.pins.len(), written.code, written.password), (1, Some(hash("code-stored")), Some(hash("$2a$new"))));
    journal.committed(batch, NOW).await.unwrap();
    let mail = journal.due_mail(&[journal.book()], NOW, 10, &[]).await.unwrap().remove(0);
    assert_eq!(mail.pin.unwrap().expose(), "1357");
    assert_eq!((mail.code.unwrap().expose(), mail.password.unwrap().expose()), ("778899", "Xy7pQ"));
    let secrets: [&[u8]; 6] = [b"778899", b"Xy7pQ", b"code-stored", b"$2a$new", b"code-before", b"$2a$old"];
    let bytes = bed.bytes();
    assert!(!secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == *secret)), "in the file all is sealed");
    let row = &journal.reader().user_history(UserId(1), 1).await.unwrap()[0];
    assert_eq!(row.changes, ["PIN issued", "card assignment code issued", "password issued"]);
}

#[tokio::test]
async fn a_pin_that_was_there_is_told_with_its_own_end_but_not_taken_for_ours() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let existing = ExistingPin { pin: Pin::new("2468".to_owned()), stored: stored("2468"), expires: Some(WallClock(7000)) };
    let new = NewIssuance { pin: None, existing: Some(existing), ..everything(1) };
    let batch = journal.planned(&pass(), vec![new], NOW).await.unwrap();
    let written = journal.unresolved().await.unwrap().remove(0).written.remove(0);
    assert_eq!(written.pins, [], "recovery looks for what we wrote");
    journal.committed(batch, NOW).await.unwrap();
    let mail = journal.due_mail(&[journal.book()], NOW, 10, &[]).await.unwrap().remove(0);
    assert_eq!((mail.pin.unwrap().expose(), mail.expires), ("2468", Some(WallClock(7000))));
    assert_eq!(mail.written.pins, [(stored("2468"), Some(WallClock(7000)))], "a late mail looks whether it still stands");
    let (user, _) = facts_of(journal.reader(), person(1, Some("2468"))).await;
    assert_eq!(user.pins[0].issued, None);
}

#[tokio::test]
async fn a_password_is_ours_as_long_as_it_stands() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![everything(1)]).await;
    let issued = async |stored: &str| facts_of(journal.reader(), with_password(person(1, None), stored)).await.0.password.unwrap().issued;
    assert_eq!(issued("$2a$new").await, Some(NOW));
    assert_eq!(issued("$2a$changed").await, None, "somebody has set another one since");
    // A later PIN says nothing of the password.
    journal.attempted(vec![(IssuanceId(1), Answer::Accepted)], NOW, Duration::from_secs(9)).await.unwrap();
    committed(&journal, vec![renewed(1, "2468", "PINold")]).await;
    assert_eq!(issued("$2a$new").await, Some(NOW));
    let aged = async |kind, until| journal.reader().issued_until(kind, until, None).await.unwrap();
    assert_eq!(aged(Credential::Password, NOW).await, [UserId(1)]);
    assert_eq!(aged(Credential::Code, at(-1)).await, []);
    // Nor does forgetting take what the age of the password needs.
    journal.attempted(vec![(IssuanceId(2), Answer::Accepted)], NOW, Duration::from_secs(9)).await.unwrap();
    journal.forget_old(keep(Duration::ZERO), at(500 * 86_400)).await.unwrap();
    assert_eq!(issued("$2a$new").await, Some(NOW));
}

#[tokio::test]
async fn each_kind_of_replacement_is_counted_by_itself() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let replacing = |user, kind| NewIssuance { replaced_unexpected: Each::of(kind, 1), ..everything(user) };
    committed(&journal, vec![replacing(1, Credential::Code), replacing(2, Credential::Code), replacing(3, Credential::Password)]).await;
    let replaced = journal.reader().replaced_since(&policy("visitors"), at(-9)).await.unwrap();
    assert_eq!(Credential::ALL.map(|kind| replaced[kind]), [0, 2, 1]);
}
