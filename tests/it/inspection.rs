//! What the inspection finds, and that it advises what helps. What keeps a pass from running at all is in `mistakes.rs`.

use credkeeper::config::DatabaseConfig;
use credkeeper::policy::Needs;
use credkeeper::store::{Check, CheckVerdict, Reader};

use crate::bench::{Bench, NewUser, pin};

const ALL: Needs =
    Needs { cost_centers: true, source: true, moves: true, roles: false, role_removals: false, codes: false, passwords: false };

async fn checks(bench: &Bench, needs: &Needs) -> Vec<Check> {
    let config = DatabaseConfig { needs: *needs, ..bench.config.clone() };
    Reader::connect(&config).await.expect("lazy").inspect().await
}

fn bad(checks: &[Check]) -> Vec<&Check> {
    checks.iter().filter(|c| c.verdict != CheckVerdict::Ok).collect()
}

#[cfg(unix)]
fn one<'c>(checks: &'c [Check], name: &str) -> &'c Check {
    checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no check {name} in {checks:#?}"))
}

#[tokio::test]
async fn a_sandbox_database_is_in_order() {
    let bench = Bench::sqlite().await;
    assert_eq!(bad(&checks(&bench, &ALL).await), Vec::<&Check>::new());
    bench.sql("ALTER TABLE users_cards RENAME card TO chip").await;
    let found = checks(&bench, &ALL).await;
    assert_eq!(bad(&found).len(), 1);
    assert!(bad(&found)[0].found.contains("card"));
}

#[cfg(unix)]
mod postgres {
    use super::*;
    use credkeeper::domain::PinFormat;

    /// What must be found after `spoil`, under this name.
    async fn spoiled(spoil: &str, name: &str, verdict: CheckVerdict) -> Check {
        let bench = Bench::postgres().await;
        bench.sql(spoil).await;
        let found = checks(&bench, &ALL).await;
        let check = one(&found, name);
        assert_eq!(check.verdict, verdict, "{found:#?}");
        assert!(!check.advice.is_empty());
        check.clone()
    }

    #[tokio::test]
    async fn the_vendors_tables_are_in_order_but_for_the_index() {
        let bench = Bench::postgres().await;
        let found = checks(&bench, &ALL).await;
        let bad = bad(&found);
        assert_eq!((bad.len(), bad[0].name, bad[0].verdict), (1, "card index", CheckVerdict::Warning), "{found:#?}");
        assert!(bad[0].advice.contains("CREATE INDEX CONCURRENTLY ON \"tenant_1\".\"users_cards\" (\"user_id\");"));
        bench.sql("CREATE INDEX ON tenant_1.users_cards (user_id)").await;
        assert!(checks(&bench, &ALL).await.iter().all(|c| c.verdict == CheckVerdict::Ok));
    }

    #[tokio::test]
    async fn only_what_is_needed_must_be_there() {
        let bench = Bench::postgres().await;
        bench.sql("DROP TABLE tenant_1.ou; ALTER TABLE tenant_1.users DROP COLUMN ou_number, DROP COLUMN source").await;
        let found = checks(&bench, &Needs::default()).await;
        assert!(found.iter().all(|c| c.verdict != CheckVerdict::Failed), "{found:#?}");
        let found = checks(&bench, &ALL).await;
        assert_eq!(found.iter().filter(|c| c.verdict == CheckVerdict::Failed).count(), 2, "{found:#?}");
    }

    #[tokio::test]
    async fn columns_that_an_insert_would_leave_null_are_named() {
        let check = spoiled("ALTER TABLE tenant_1.users_cards ADD batch int NOT NULL", "insert defaults", CheckVerdict::Failed).await;
        assert!(check.found.contains("batch") && check.advice.contains("{batch: 0}"), "{check:?}");
        let check = spoiled("ALTER TABLE tenant_1.users_cards DROP COLUMN replicated_card", "insert defaults", CheckVerdict::Failed).await;
        assert!(check.found.contains("replicated_card"));
    }

    #[tokio::test]
    async fn a_card_column_that_is_too_short_is_told() {
        let check = spoiled("ALTER TABLE tenant_1.users_cards ALTER card TYPE varchar(34)", "card length", CheckVerdict::Failed).await;
        assert!(check.found.contains("34") && check.found.contains("35"), "{}", check.found);
    }

    #[tokio::test]
    async fn missing_privileges_are_told_as_the_grants_that_help() {
        let spoil = "REVOKE DELETE ON tenant_1.users_cards FROM credkeeper; REVOKE UPDATE (ou_number) ON tenant_1.users FROM credkeeper;
                     REVOKE USAGE ON SEQUENCE tenant_1.users_cards_id_seq FROM credkeeper";
        let check = spoiled(spoil, "privileges", CheckVerdict::Failed).await;
        for grant in [
            "GRANT DELETE ON \"tenant_1\".\"users_cards\" TO \"credkeeper\";",
            "GRANT UPDATE ON \"tenant_1\".\"users\" TO \"credkeeper\";",
            "GRANT USAGE ON SEQUENCE tenant_1.users_cards_id_seq TO \"credkeeper\";",
        ] {
            assert!(check.advice.contains(grant), "{grant} in {}", check.advice);
        }
        assert!(!check.advice.contains("SELECT") && !check.advice.contains("INSERT"), "{}", check.advice);
        // Given, they help.
        let bench = Bench::postgres().await;
        bench.sql(&format!("{spoil}; {}", check.advice)).await;
        assert_eq!(one(&checks(&bench, &ALL).await, "privileges").verdict, CheckVerdict::Ok);
        let check = spoiled("REVOKE USAGE ON SCHEMA tenant_1 FROM credkeeper", "inspection", CheckVerdict::Failed).await;
        assert!(check.advice.contains("GRANT USAGE ON SCHEMA"), "{check:?}");
    }

    #[tokio::test]
    async fn pin_formats_are_counted_and_never_shown() {
        let mut bench = Bench::postgres().await;
        bench.add_user(NewUser::new(1, "a")).await;
        for i in 0..12 {
            bench.add_card(1, &pin(&format!("{i:04}")), None, "").await;
        }
        bench.add_card(1, "123456", None, "").await;
        bench.add_card(1, "04A1B2C3", None, "").await;
        let found = checks(&bench, &ALL).await;
        let check = one(&found, "PIN formats");
        assert_eq!(check.verdict, CheckVerdict::Ok);
        assert_eq!(check.found, "12 md5, 0 md5_without_prefix, 0 prefix, 1 of 1 to 8 digits, 1 other");
        bench.config.pin_format = PinFormat::Prefix;
        let found = checks(&bench, &ALL).await;
        let check = one(&found, "PIN formats");
        assert_eq!(check.verdict, CheckVerdict::Warning);
        assert!(check.advice.contains("conversionPIN"));
    }

    #[tokio::test]
    async fn ids_handed_out_in_blocks_are_told() {
        let check = spoiled("ALTER SEQUENCE tenant_1.users_id_seq CACHE 20", "id sequence", CheckVerdict::Warning).await;
        assert!(check.advice.contains("grows: false"));
    }
}
