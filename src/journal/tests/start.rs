//! Who may open what, and what is made when.

use super::*;

#[tokio::test]
async fn the_first_start_makes_key_and_journal_for_the_owner_only() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let names: Vec<_> = bed.files().iter().map(|n| n.to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["journal.db", "journal.db-shm", "journal.db-wal", "journal.db.lock", "journal.key"]);
    #[cfg(unix)]
    for name in bed.files() {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(bed.dir.path().join(&name)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{}", name.display());
    }
    journal.close().await.unwrap();
    let again = bed.open().await;
    assert_eq!(again.reader().counts().await.unwrap().map(|(_, n)| n), [0; 8]);
}

#[tokio::test]
async fn the_file_is_opened_the_durable_and_the_clean_way() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let pragmas = journal
        .write(|w| {
            let ask = |name: &str| w.view.db.pragma_query_value(None, name, |r| r.get::<_, i64>(0)).unwrap();
            let mode: String = w.view.db.pragma_query_value(None, "journal_mode", |r| r.get(0)).unwrap();
            Ok((mode, ask("synchronous"), ask("secure_delete"), ask("temp_store"), ask("busy_timeout"), ask("application_id")))
        })
        .await
        .unwrap();
    assert_eq!(pragmas, ("wal".to_owned(), 2, 1, 2, 5000, 0x6372_6b70));
}

#[tokio::test]
async fn a_key_without_a_journal_is_used_as_it_is() {
    let bed = Bed::new();
    let line = format!("{}\n", "5a".repeat(32));
    std::fs::write(key_of(&bed), &line).unwrap();
    bed.open().await.close().await.unwrap();
    assert_eq!(std::fs::read_to_string(key_of(&bed)).unwrap(), line);
    bed.open().await;
}

#[tokio::test]
async fn a_file_without_tables_counts_as_absent() {
    for with_key in [false, true] {
        // Empty, and as a crash between “write-ahead mode” and “tables” leaves it.
        for with_header in [false, true] {
            let bed = Bed::new();
            if with_key {
                std::fs::write(key_of(&bed), "5a".repeat(32)).unwrap();
            }
            std::fs::write(&bed.config.path, "").unwrap();
            if with_header {
                bed.raw().pragma_update(None, "journal_mode", "wal").unwrap();
            }
            assert!(bed.read().await.is_none());
            let journal = bed.open().await;
            committed(&journal, vec![announced(1, "1357")]).await;
            #[cfg(unix)]
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&bed.config.path).unwrap().permissions()) & 0o777, 0o600);
        }
    }
}

#[tokio::test]
async fn a_journal_without_its_key_is_refused_and_gets_no_new_one() {
    let bed = Bed::new();
    bed.open().await.close().await.unwrap();
    std::fs::remove_file(key_of(&bed)).unwrap();
    let error = bed.try_open().await.err().unwrap();
    assert!(matches!(error, JournalError::KeyMissing { .. }), "{error}");
    assert_eq!((error.kind(), error.is_transient()), ("key", false));
    assert!(matches!(
        JournalReader::open(&bed.config, vec![owner("main", "cluster 1")], "main").await.err().unwrap(),
        JournalError::KeyMissing { .. }
    ));
    assert!(!key_of(&bed).exists());
}

#[tokio::test]
async fn a_wrong_key_is_recognised() {
    let bed = Bed::new();
    bed.open().await.close().await.unwrap();
    std::fs::write(key_of(&bed), "00".repeat(32)).unwrap();
    assert!(matches!(bed.try_open().await.err().unwrap(), JournalError::KeyWrong { .. }));
    assert!(matches!(
        JournalReader::open(&bed.config, vec![owner("main", "cluster 1")], "main").await.err().unwrap(),
        JournalError::KeyWrong { .. }
    ));
    std::fs::write(key_of(&bed), "no key").unwrap();
    assert!(matches!(bed.try_open().await.err().unwrap(), JournalError::Key(_)));
}

