//! What every session of ours with PostgreSQL is called and limited to, as the server itself sees it.
#![cfg(unix)]

use credkeeper::store::Filter;

use crate::bench::{Bench, NewUser, read, user_id};

/// A view in place of the users table, whose login tells what the session is set to that reads it.
const MIRROR: &str = "
    CREATE VIEW tenant_1.mirror AS SELECT id, email, name, surname, flag, ou_id, ou_number, source,
      concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'),
                     current_setting('application_name'), current_setting('transaction_read_only')) AS login FROM tenant_1.users;
    GRANT SELECT ON tenant_1.mirror TO credkeeper";

#[tokio::test]
async fn each_session_has_its_name_and_its_limits() {
    let mut bench = Bench::postgres().await;
    bench.add_user(NewUser::new(1, "a")).await;
    bench.sql(MIRROR).await;
    bench.config.map.users.table = "mirror".into();
    let store = bench.store().await;
    let _lead = store.lead().await.unwrap().expect("the leadership");
    for _ in 0..2 {
        // The second time the session comes back from the pool.
        assert_eq!(read(store.reader(), &Filter::default()).await[0].login, "20s 10s 30s credkeeper on");
    }
    let (transaction, users) = store.begin(&[user_id(1)]).await.unwrap();
    assert_eq!(users[0].login, "20s 10s 30s credkeeper off");

    let sessions = "SELECT client_port::text FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'credkeeper'";
    let ports: Vec<u16> = bench.rows(sessions).await.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect();
    assert_eq!(ports.len(), 3, "the reader's, the writer's, the leader's");
    #[cfg(target_os = "linux")]
    for port in ports {
        let waits = keepalive_ticks(port).unwrap_or_else(|| panic!("no keepalive on port {port}"));
        assert!((1..=3_000).contains(&waits), "{waits} hundredths of a second");
    }
    drop(transaction);
}

/// Hundredths of a second until this socket of ours asks the other side whether it is still there; `None`: it never will.
#[cfg(target_os = "linux")]
fn keepalive_ticks(local_port: u16) -> Option<u32> {
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let of_port = format!(":{local_port:04X}");
    // local address, remote address, state, queues, timer:when
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|fields| fields[1].ends_with(&of_port))?;
    fields[5].strip_prefix("02:").and_then(|when| u32::from_str_radix(when, 16).ok())
}
