//! One policy that does everything, in each model of the map and on each dialect: it matches a role and a cost center, gives a PIN, moves,
//! and takes the role away; and the second pass is silent.

use credkeeper::journal::{JournalReader, Owner};
use credkeeper::plan::Missing;
use credkeeper::report::{ChangeKind, ChangeOutcome, PassOutcome, Report};

use crate::small_site::{Dialect, SmallSite};

const POLICIES: &str = "policies:
  - name: visitors
    match: {role: [Visitor], not_role: [Admin], cost_center: [Needs PIN]}
    pin: {length: 6, rewrite: never}
    cost_center: {move_to: Has PIN}
    remove_role: Visitor
    notify: {to: username, template: t}
  - name: admins
    match: {role: [32]}
    remove_role: Visitor
";

/// Where roles and cost centers are: the map, and the statements that make it so.
struct Model {
    name: &'static str,
    map: &'static str,
    sql: &'static str,
    /// Puts a user into a cost center, as the print system would.
    put: &'static str,
    /// The cost centers of everybody.
    centers: &'static str,
}

const COLUMN: &str = "UPDATE users SET ou_id = {center}, ou_number = {number} WHERE id = {user}";
const COLUMNS: &str = "SELECT id || ':' || ou_id || '/' || ou_number FROM users WHERE id > 100 ORDER BY 1";
const ROLES: &str = "INSERT INTO users (id, login, flag) VALUES (31, 'Visitor', 163840), (32, 'Admin', 32768)";
const MODELS: [Model; 3] = [
    Model { name: "column", map: "cost_centers: {verified: true}, roles: {verified: true}", sql: ROLES, put: COLUMN, centers: COLUMNS },
    Model {
        name: "users_rows",
        map: "cost_centers: {model: users_rows, number: ou_number, name: surname, where: {bits_set: {column: flag, mask: 16384}}, verified: true}, \
              roles: {model: table, table: roles, id: id, name: title, link: {table: users_roles, user: user_id, role: role_id}, verified: true}",
        sql: "CREATE TABLE roles (id integer PRIMARY KEY, title varchar(50)); INSERT INTO roles VALUES (31, 'Visitor'), (32, 'Admin'); GRANTS roles;
              INSERT INTO users (id, login, surname, flag, ou_number)
                VALUES (31, 'x', '', 32768, 0), (32, 'y', '', 32768, 0), (11, '', 'Needs PIN', 16384, 100), (12, '', 'Has PIN', 16384, 200);
              DELETE FROM ou",
        put: COLUMN,
        centers: COLUMNS,
    },
    Model {
        name: "link_table",
        map: "cost_centers: {model: link_table, link: {table: users_ou, user: user_id, cost_center: ou_id}, verified: true}, roles: {verified: true}",
        sql: "CREATE TABLE users_ou (user_id bigint NOT NULL, ou_id bigint NOT NULL, PRIMARY KEY (user_id, ou_id)); GRANTS users_ou;
              INSERT INTO users (id, login, flag) VALUES (31, 'Visitor', 163840), (32, 'Admin', 32768)",
        put: "INSERT INTO users_ou VALUES ({user}, {center})",
        centers: "SELECT user_id || ':' || ou_id || '/' || number FROM users_ou JOIN ou ON ou.id = ou_id ORDER BY 1",
    },
];

async fn site(dialect: Dialect, model: &Model) -> SmallSite {
    let site = SmallSite::mapped(dialect, model.map, "", POLICIES).await;
    let mut sql = model.sql.to_owned();
    while let Some(at) = sql.find("GRANTS ") {
        let rest = &sql[at + 7..];
        let table = &rest[..rest.find(';').unwrap()];
        let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO credkeeper");
        let made = if dialect == Dialect::Postgres { grant } else { "SELECT 1".to_owned() };
        sql = format!("{}{made}{}", &sql[..at], &rest[table.len()..]);
    }
    site.sql(&sql).await;
    for id in 101..=105 {
        site.sql(&format!("INSERT INTO users (id, login, flag, ou_id, ou_number) VALUES ({id}, 'v{id}@example.org', 1, 0, 0)")).await;
        let center = if id == 105 { ("12", "200") } else { ("11", "100") };
        site.sql(&model.put.replace("{user}", &id.to_string()).replace("{center}", center.0).replace("{number}", center.1)).await;
    }
    // 101: a visitor. 102: one who has a PIN. 103: an administrator too. 104: of no role. 105: elsewhere.
    site.sql("INSERT INTO users_roles VALUES (101, 31), (102, 31), (103, 31), (103, 32), (105, 31)").await;
    site.sql("INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag) VALUES (102, 'PIN81dc9bdb52d04dc20036dbd8313ed055', 0, 0)")
        .await;
    site
}