#[tokio::test]
async fn another_database_is_refused() {
    let bed = Bed::new();
    bed.open().await.close().await.unwrap();
    let error = open_as(&bed.config, owner("main", "cluster 2"), Duration::ZERO).await.err().unwrap();
    assert!(matches!(&error, JournalError::OtherDatabase { recorded, given, .. } if recorded == "cluster 1" && given == "cluster 2"));
    assert!(matches!(
        JournalReader::open(&bed.config, vec![owner("main", "cluster 2")], "main").await.err().unwrap(),
        JournalError::OtherDatabase { .. }
    ));
    // A new label in the configuration does not make it another one.
    open_as(&bed.config, owner("renamed", "cluster 1"), Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn what_is_no_journal_of_ours_is_left_alone() {
    for content in ["text", "sqlite"] {
        let bed = Bed::new();
        match content {
            "text" => std::fs::write(&bed.config.path, "dear diary, ".repeat(200)).unwrap(),
            _ => bed.raw().execute_batch("CREATE TABLE recipes (id)").unwrap(),
        }
        let before = bed.bytes();
        assert!(matches!(bed.try_open().await.err().unwrap(), JournalError::NotAJournal { .. }), "{content}");
        assert!(!key_of(&bed).exists());
        std::fs::remove_file(bed.dir.path().join("journal.db.lock")).unwrap();
        assert_eq!(bed.bytes(), before);
    }
    let newer = Bed::new();
    newer.open().await.close().await.unwrap();
    newer.raw().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(newer.try_open().await.err().unwrap(), JournalError::Newer { version: 99, .. }));
}

#[tokio::test]
async fn the_second_writer_is_kept_out_until_the_first_has_ended() {
    let bed = Bed::new();
    let first = bed.open().await;
    let error = bed.try_open().await.err().unwrap();
    assert!(matches!(error, JournalError::Locked { .. }));
    assert!(error.is_transient());
    let waiting = open_as(&bed.config, owner("main", "cluster 1"), Duration::from_secs(60));
    let (second, ()) = tokio::join!(waiting, async { first.close().await.unwrap() });
    second.unwrap();
    assert!(matches!(first.planned(&pass(), vec![], NOW).await, Err(JournalError::Closed)));
}

#[tokio::test]
async fn reading_makes_nothing_and_changes_nothing() {
    let bed = Bed::new();
    assert!(bed.read().await.is_none());
    assert!(bed.files().is_empty());
    std::fs::write(&bed.config.path, "").unwrap();
    assert!(bed.read().await.is_none());
    assert_eq!(bed.files(), [PathBuf::from("journal.db")]);

    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357")]).await;
    journal.close().await.unwrap();
    let (files, bytes) = (bed.files(), bed.bytes());
    let reader = bed.read().await.unwrap();
    assert!(facts_of(&reader, person(1, Some("1357"))).await.0.pins[0].foreseen);
    assert_eq!((bed.files(), bed.bytes()), (files.clone(), bytes), "while reading");
    drop(reader);
    assert_eq!(bed.files(), files);
}

#[tokio::test]
async fn a_reader_sees_what_a_writer_does_before_during_and_after() {
    let bed = Bed::new();
    bed.open().await.close().await.unwrap();
    let reader = bed.read().await.unwrap();
    assert!(!facts_of(&reader, person(1, None)).await.1.open, "no writer");
    let journal = bed.open().await;
    let batch = journal.planned(&pass(), vec![announced(1, "1357")], NOW).await.unwrap();
    assert!(facts_of(&reader, person(1, None)).await.1.open, "a writer has come");
    journal.committed(batch, NOW).await.unwrap();
    answer(&journal, 1, Answer::Accepted, NOW).await;
    assert!(!facts_of(&reader, person(1, None)).await.1.open);
    journal.close().await.unwrap();
    assert_eq!(facts_of(&reader, person(1, None)).await.1.keeper, Some(policy("visitors")), "the writer has gone");
    assert_eq!(bed.open().await.reader().user_history(UserId(1), 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_reader_without_a_writer_follows_one_that_came_and_went() {
    let bed = Bed::new();
    bed.open().await.close().await.unwrap();
    let reader = bed.read().await.unwrap();
    for user in 1..4 {
        let journal = bed.open().await;
        committed(&journal, vec![announced(user, "1357")]).await;
        journal.close().await.unwrap();
        assert!(facts_of(&reader, person(user, None)).await.1.open);
        assert!(!bed.files().contains(&PathBuf::from("journal.db-wal")));
    }
}

#[tokio::test]
async fn a_reader_may_look_at_what_a_crash_left() {
    let bed = Bed::new();
    let journal = bed.open().await;
    journal.planned(&pass(), vec![announced(1, "1357")], NOW).await.unwrap();
    let left = bed.crashed();
    let files = left.files();
    assert!(facts_of(&left.read().await.unwrap(), person(1, None)).await.1.open);
    assert_eq!(left.files(), files);
}

#[tokio::test]
async fn a_journal_that_knows_less_than_was_written_to_it_is_refused() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357")]).await;
    journal.close().await.unwrap();
    let older = std::fs::read(&bed.config.path).unwrap();
    let journal = bed.open().await;
    committed(&journal, vec![announced(2, "2468"), announced(3, "3579")]).await;
    journal.close().await.unwrap();
    bed.open().await.close().await.unwrap();
    let newest = std::fs::read(&bed.config.path).unwrap();

    for (content, knows) in [(&older, 1), (&Vec::new(), 0)] {
        std::fs::write(&bed.config.path, content).unwrap();
        let error = bed.try_open().await.err().unwrap();
        assert!(matches!(error, JournalError::Behind { known, written: 3, .. } if known == knows), "{error}");
        assert_eq!((error.kind(), error.is_transient(), &std::fs::read(&bed.config.path).unwrap()), ("format", false, content));
    }
    // Whoever moves the journal away gets a new one, and whoever puts the newest back goes on.
    std::fs::write(&bed.config.path, &newest).unwrap();
    let journal = bed.open().await;
    assert_eq!(counts(&bed, &journal).await, [("committed", 3)]);
    journal.close().await.unwrap();
    std::fs::remove_file(&bed.config.path).unwrap();
    bed.open().await.close().await.unwrap();
    std::fs::write(&bed.config.path, &newest).unwrap();
    bed.open().await;
}

#[tokio::test]
async fn what_another_program_moved_out_of_the_log_is_not_missed() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357")]).await;
    let left = bed.crashed();
    // The last one to close the file empties the log into it, and removes it.
    left.raw().query_row("SELECT count(*) FROM issuance", [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(!left.files().contains(&PathBuf::from("journal.db-wal")));
    assert_eq!(due(&left.open().await, NOW).await, [1]);
}
