//! The inspection: what `doctor` prints and what a start refuses on (R40). Each check is one question; only what the policies
//! need must resolve.

use crate::domain::PinFormat;
use crate::store::sql::is_pin;
use crate::store::{CENTER_LINKS, Check, CheckVerdict, PRIVILEGES, WRITABLE};
use crate::tls::Verify;

use super::*;

mod columns;
mod refusal;
mod rights;

use columns::{Column, Table};

/// How many cards are looked at for their form.
const SAMPLE: i64 = 10_000;

/// A code of at most 16 digits: an IV and two blocks of 16 bytes, in Base64.
const LONGEST_CODE: i64 = 64;
/// bcrypt.
const LONGEST_PASSWORD: i64 = 60;

/// The values that this format writes are at most this long.
fn longest(format: PinFormat) -> i64 {
    match format {
        PinFormat::Md5 => 35,
        PinFormat::Md5WithoutPrefix => 32,
        PinFormat::Prefix => 19,
        PinFormat::Plain { .. } => 16,
    }
}

impl Postgres {
    pub(in crate::store) async fn inspect(&self) -> Vec<Check> {
        let client = match self.reading().await {
            Ok(client) => client,
            Err(error) => return vec![refusal::check(&self.db, &error)],
        };
        let mut checks = Vec::new();
        if let Err(error) = self.look_through(&client, &mut checks).await {
            let (found, remedy) = error.told();
            let advice = match (remedy, error.kind(), &self.db.schema) {
                (_, "permission", Some(schema)) => format!("GRANT USAGE ON SCHEMA {} TO {};", quoted(schema), quoted(&self.role())),
                (Some(remedy), ..) => remedy.to_owned(),
                (None, "timeout", _) => "see whether the server hangs: its log, and SELECT * FROM pg_stat_activity".to_owned(),
                (None, ..) => "see the message, and the server's log".to_owned(),
            };
            checks.push(Check::failed("inspection", format!("{found}; the checks after it were not made"), advice));
        }
        checks
    }

    /// Who logs in.
    fn role(&self) -> String {
        match &self.db.target {
            DatabaseTarget::Postgres { user, .. } => user.clone(),
            DatabaseTarget::Sqlite { .. } => String::new(),
        }
    }

    async fn look_through(&self, client: &Client, checks: &mut Vec<Check>) -> Result<(), StoreError> {
        let map = &self.db.map;
        checks.push(Check::ok("connection", format!("connected to {}", self.connector.server())));
        checks.push(self.encryption(client).await?);
        checks.push(self.version(client).await?);
        checks.push(self.writable(client).await?);
        if !self.schema(client, checks).await? {
            return Ok(());
        }

        let tables = self.tables();
        let mut columns_of = HashMap::new();
        let mut complete = true;
        for table in &tables {
            let columns = self.columns_of(client, table).await?;
            let check = self.compare(client, table, &columns).await?;
            complete &= check.verdict != CheckVerdict::Failed;
            checks.push(check);
            columns_of.insert(table.check, columns);
        }
        if !complete {
            return Ok(());
        }
        let cards = &tables[1];
        let empty = Vec::new();
        let card_columns = columns_of.get(cards.check).unwrap_or(&empty);
        checks.push(self.defaults(card_columns));
        checks.push(self.length(card_columns));
        checks.extend(self.link_defaults(columns_of.get(CENTER_LINKS).unwrap_or(&empty)));
        checks.extend(self.value_lengths(columns_of.get(tables[0].check).unwrap_or(&empty)));
        checks.push(self.privileges(client, &tables, card_columns).await?);
        checks.push(self.index(client, cards).await?);
        checks.push(self.formats(client, cards).await?);
        if map.users.id_grows {
            checks.extend(self.sequence(client, &tables[0]).await?);
        }
        Ok(())
    }

    /// That a session is encrypted is certain from our own settings: there is no falling back. The server only adds how, and
    /// through a pooler it tells of the pooler's own connection.
    async fn encryption(&self, client: &Client) -> Result<Check, StoreError> {
        let Some(tls) = self.connector.tls() else {
            return Ok(match self.connector.is_local() {
                true => Check::ok("encryption", "none; the server is this machine"),
                false => Check::warning("encryption", "none: the network in between reads along", "set `tls: {mode: verify-full}`"),
            });
        };
        let sql = "SELECT s.version::text, s.cipher::text FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid() AND s.ssl";
        let rows = self.rows(client, "ask how the session is encrypted", sql, &[]).await?;
        let how = match rows.first() {
            Some(row) => format!("{} ({})", row.get::<_, &str>(0), row.get::<_, &str>(1)),
            None => "TLS as far as a pooler, which speaks unencrypted to the server".to_owned(),
        };
        let ours = if tls.client.is_some() { ", with a certificate of ours" } else { "" };
        Ok(match tls.verify {
            Verify::Full => Check::ok("encryption", format!("{how}, the server's certificate and its name verified{ours}")),
            Verify::Chain => Check::ok("encryption", format!("{how}, the server's certificate verified, not its name{ours}")),
            Verify::Nothing => {
                let advice = "whoever stands in between can read along: name the authority in `tls.ca_file`, with `mode: verify-full`";
                Check::warning("encryption", format!("{how}, the server's certificate not verified{ours}"), advice)
            }
        })
    }

