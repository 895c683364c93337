//! Everything that happened to users and their cards, written down by triggers: who, when, the row before and after. The order is
//! that of the commits: the last thing a transaction does is to take a lock and a number, and it gives the lock back once it can be seen.

use std::collections::HashMap;

use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

const TRIGGERS: &str = "
CREATE SCHEMA history;
CREATE SEQUENCE history.turn;
CREATE TABLE history.change (id bigserial PRIMARY KEY, txid bigint, who text, began timestamptz, before jsonb, after jsonb);
CREATE TABLE history.committed (txid bigint PRIMARY KEY, turn bigint, at timestamptz);

CREATE FUNCTION history.person(u tenant_1.users) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('id', u.id, 'login', u.login, 'email', u.email, 'place', u.ou_id, 'number', u.ou_number) $$;
CREATE FUNCTION history.card(c tenant_1.users_cards) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('row', c.id, 'user', c.user_id, 'card', c.card, 'until', extract(epoch FROM c.pin_expiration_date::timestamptz)) $$;

CREATE FUNCTION history.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE was jsonb; becomes jsonb;
BEGIN
  IF TG_TABLE_NAME = 'users' THEN
    IF TG_OP <> 'INSERT' THEN was := history.person(OLD); END IF;
    IF TG_OP <> 'DELETE' THEN becomes := history.person(NEW); END IF;
  ELSE
    IF TG_OP <> 'INSERT' THEN was := history.card(OLD); END IF;
    IF TG_OP <> 'DELETE' THEN becomes := history.card(NEW); END IF;
  END IF;
  INSERT INTO history.change (txid, who, began, before, after)
    VALUES (txid_current(), CASE current_setting('application_name') WHEN 'credkeeper' THEN session_user::text ELSE 'vendor' END, now(), was, becomes);
  RETURN NULL;
END $$;

CREATE FUNCTION history.number() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM history.committed WHERE txid = txid_current()) THEN
    PERFORM pg_advisory_xact_lock(7, 7);
    INSERT INTO history.committed VALUES (txid_current(), nextval('history.turn'), clock_timestamp());
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON tenant_1.users FOR EACH ROW EXECUTE FUNCTION history.note();
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON tenant_1.users_cards FOR EACH ROW EXECUTE FUNCTION history.note();
CREATE CONSTRAINT TRIGGER number AFTER INSERT OR UPDATE OR DELETE ON tenant_1.users DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION history.number();
CREATE CONSTRAINT TRIGGER number AFTER INSERT OR UPDATE OR DELETE ON tenant_1.users_cards DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION history.number();
";

/// One transaction that was committed.
pub struct Transaction {
    /// The role of the credkeeper that did it; `None`: the vendor.
    pub ours: Option<String>,
    /// Seconds of the epoch; it could see what was committed before its statements, all of which came later.
    pub began: f64,
    pub committed: f64,
    pub changes: Vec<Change>,
}

/// One row before and after; a row that was not there is `None`.
pub enum Change {
    Person(Option<Person>, Option<Person>),
    Card(Option<Card>, Option<Card>),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Person {
    pub id: i64,
    pub login: String,
    pub email: String,
    /// Id and number of the cost center.
    pub place: (i64, i64),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Card {
    pub row: i64,
    pub user: i64,
    pub value: String,
    pub until: Option<f64>,
}

pub async fn record(client: &Client) {
    client.batch_execute(TRIGGERS).await.expect("the triggers");
}

/// All transactions, in the order in which they could be seen.
pub async fn read(client: &Client) -> Vec<Transaction> {
    let sql = "SELECT c.txid, c.who, extract(epoch FROM c.began), extract(epoch FROM t.at), c.before, c.after
                 FROM history.change c JOIN history.committed t USING (txid) ORDER BY t.turn, c.id";
    let mut all: Vec<Transaction> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for message in client.simple_query(sql).await.expect("the history") {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let text = |n: usize| row.get(n).unwrap_or_default();
        let place = *known.entry(text(0).to_owned()).or_insert_with(|| {
            all.push(Transaction {
                ours: (text(1) != "vendor").then(|| text(1).to_owned()),
                began: text(2).parse().expect("a moment"),
                committed: text(3).parse().expect("a moment"),
                changes: Vec::new(),
            });
            all.len() - 1
        });
        let json = |n: usize| row.get(n).map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        let (before, after) = (json(4), json(5));
        let of_card = before.as_ref().or(after.as_ref()).is_some_and(|row| row.get("card").is_some());
        all[place].changes.push(match of_card {
            true => Change::Card(before.as_ref().map(card), after.as_ref().map(card)),
            false => Change::Person(before.as_ref().map(person), after.as_ref().map(person)),
        });
    }
    all
}

fn person(row: &Value) -> Person {
    Person {
        id: number(row, "id"),
        login: text(row, "login"),
        email: text(row, "email"),
        place: (number(row, "place"), number(row, "number")),
    }
}

fn card(row: &Value) -> Card {
    Card { row: number(row, "row"), user: number(row, "user"), value: text(row, "card"), until: row["until"].as_f64() }
}

fn number(row: &Value, name: &str) -> i64 {
    row[name].as_i64().expect("a number")
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}
