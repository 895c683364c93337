//! Several databases in one file: what is known of one says nothing of another.

use super::*;

/// Undoes what version 3 brought.
pub(super) const AS_VERSION_2: &str = "
    INSERT INTO meta SELECT 'database', salt FROM database; INSERT INTO meta SELECT 'identity', identity FROM database;
    INSERT INTO meta SELECT 'last_full_pass', baseline FROM database WHERE baseline IS NOT NULL;
    DROP INDEX issuance_undeliverable; ALTER TABLE issuance DROP COLUMN takes_back; ALTER TABLE issuance DROP COLUMN because; ALTER TABLE issuance DROP COLUMN leaves_pinless;
    DROP TABLE database; DROP TABLE reminder; DROP TABLE request; DROP TABLE refused;
    DROP INDEX issuance_one_open; DROP INDEX issuance_user; DROP INDEX issuance_queue; DROP INDEX IF EXISTS issuance_replaced;
    ALTER TABLE batch DROP COLUMN database; ALTER TABLE issuance DROP COLUMN database; ALTER TABLE pass DROP COLUMN database;
    CREATE UNIQUE INDEX issuance_one_open ON issuance (user) WHERE open = 1;
    CREATE INDEX issuance_user ON issuance (user);
    CREATE INDEX issuance_queue ON issuance (lane, next_attempt) WHERE open = 1;
    CREATE INDEX issuance_replaced ON issuance (policy) WHERE replaced > 0;
    ALTER TABLE hold RENAME TO held;
    CREATE TABLE hold (user INTEGER PRIMARY KEY, login TEXT NOT NULL, since INTEGER NOT NULL, reason TEXT NOT NULL);
    INSERT INTO hold SELECT user, login, since, reason FROM held; DROP TABLE held;
    PRAGMA user_version = 2";

fn tenants() -> Vec<Owner> {
    vec![owner("one", "postgres db tenant_1"), owner("two", "postgres db tenant_2")]
}

async fn file(bed: &Bed, owners: Vec<Owner>) -> JournalFile {
    JournalFile::open(&bed.config, owners, Duration::ZERO).await.unwrap()
}

async fn both(bed: &Bed) -> [Journal; 2] {
    let file = file(bed, tenants()).await;
    [file.of("one").await.unwrap(), file.of("two").await.unwrap()]
}

