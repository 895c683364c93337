//! Every value of the card column, by one statement, streamed: what a look for free PINs needs.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tokio_postgres::RowStream;

use crate::domain::StoredValue;
use crate::store::error::StoreError;
use crate::store::sql::{CHUNK, quoted};

use super::read::Session;
use super::{GRACE, Postgres, within};

const STEP: &str = "read PINs";

type Running = (Pin<Box<RowStream>>, Session);

impl Postgres {
    pub(in crate::store) fn pins(&self) -> impl Stream<Item = Result<Vec<StoredValue>, StoreError>> + Send + '_ {
        stream::try_unfold(None, move |running| self.next_pins(running))
    }

    async fn next_pins(&self, running: Option<Running>) -> Result<Option<(Vec<StoredValue>, Option<Running>)>, StoreError> {
        let (mut rows, mut session) = match running {
            Some((_, Session { done: true, .. })) => return Ok(None),
            Some(running) => running,
            None => self.start_pins().await?,
        };
        let limit = self.db.statement_timeout + GRACE;
        let mut chunk = Vec::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            let row = tokio::time::timeout(limit, rows.next()).await.map_err(|_| StoreError::Deadline { step: STEP, after: limit })?;
            let Some(row) = row.transpose().map_err(|e| StoreError::query(STEP, e))? else {
                session.done = true;
                break;
            };
            chunk.push(StoredValue::new(row.try_get(0).map_err(|e| StoreError::query(STEP, e))?));
        }
        Ok(Some((chunk, Some((rows, session)))))
    }

    async fn start_pins(&self) -> Result<Running, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let sql = format!("SELECT c.{0}::text FROM {1} c WHERE c.{0} IS NOT NULL", quoted(&self.db.map.cards.value), layout.cards);
        let none: [(&str, tokio_postgres::types::Type); 0] = [];
        let rows = within("start reading PINs", self.db.statement_timeout + GRACE, client.query_typed_raw(&sql, none)).await?;
        Ok((Box::pin(rows), Session::new(self, client)))
    }
}