    async fn version(&self, client: &Client) -> Result<Check, StoreError> {
        let sql = "SELECT current_setting('server_version')::text, current_setting('server_version_num')::bigint";
        let rows = self.rows(client, "ask for the version", sql, &[]).await?;
        let row = only(&rows, "ask for the version")?;
        let (text, number): (String, i64) = (row.get(0), row.get(1));
        let found = format!("PostgreSQL {text}");
        Ok(match number {
            ..90_500 => Check::failed("server version", found, "PostgreSQL 9.5 or later is needed (INSERT ... ON CONFLICT)"),
            90_500..100_000 => Check::warning("server version", found, "tested from PostgreSQL 10 on"),
            _ => Check::ok("server version", found),
        })
    }

    /// What a writing session would get: our own reading sessions are read-only by their setting, so the setting that they
    /// started with is asked for, and for whom it was made.
    async fn writable(&self, client: &Client) -> Result<Check, StoreError> {
        let sql = "SELECT pg_is_in_recovery(), reset_val = 'on', current_database()::text, current_user::text,
                    (SELECT array_agg(coalesce(d.datname, '') || '/' || coalesce(r.rolname, '')) FROM pg_db_role_setting s
                       LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
                      WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                        AND s.setrole IN (0, current_user::regrole) AND array_to_string(s.setconfig, ' ') LIKE '%default_transaction_read_only=%')
               FROM pg_settings WHERE name = 'default_transaction_read_only'";
        let rows = self.rows(client, "ask whether the server is read-only", sql, &[]).await?;
        let row = only(&rows, "ask whether the server is read-only")?;
        Ok(match (row.get(0), row.get(1)) {
            (true, _) => {
                let advice = "name the primary in `url`, or all hosts with commas in between: the one that takes changes is found";
                Check::failed(WRITABLE, "the server is a standby (pg_is_in_recovery): it takes no changes", advice)
            }
            (_, true) => {
                let (database, role): (&str, &str) = (row.get(2), row.get(3));
                let made = row.get::<_, Option<Vec<String>>>(4).unwrap_or_default();
                let reset: Vec<String> = made.iter().map(|made| reset(made, database, role)).collect();
                let reset = match reset.is_empty() {
                    true => "take default_transaction_read_only out of postgresql.conf of the server, and reload it;".to_owned(),
                    false => reset.join(" "),
                };
                let found = format!("new sessions of {role} in {database} are read-only (default_transaction_read_only = on)");
                Check::failed(WRITABLE, found, format!("{reset} or, if it is meant, name the primary in `url`"))
            }
            _ => Check::ok(WRITABLE, "the server takes changes"),
        })
    }

