//! The sandbox fits the rest of the product.

use credkeeper::config::{Config, DatabaseTarget};
use credkeeper::inventory::Standing;
use credkeeper::policy::Needs;
use credkeeper::store::{CheckVerdict, Filter, Reader};

use crate::bench::read;

#[tokio::test]
async fn a_new_sandbox_loads_and_is_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = credkeeper::sandbox::create(&dir.path().join("demo"), 300).unwrap();
    let config = Config::load(&sandbox.config).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let advised: Vec<_> = config.warnings.iter().filter(|w| !w.contains("not built yet")).collect();
    assert!(advised.is_empty(), "nothing in it should be done otherwise: {advised:#?}");
    let mut db = config.databases[0].clone();
    db.needs = Needs { cost_centers: true, source: true, moves: true, roles: true, role_removals: true, codes: true, passwords: true };
    assert!(matches!(&db.target, DatabaseTarget::Sqlite { path } if *path == sandbox.database), "{:?}", db.target);
    let reader = Reader::connect(&db).await.unwrap();
    let checks = reader.inspect().await;
    assert!(checks.iter().all(|check| check.verdict == CheckVerdict::Ok), "{checks:#?}");

    let users = read(&reader, &Filter::default()).await;
    let count = |what: &dyn Fn(&credkeeper::inventory::User) -> bool| users.iter().filter(|user| what(user)).count();
    assert_eq!(count(&|u| u.standing == Standing::Active), 300);
    assert_eq!(reader.counts().await.unwrap().users, 300);
    assert_eq!(count(&|u| u.standing == Standing::Template), 1);
    assert!(count(&|u| u.standing == Standing::NotAUser) >= 3);
    let now = reader.clock().await.unwrap();
    for (kind, found) in [
        ("lapsed", count(&|u| u.pins.iter().any(|p| p.expires.is_some_and(|e| e <= now)))),
        ("valid for a time", count(&|u| u.pins.iter().any(|p| p.expires.is_some_and(|e| e > now)))),
        ("valid for ever", count(&|u| u.pins.iter().any(|p| p.expires.is_none()))),
        ("two PINs", count(&|u| u.pins.len() == 2)),
        ("card only", count(&|u| u.pins.is_empty() && u.cards > 0)),
        ("nothing", count(&|u| u.pins.is_empty() && u.cards == 0 && u.standing == Standing::Active)),
        ("waiting visitor", count(&|u| u.cost_center.number == 100 && u.login.contains('@'))),
        ("served visitor", count(&|u| u.cost_center.number == 200)),
        ("no address", count(&|u| u.email.is_empty() && u.standing == Standing::Active)),
    ] {
        assert!(found > 0, "nobody: {kind}");
    }
}