fn applied(report: &Report, policy: usize) -> Vec<(&'static str, u64)> {
    let changes = &report.policies[policy].changes;
    changes
        .iter()
        .filter(|((_, outcome), n)| *outcome == ChangeOutcome::Applied && **n > 0)
        .map(|((kind, _), n)| (kind.as_str(), *n))
        .collect()
}

async fn a_policy_does_everything_once(dialect: Dialect) {
    for model in &MODELS {
        let about = format!("{} on {dialect:?}", model.name);
        let site = site(dialect, model).await;
        assert_eq!(site.steps(0, true).await, site.steps(0, false).await, "the read filter changes the plan, {about}");
        let report = site.once().await;
        assert_eq!((report.error.as_deref(), report.outcome()), (None, PassOutcome::Changed), "{about}");
        assert_eq!(applied(&report, 0), [("pin_issued", 1), ("cost_center_moved", 2), ("role_removed", 2)], "{about}");
        assert_eq!(applied(&report, 1), [("role_removed", 1)], "{about}");
        let pins = site.column("SELECT user_id || '' FROM users_cards ORDER BY 1").await;
        assert_eq!(pins, ["101", "102"], "{about}");
        let roles = site.column("SELECT user_id || '/' || role_id FROM users_roles ORDER BY 1").await;
        assert_eq!(roles, ["103/32", "105/31"], "{about}");
        let mut centers = site.column(model.centers).await;
        centers.retain(|center| center.starts_with("10"));
        assert_eq!(centers, ["101:12/200", "102:12/200", "103:11/100", "104:11/100", "105:12/200"], "{about}");
        assert_eq!(site.mails().len(), 1, "{about}");

        let again = site.once().await;
        assert_eq!((again.error.as_deref(), again.outcome(), again.applied()), (None, PassOutcome::Unchanged, 0), "{about}");
        assert!(site.steps(0, false).await.is_empty(), "{about}");
        assert_eq!(site.mails().len(), 1, "{about}");

        let config = site.load();
        let journal = JournalReader::open(&config.journal, Owner::all(&config.databases), "main").await.unwrap().unwrap();
        let told = async |id| journal.user_history(credkeeper::domain::UserId(id), 9).await.unwrap()[0].changes.clone();
        assert_eq!(told(101).await, ["PIN issued", "moved", "role removed"], "{about}");
        assert_eq!(told(103).await, ["role removed"], "{about}");
    }
}

#[tokio::test]
async fn a_policy_does_everything_once_on_sqlite() {
    a_policy_does_everything_once(Dialect::Sqlite).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_policy_does_everything_once_on_postgresql() {
    a_policy_does_everything_once(Dialect::Postgres).await;
}

#[tokio::test]
async fn a_role_that_is_not_there_blocks_its_policy_alone() {
    let site = site(Dialect::Sqlite, &MODELS[0]).await;
    site.sql("UPDATE users SET login = 'Visitors' WHERE id = 31").await;
    let report = site.once().await;
    assert_eq!(report.outcome(), PassOutcome::Refused);
    let blocked: Vec<(&str, &Missing)> = report.blockers.iter().map(|b| (b.policy.0.as_str(), &b.missing)).collect();
    let missing = Missing::Role(credkeeper::domain::RoleRef::Name("Visitor".into()));
    assert_eq!(blocked, [("visitors", &missing), ("admins", &missing)]);
    assert_eq!(
        report.policies.iter().map(|p| p.changes.get(&(ChangeKind::RoleRemoved, ChangeOutcome::Applied)).copied()).max(),
        Some(None)
    );
    assert_eq!(site.column("SELECT user_id || '' FROM users_cards").await, ["102"]);
    let checks = credkeeper::doctor::inspect(&site.load()).await;
    let told: Vec<(&str, &str)> =
        checks.iter().filter(|check| check.name == "roles").map(|check| (check.found.as_str(), check.advice.as_str())).collect();
    let advice = "write “Visitors” in the policy if that is meant, or create it in the print system";
    assert_eq!(
        told,
        [
            ("policy visitors names role “Visitor”, which the database does not have", advice),
            ("policy admins names role “Visitor”, which the database does not have", advice)
        ]
    );
    // The id serves as well, and the other policies were never held up.
    site.sql("UPDATE users SET login = 'Visitor' WHERE id = 31").await;
    assert_eq!(site.once().await.outcome(), PassOutcome::Changed);
}