#[tokio::test]
async fn two_tenants_with_the_same_user_ids_and_logins_do_not_mix() {
    let bed = Bed::new();
    let [one, two] = both(&bed).await;
    committed(&one, vec![renewed(1, "1357", stored("2468").expose())]).await;
    assert_eq!(facts_of(two.reader(), person(1, Some("1357"))).await.1, Facts::default(), "nothing is known of the other user 1");
    assert!(!facts_of(two.reader(), person(1, Some("1357"))).await.0.pins[0].foreseen);
    committed(&two, vec![silent(1, "1357")]).await; // I4 holds for each of them
    assert!(facts_of(one.reader(), person(1, None)).await.1.open && !facts_of(two.reader(), person(1, None)).await.1.open);

    one.hold(UserId(1), "user1", "for a test", NOW).await.unwrap();
    assert!(two.hold(UserId(2), "user2", "for a test", NOW).await.unwrap() && two.hold(UserId(1), "user1", "too", NOW).await.unwrap());
    assert!(two.release(UserId(1)).await.unwrap() && facts_of(one.reader(), person(1, None)).await.1.held);
    assert_eq!((one.reader().holds(9).await.unwrap().len(), two.reader().holds(9).await.unwrap().len()), (1, 1));

    let day = at(-86_400);
    let replaced = async |journal: &Journal| journal.reader().replaced_since(&policy("visitors"), day).await.unwrap()[Credential::Pin];
    assert_eq!((replaced(&one).await, replaced(&two).await), (1, 0));
    let free = async |journal: &Journal| !journal.reader().quarantined(vec![stored("2468")], at(1)).await.unwrap()[0];
    assert!(!free(&one).await && free(&two).await, "the PIN of one tenant is nothing to the other");
    assert_eq!(one.reader().issued_until(Credential::Pin, at(9), None).await.unwrap(), [UserId(1)]);
    assert_eq!(two.reader().user_history(UserId(1), 9).await.unwrap().len(), 1);
    assert_eq!((one.reader().unfinished(9).await.unwrap().len(), two.reader().unfinished(9).await.unwrap().len()), (1, 0));
    assert_eq!((one.reader().oldest_open().await.unwrap(), two.reader().oldest_open().await.unwrap()), (Some(NOW), None));

    let figures = crate::inventory::Baseline { users: 5, pinless: None };
    one.keep_baseline(figures).await.unwrap();
    one.pass_started(&PassId("p1".into()), "resync", NOW).await.unwrap();
    assert_eq!((one.reader().baseline().await.unwrap(), two.reader().baseline().await.unwrap()), (Some(figures), None));
    assert!(one.reader().last_pass().await.unwrap().is_some() && two.reader().last_pass().await.unwrap().is_none());

    two.planned(&pass(), vec![announced(7, "1111")], NOW).await.unwrap();
    assert_eq!((one.unresolved().await.unwrap().len(), two.unresolved().await.unwrap().len()), (0, 1));
    let count = async |journal: &Journal| journal.reader().counts().await.unwrap().map(|(_, n)| n);
    let kept = [count(&one).await, count(&two).await];
    let committed_of_one = kept[0][State::Committed as usize];
    assert_eq!((committed_of_one, kept[1][State::Planned as usize], kept[1][State::Unannounced as usize]), (1, 1, 1));
    assert_eq!(facts_of(two.reader(), person(1, Some("1357"))).await.1.keeper, Some(policy("visitors")));
    one.forget_old(keep(Duration::ZERO), at(86_400)).await.unwrap();
    for (name, journal) in [("one", &one), ("two", &two)] {
        let reader = JournalReader::open(&bed.config, tenants(), name).await.unwrap().unwrap();
        assert_eq!(reader.counts().await.unwrap(), journal.reader().counts().await.unwrap(), "in memory and in the file");
    }
}

#[tokio::test]
async fn mail_of_several_databases_takes_turns_and_only_for_those_asked_for() {
    let bed = Bed::new();
    let [one, two] = both(&bed).await;
    committed(&one, (1..=50).map(|user| announced(user, "1357")).collect()).await;
    committed(&two, (1..=3).map(|user| announced(user, "2468")).collect()).await;
    let books = [one.book(), two.book()];
    let mut sent = Vec::new();
    for _ in 0..8 {
        // One at a time, as when the queue is full: each tenant has its turn.
        let mail = one.due_mail(&books, NOW, 1, &[]).await.unwrap().remove(0);
        one.attempted(vec![(mail.id, Answer::Accepted)], NOW, TWO_DAYS).await.unwrap();
        sent.push(if mail.book == two.book() { 2 } else { 1 });
    }
    assert_eq!(sent, [1, 2, 1, 2, 1, 2, 1, 1]);
    let rest = one.due_mail(&[two.book()], NOW, 100, &[]).await.unwrap();
    assert!(rest.is_empty() && one.next_mail_at(&[two.book()], &[]).await.unwrap().is_none(), "whose database is away, waits");
    assert_eq!(one.due_mail(&books, NOW, 100, &[]).await.unwrap().len(), 45);
    assert_eq!(two.reader().counts().await.unwrap()[State::Delivered as usize].1, 3);
}

#[tokio::test]
async fn a_database_that_left_the_configuration_loses_nothing_and_is_told() {
    let bed = Bed::new();
    let [one, two] = both(&bed).await;
    committed(&two, vec![announced(1, "1357")]).await;
    assert_eq!(one.left().await.unwrap(), []);
    one.close().await.unwrap();
    let alone = file(&bed, tenants()[..1].to_vec()).await;
    assert_eq!(alone.left().await.unwrap(), [Left { name: "two".to_owned(), open: 1 }]);
    alone.forget_old(keep(Duration::ZERO), at(86_400 * 365)).await.unwrap();
    alone.close().await.unwrap();
    let [_, two] = both(&bed).await;
    assert_eq!(due(&two, NOW).await.len(), 1, "back again, its mail goes out");
}

