use super::*;
use crate::inventory::Baseline;

/// Else a tripwire that has sprung on a Friday would come loose on a Sunday, when nobody is there to look.
#[tokio::test]
async fn the_figures_of_the_last_good_pass_outlive_any_number_of_others() {
    let bed = Bed::new();
    let journal = bed.open().await;
    assert_eq!(journal.reader().baseline().await.unwrap(), None);
    let figures = |users, pinless| Baseline { users, pinless: Some(pinless) };
    for before in [figures(10, 1), Baseline { users: 9, pinless: None }] {
        journal.keep_baseline(before).await.unwrap();
        assert_eq!(journal.reader().baseline().await.unwrap(), Some(before));
    }
    journal.keep_baseline(figures(1_000_000, 20)).await.unwrap();
    for number in 0..250 {
        let pass = PassId(format!("refused{number}"));
        journal.pass_started(&pass, "resync", at(number)).await.unwrap();
        journal.pass_ended(&pass, "refused", serde_json::json!({}), at(number)).await.unwrap();
    }
    journal.forget_old(keep(Duration::ZERO), at(86_400 * 365)).await.unwrap();
    assert_eq!(bed.read().await.unwrap().baseline().await.unwrap(), Some(figures(1_000_000, 20)), "a reader sees it too");
    journal.close().await.unwrap();
    let journal = bed.open().await;
    assert_eq!(journal.reader().baseline().await.unwrap(), Some(figures(1_000_000, 20)));

    let job = |w: &mut Writer| {
        w.view.db.execute("UPDATE database SET baseline = '[1]'", []).unwrap();
        Ok(())
    };
    journal.write(job).await.unwrap();
    let error = journal.reader().baseline().await.unwrap_err();
    assert!(matches!(error, JournalError::NotUnderstood { .. }), "what cannot be read is not taken for a first pass: {error}");
}
