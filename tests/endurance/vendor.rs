//! Plays the print system: adds users, gives, replaces and removes PINs, deletes and moves users, all at random, from three sessions at once.
//! Its PINs have eight digits and are counted upwards, so that nobody else can draw one of them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::site::Site;

const SESSIONS: u64 = 3;
/// Between two changes of a session.
const PAUSE_MS: std::ops::Range<u64> = 20..100;

pub struct Vendor {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    ends: AtomicBool,
    /// Of everybody who was ever added.
    ids: Mutex<Vec<i64>>,
    people: AtomicU32,
    pins: AtomicU32,
    done: [AtomicU64; DEEDS.len()],
    refused: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Deed {
    AddVisitor,
    AddStaff,
    GivePin,
    ReplacePin,
    EndPin,
    RemovePins,
    RemoveManyPins,
    DeleteUser,
    Move,
}

/// What is done how often.
const DEEDS: [(Deed, u32); 9] = [
    (Deed::AddVisitor, 30),
    (Deed::AddStaff, 18),
    (Deed::GivePin, 9),
    (Deed::ReplacePin, 8),
    (Deed::EndPin, 8),
    (Deed::RemovePins, 12),
    (Deed::RemoveManyPins, 1),
    (Deed::DeleteUser, 5),
    (Deed::Move, 9),
];

impl Vendor {
    pub async fn start(site: &Site, seed: u64) -> Vendor {
        let shared = Arc::new(Shared {
            ends: AtomicBool::new(false),
            ids: Mutex::default(),
            people: AtomicU32::new(0),
            pins: AtomicU32::new(10_000_000),
            done: Default::default(),
            refused: AtomicU64::new(0),
        });
        let mut tasks = Vec::new();
        for n in 0..SESSIONS {
            let client = site.connect().await.expect("a session of the vendor");
            tasks.push(tokio::spawn(work(shared.clone(), client, StdRng::seed_from_u64(seed + n))));
        }
        Vendor { shared, tasks }
    }

    /// Ends it; what was done, in words.
    pub async fn stop(self) -> String {
        self.shared.ends.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("the vendor");
        }
        let counts = DEEDS.iter().zip(&self.shared.done).map(|((deed, _), n)| format!("{deed:?} {}", n.load(Ordering::Relaxed)));
        let counts: Vec<String> = counts.collect();
        format!("{}; refused by the database {}", counts.join(", "), self.shared.refused.load(Ordering::Relaxed))
    }
}

async fn work(shared: Arc<Shared>, client: Client, mut dice: StdRng) {
    while !shared.ends.load(Ordering::Relaxed) {
        let (n, deed) = drawn(&mut dice);
        match act(&shared, &client, &mut dice, deed).await {
            Ok(()) => shared.done[n].fetch_add(1, Ordering::Relaxed),
            // A user who is being given a PIN cannot be deleted just then, and the like.
            Err(e) if e.as_db_error().is_some() => shared.refused.fetch_add(1, Ordering::Relaxed),
            Err(e) => panic!("the vendor's session ended: {e}"),
        };
        tokio::time::sleep(Duration::from_millis(dice.random_range(PAUSE_MS))).await;
    }
}

fn drawn(dice: &mut StdRng) -> (usize, Deed) {
    let mut left = dice.random_range(0..DEEDS.iter().map(|(_, weight)| weight).sum());
    for (n, (deed, weight)) in DEEDS.iter().enumerate() {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return (n, *deed),
        }
    }
    unreachable!("less than the sum")
}

async fn act(shared: &Shared, client: &Client, dice: &mut StdRng, deed: Deed) -> Result<(), tokio_postgres::Error> {
    let n = shared.people.fetch_add(1, Ordering::Relaxed);
    let user = shared.somebody(dice);
    let pin = format!("'PIN' || md5('{}')", shared.pins.fetch_add(1, Ordering::Relaxed));
    let until = match dice.random_range(0..4) {
        0 => "NULL",
        1 => "localtimestamp - interval '1 hour'",
        2 => "localtimestamp + interval '5 seconds'",
        _ => "localtimestamp + interval '90 days'",
    };
    let give = |to: &str| {
        format!(
            "INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) SELECT id, {pin}, 0, 0, {until} FROM users WHERE {to}"
        )
    };
    let sql = match deed {
        Deed::AddVisitor => {
            // The cost center is set with the row, or a moment after.
            let at_once = dice.random_bool(0.7);
            let place = if at_once { "11, 100" } else { "0, 0" };
            let login = format!("v{n}@visitors.example");
            shared.add(client, &format!("INSERT INTO users (login, ou_id, ou_number) VALUES ('{login}', {place}) RETURNING id")).await?;
            if at_once {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..800))).await;
            format!("UPDATE users SET ou_id = 11, ou_number = 100 WHERE login = '{login}'")
        }
        Deed::AddStaff => {
            let add = format!("INSERT INTO users (login, email) VALUES ('s{n}', 's{n}@example.com') RETURNING id");
            let pin = dice.random_bool(0.3).then(|| give(&format!("login = 's{n}'")));
            return shared.add(client, &[add, pin.unwrap_or_default()].join(";")).await;
        }
        Deed::GivePin => give(&format!("id = {user}")),
        Deed::ReplacePin => format!(
            "UPDATE users_cards SET card = {pin}, pin_expiration_date = {until}
              WHERE id = (SELECT min(id) FROM users_cards WHERE user_id = {user} AND card LIKE 'PIN%')"
        ),
        Deed::EndPin => {
            format!(
                "UPDATE users_cards SET pin_expiration_date = localtimestamp - interval '1 minute' WHERE user_id = {user} AND card LIKE 'PIN%'"
            )
        }
        Deed::RemovePins => format!("DELETE FROM users_cards WHERE user_id = {user} AND card LIKE 'PIN%'"),
        Deed::RemoveManyPins => {
            let many: Vec<String> = (0..20).map(|_| shared.somebody(dice).to_string()).collect();
            format!("DELETE FROM users_cards WHERE user_id IN ({}) AND card LIKE 'PIN%'; SELECT pg_sleep(0.3)", many.join(","))
        }
        Deed::DeleteUser => format!("DELETE FROM users_cards WHERE user_id = {user}; DELETE FROM users WHERE id = {user}"),
        Deed::Move => {
            let place = ["ou_id = 0, ou_number = 0", "ou_id = 11, ou_number = 100", "ou_id = 12, ou_number = 200"][dice.random_range(0..3)];
            format!("UPDATE users SET {place} WHERE id = {user}")
        }
    };
    // All statements of a text are one transaction.
    client.batch_execute(&sql).await
}

impl Shared {
    /// Runs statements of which one gives the id of somebody new.
    async fn add(&self, client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
        for message in client.simple_query(sql).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let id = row.get(0).and_then(|id| id.parse().ok()).expect("an id");
                self.ids.lock().expect("the ids").push(id);
            }
        }
        Ok(())
    }

    /// Often one of the newest, with whom credkeeper is busy just then.
    fn somebody(&self, dice: &mut StdRng) -> i64 {
        let ids = self.ids.lock().expect("the ids");
        let from = if dice.random_bool(0.6) { ids.len().saturating_sub(40) } else { 0 };
        if ids.is_empty() { 0 } else { ids[dice.random_range(from..ids.len())] }
    }
}