#[tokio::test]
async fn a_renamed_database_keeps_its_book_and_a_new_one_gets_its_own() {
    let bed = Bed::new();
    let [one, _] = both(&bed).await;
    committed(&one, vec![silent(1, "1357")]).await;
    one.close().await.unwrap();
    // `two` stays, `one` has a new name, and a third with the identity of `two` is another server.
    let owners = vec![owner("first", "postgres db tenant_1"), tenants().remove(1), owner("away", "postgres db tenant_2")];
    let before = JournalReader::open(&bed.config, owners.clone(), "first").await.unwrap().unwrap();
    assert!(facts_of(&before, person(1, Some("1357"))).await.0.pins[0].foreseen, "a reader knows it before anybody has written");
    assert!(JournalReader::open(&bed.config, owners.clone(), "away").await.unwrap().is_none());
    let journal = file(&bed, owners).await;
    assert!(facts_of(journal.of("first").await.unwrap().reader(), person(1, Some("1357"))).await.0.pins[0].foreseen);
    let (two, away) = (journal.of("two").await.unwrap(), journal.of("away").await.unwrap());
    assert_ne!(two.book(), away.book());
    assert_eq!(journal.left().await.unwrap(), []);
}

#[tokio::test]
async fn another_database_under_a_known_name_does_not_keep_the_others_out() {
    let bed = Bed::new();
    both(&bed).await[0].close().await.unwrap();
    let journal = file(&bed, vec![owner("one", "postgres other tenant_1"), tenants().remove(1)]).await;
    assert!(matches!(journal.of("one").await, Err(JournalError::OtherDatabase { .. })));
    assert!(journal.of("two").await.is_ok());
}

#[tokio::test]
async fn a_journal_of_the_second_version_becomes_the_book_of_its_database() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![silent(1, "1357"), announced(2, "2468")]).await;
    journal.planned(&pass(), vec![announced(3, "3579")], NOW).await.unwrap();
    journal.hold(UserId(4), "user4", "for a test", NOW).await.unwrap();
    journal.pass_started(&PassId("p1".into()), "resync", NOW).await.unwrap();
    let figures = crate::inventory::Baseline { users: 5, pinless: Some(2) };
    journal.keep_baseline(figures).await.unwrap();
    let before = counts(&bed, &journal).await;
    journal.close().await.unwrap();
    bed.raw().execute_batch(AS_VERSION_2).unwrap();
    let older = JournalReader::open(&bed.config, vec![owner("main", "cluster 1")], "main").await;
    assert!(matches!(older, Err(JournalError::Older { .. })), "a reader changes nothing");

    let journal = file(&bed, vec![owner("second", "cluster 2"), owner("main", "cluster 1")]).await;
    let (main, second) = (journal.of("main").await.unwrap(), journal.of("second").await.unwrap());
    assert_eq!(counts(&bed, &main).await, before);
    assert!(facts_of(main.reader(), person(1, Some("1357"))).await.0.pins[0].foreseen);
    assert!(facts_of(main.reader(), person(4, None)).await.1.held && !facts_of(second.reader(), person(4, None)).await.1.held);
    assert_eq!((main.unresolved().await.unwrap().len(), due(&main, NOW).await.len()), (1, 1));
    assert_eq!(main.reader().baseline().await.unwrap(), Some(figures));
    assert!(main.reader().last_pass().await.unwrap().is_some());
    assert_eq!(second.reader().counts().await.unwrap().map(|(_, n)| n), [0; 8]);
    let meta: Vec<String> = {
        let db = bed.raw();
        let mut rows = db.prepare("SELECT name FROM meta ORDER BY name").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(meta, ["check", "last_issuance"]);
}
