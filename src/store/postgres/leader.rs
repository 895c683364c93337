//! Who leads on the database, as the server tells it to somebody who does not.

use super::*;
use crate::store::Leader;

impl Postgres {
    /// `None`: nobody leads.
    pub(in crate::store) async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        const STEP: &str = "ask who leads";
        let client = self.reading().await?;
        let key = self.layout(&client).await?.leader_lock();
        let mut binder = Binder::postgres();
        // Of sessions of other roles the server tells the process alone.
        let sql = format!(
            "SELECT l.pid, host(a.client_addr), host(inet_client_addr()) FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
              WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND ((l.classid::bigint << 32) | l.objid::bigint) = {}",
            binder.int(key)
        );
        let rows = self.rows(&client, STEP, &sql, &binder.args).await?;
        let leader = rows.first().map(|row| Leader { process: row.get(0), host: row.get(1), our_host: row.get(2) });
        Ok(leader)
    }
}
