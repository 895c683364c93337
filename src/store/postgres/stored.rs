//! Every value of a column, by one statement, streamed: what a look for free PINs and codes needs.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tokio_postgres::RowStream;

use crate::domain::StoredValue;
use crate::store::error::StoreError;
use crate::store::sql::{Arg, Binder, CHUNK, quoted};

use super::read::Session;
use super::{GRACE, Layout, Postgres, within};

type Running = (Pin<Box<RowStream>>, Session);

/// A column that is read whole.
#[derive(Clone, Copy)]
enum Column {
    Cards,
    Codes,
}

impl Column {
    fn step(self) -> &'static str {
        match self {
            Column::Cards => "read PINs",
            Column::Codes => "read card assignment codes",
        }
    }

    /// Table and column; `None`: there is no such column.
    fn place(self, postgres: &Postgres, layout: &Layout) -> Option<(String, String)> {
        let map = &postgres.db.map;
        match self {
            Column::Cards => Some((layout.cards.clone(), quoted(&map.cards.value))),
            Column::Codes => Some((layout.users.clone(), postgres.code_column(layout)?)),
        }
    }
}

impl Postgres {
    pub(in crate::store) fn pins(&self) -> impl Stream<Item = Result<Vec<StoredValue>, StoreError>> + Send + '_ {
        self.whole(Column::Cards)
    }

    pub(in crate::store) fn codes(&self) -> impl Stream<Item = Result<Vec<StoredValue>, StoreError>> + Send + '_ {
        self.whole(Column::Codes)
    }

    fn whole(&self, column: Column) -> impl Stream<Item = Result<Vec<StoredValue>, StoreError>> + Send + '_ {
        stream::try_unfold(None, move |running| self.next_values(column, running))
    }

    async fn next_values(
        &self,
        column: Column,
        running: Option<Running>,
    ) -> Result<Option<(Vec<StoredValue>, Option<Running>)>, StoreError> {
        let step = column.step();
        let (mut rows, mut session) = match running {
            Some((_, Session { done: true, .. })) => return Ok(None),
            Some(running) => running,
            None => match self.start_values(column).await? {
                Some(running) => running,
                None => return Ok(None),
            },
        };
        let limit = self.db.statement_timeout + GRACE;
        let mut chunk = Vec::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            let row = tokio::time::timeout(limit, rows.next()).await.map_err(|_| StoreError::Deadline { step, after: limit })?;
            let Some(row) = row.transpose().map_err(|e| StoreError::query(step, e))? else {
                session.done = true;
                break;
            };
            chunk.push(StoredValue::new(row.try_get(0).map_err(|e| StoreError::query(step, e))?));
        }
        Ok(Some((chunk, Some((rows, session)))))
    }

    async fn start_values(&self, column: Column) -> Result<Option<Running>, StoreError> {
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let Some((table, name)) = column.place(self, layout) else { return Ok(None) };
        let sql = format!("SELECT c.{name}::text FROM {table} c WHERE c.{name} IS NOT NULL AND c.{name}::text <> ''");
        let none: [(&str, tokio_postgres::types::Type); 0] = [];
        let rows = within(column.step(), self.db.statement_timeout + GRACE, client.query_typed_raw(&sql, none)).await?;
        Ok(Some((Box::pin(rows), Session::new(self, client))))
    }

    /// Which of these codes somebody has.
    pub(in crate::store) async fn codes_taken(&self, codes: &[StoredValue]) -> Result<Vec<bool>, StoreError> {
        const STEP: &str = "look for card assignment codes";
        let client = self.reading().await?;
        let layout = self.layout(&client).await?;
        let Some(column) = self.code_column(layout) else { return Ok(vec![false; codes.len()]) };
        let mut binder = Binder::postgres();
        let wanted = binder.bind(Arg::Texts(codes.iter().map(|code| Some(code.expose().to_owned())).collect()));
        let sql = format!(
            "WITH wanted(code) {m} (SELECT DISTINCT w.code FROM unnest({wanted}) w(code))
             SELECT DISTINCT w.code FROM wanted w JOIN {users} u ON u.{column}::text = w.code",
            m = layout.materialized,
            users = layout.users,
        );
        let rows = self.rows(&client, STEP, &sql, &binder.args).await?;
        let taken: Result<Vec<StoredValue>, _> = rows.iter().map(|row| row.try_get(0).map(StoredValue::new)).collect();
        let taken = taken.map_err(|e| StoreError::query(STEP, e))?;
        Ok(codes.iter().map(|code| taken.contains(code)).collect())
    }

    /// The quoted column of the codes, where it is there.
    pub(super) fn code_column(&self, layout: &Layout) -> Option<String> {
        self.db.map.users.puk.as_ref().filter(|_| layout.puk).map(|puk| quoted(&puk.column))
    }

    /// The same of the passwords.
    pub(super) fn password_column(&self, layout: &Layout) -> Option<String> {
        self.db.map.users.password.as_ref().filter(|_| layout.password).map(|column| quoted(column))
    }
}