    /// Whether the users table is where the configuration says.
    async fn schema(&self, client: &Client, checks: &mut Vec<Check>) -> Result<bool, StoreError> {
        let table = &self.db.map.users.table;
        let mut binder = Binder::postgres();
        let (name, qualified) = (binder.text(table), binder.text(&self.qualified(table)));
        let sql = format!(
            "SELECT (SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass({qualified})),
                    (SELECT array_agg(n.nspname::text ORDER BY n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                      WHERE c.relname = {name} AND c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')),
                    current_database()::text"
        );
        let rows = self.rows(client, "look for the schema", &sql, &binder.args).await?;
        let row = only(&rows, "look for the schema")?;
        let found: Option<String> = row.get(0);
        let others: Vec<String> = row.get::<_, Option<Vec<String>>>(1).unwrap_or_default();
        let database: String = row.get(2);
        let schema = self.db.schema.as_deref().unwrap_or("the connection's default");
        checks.push(match (&found, others.as_slice()) {
            (Some(schema), _) => Check::ok("schema", format!("{schema} of database {database}")),
            (None, []) => {
                let advice = format!(
                    "no schema of database {database} holds a table {table}: check the database in `url`, and `schema_map.users.table`"
                );
                Check::failed("schema", format!("no table {table} in {schema}"), advice)
            }
            (None, others) => {
                let advice = format!("set `schema` to one that holds a table {table}: {}", others.join(", "));
                Check::failed("schema", format!("no table {table} in {schema}"), advice)
            }
        });
        Ok(found.is_some())
    }

    /// An insert sets the mapped columns and `insert_defaults`; whatever else is NOT NULL must have a default.
    fn defaults(&self, columns: &[Column]) -> Check {
        let map = &self.db.map.cards;
        let set = |name: &String| {
            [&map.user, &map.value, &map.expires.column].contains(&name) || map.insert_defaults.iter().any(|(n, _)| n == name)
        };
        let open: Vec<&str> = columns.iter().filter(|c| c.required && !c.has_default && !set(&c.name)).map(|c| c.name.as_str()).collect();
        let absent: Vec<&str> =
            map.insert_defaults.iter().map(|(n, _)| n.as_str()).filter(|n| !columns.iter().any(|c| c.name == *n)).collect();
        if !absent.is_empty() {
            let advice = format!("{} has no such column: take it out of `schema_map.cards.insert_defaults`", map.table);
            return Check::failed("insert defaults", absent.join(", "), advice);
        }
        if !open.is_empty() {
            let advice = format!("give values in `schema_map.cards.insert_defaults`, for instance {{{}: 0}}", open[0]);
            return Check::failed("insert defaults", format!("NOT NULL without a default: {}", open.join(", ")), advice);
        }
        Check::ok("insert defaults", "every NOT NULL column of the cards table is covered")
    }

    /// Where a move may insert a row: it sets both columns, and nothing else.
    fn link_defaults(&self, columns: &[Column]) -> Option<Check> {
        let Member::Link(link) = &self.db.map.cost_centers.member else { return None };
        let open = |c: &&Column| self.db.needs.moves && c.required && !c.has_default && ![&link.user, &link.to].contains(&&c.name);
        let open: Vec<&str> = columns.iter().filter(open).map(|c| c.name.as_str()).collect();
        let advice = format!("a move inserts a row into {} and knows no value for them: give them defaults there", link.table);
        (!open.is_empty()).then(|| Check::failed(CENTER_LINKS, format!("NOT NULL without a default: {}", open.join(", ")), advice))
    }

    fn length(&self, columns: &[Column]) -> Check {
        let needed = longest(self.db.pin_format);
        let value = &self.db.map.cards.value;
        match columns.iter().find(|c| c.name == *value).and_then(|c| c.length) {
            Some(length) if length < needed => Check::failed(
                "card length",
                format!("{value} holds {length} characters, a PIN takes {needed}"),
                "check `pin_format` and `schema_map.cards.value`",
            ),
            Some(length) => Check::ok("card length", format!("{value} holds {length} characters, a PIN takes {needed}")),
            None => Check::ok("card length", format!("{value} has no bound")),
        }
    }

    /// Whether codes and passwords fit into their columns.
    fn value_lengths(&self, columns: &[Column]) -> Vec<Check> {
        let (users, needs) = (&self.db.map.users, self.db.needs);
        let code =
            users.puk.as_ref().filter(|_| needs.codes).map(|puk| ("code length", &puk.column, "a card assignment code", LONGEST_CODE));
        let password = users.password.as_ref().filter(|_| needs.passwords);
        let password = password.map(|column| ("password length", column, "a password's hash", LONGEST_PASSWORD));
        let check = |(name, column, what, needed): (&'static str, &String, &str, i64)| {
            let length = columns.iter().find(|c| c.name == *column).and_then(|c| c.length);
            match length.filter(|length| *length < needed) {
                Some(length) => {
                    let found = format!("{column} holds {length} characters, {what} takes up to {needed}");
                    Check::failed(name, found, "check `schema_map.users`; a column that is too short would refuse the value")
                }
                None => Check::ok(name, format!("{column} holds {what}")),
            }
        };
        code.into_iter().chain(password).map(check).collect()
    }

    async fn index(&self, client: &Client, cards: &Table) -> Result<Check, StoreError> {
        let column = &self.db.map.cards.user;
        let mut binder = Binder::postgres();
        let (table, owner) = (binder.text(&cards.qualified), binder.text(column));
        let sql = format!(
            "SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
              WHERE i.indrelid = to_regclass({table}) AND i.indisvalid AND i.indpred IS NULL AND a.attname = {owner}"
        );
        let rows = self.rows(client, "look for an index", &sql, &binder.args).await?;
        if only(&rows, "look for an index")?.get::<_, i64>(0) > 0 {
            return Ok(Check::ok("card index", format!("{}({column}) is indexed", cards.name)));
        }
        let advice = format!(
            "each batch scans the whole table; if the vendor allows it: CREATE INDEX CONCURRENTLY ON {} ({});",
            cards.qualified,
            quoted(column)
        );
        Ok(Check::warning("card index", format!("no index on {}({column})", cards.name), advice))
    }

    /// How many values of the newest users have the shape of each form; never a value. A part is enough to see a wrong setting,
    /// and to look at a million cards would take as long as a whole pass.
    async fn formats(&self, client: &Client, cards: &Table) -> Result<Check, StoreError> {
        let value = format!("c.{}::text", quoted(&self.db.map.cards.value));
        let plain = PinFormat::Plain { max_length: 8 };
        let forms = [PinFormat::Md5, PinFormat::Md5WithoutPrefix, PinFormat::Prefix, plain];
        let counts: Vec<String> = forms.iter().map(|form| format!("count(*) FILTER (WHERE {})", is_pin(*form, &value, true))).collect();
        let sql = format!(
            "SELECT {counts}, count(*) FROM (SELECT k.{card} FROM {table} k ORDER BY k.{owner} DESC LIMIT {SAMPLE}) c",
            counts = counts.join(", "),
            card = quoted(&self.db.map.cards.value),
            table = cards.qualified,
            owner = quoted(&self.db.map.cards.user),
        );
        let rows = self.rows(client, "look at the PIN formats", &sql, &[]).await?;
        let row = only(&rows, "look at the PIN formats")?;
        let [md5, bare, prefix, plain, all] = [0, 1, 2, 3, 4].map(|i| row.get::<_, i64>(i));
        let other = all - md5 - bare - prefix - plain;
        let part = if all == SAMPLE { format!("of the newest {SAMPLE}: ") } else { String::new() };
        let found = format!("{part}{md5} md5, {bare} md5_without_prefix, {prefix} prefix, {plain} of 1 to 8 digits, {other} other");
        let (ours, name) = match self.db.pin_format {
            PinFormat::Md5 => (md5, "md5"),
            PinFormat::Md5WithoutPrefix => (bare, "md5_without_prefix"),
            PinFormat::Prefix => (prefix, "prefix"),
            PinFormat::Plain { .. } => (plain, "plain"),
        };
        // Short digits alone prove nothing: they may be card numbers.
        let foreign = md5 + bare + prefix - if matches!(self.db.pin_format, PinFormat::Plain { .. }) { 0 } else { ours };
        if foreign > ours && foreign >= 10 {
            let advice = format!("`pin_format` is {name}: compare it with the print system's property conversionPIN");
            return Ok(Check::warning("PIN formats", found, advice));
        }
        Ok(Check::ok("PIN formats", found))
    }

    /// A sequence that hands out numbers in blocks lets a later row have a smaller id, which a poll would miss.
    async fn sequence(&self, client: &Client, users: &Table) -> Result<Option<Check>, StoreError> {
        let id = &self.db.map.users.id;
        let mut binder = Binder::postgres();
        let (table, column) = (binder.text(&users.qualified), binder.text(id));
        let sql = format!(
            "SELECT s.seqcache FROM pg_sequence s WHERE current_setting('server_version_num')::int >= 100000
                AND s.seqrelid = to_regclass(pg_get_serial_sequence({table}, {column}))"
        );
        // Before version 10 the cache stands in the sequence itself; not worth a statement of its own.
        let Ok(rows) = self.rows(client, "look at the id sequence", &sql, &binder.args).await else { return Ok(None) };
        Ok(rows.first().map(|row| match row.get::<_, i64>(0) {
            ..=1 => Check::ok("id sequence", "ids grow one by one"),
            cache => {
                let advice = "set `schema_map.users.id: {column: …, grows: false}`: new users are then found by the full comparison only";
                Check::warning("id sequence", format!("each session takes {cache} ids at once, so ids do not grow in order"), advice)
            }
        }))
    }
}

/// What undoes a setting that was made for a database, a role or both (`database/role`, of which one may be empty).
fn reset(made: &str, database: &str, role: &str) -> String {
    let whom = match made.split_once('/') {
        Some((_, "")) => format!("DATABASE {}", quoted(database)),
        Some(("", _)) => format!("ROLE {}", quoted(role)),
        _ => format!("ROLE {} IN DATABASE {}", quoted(role), quoted(database)),
    };
    format!("ALTER {whom} RESET default_transaction_read_only;")
}
