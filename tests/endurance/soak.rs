//! Half an hour of visitors, five a second, while the mail server and the database go away three times each: nobody may be lost, and the
//! daemon may not grow. `CREDKEEPER_SOAK=10m` makes it as long as one likes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::journals;
use crate::pg::{self, Cluster, Setup, Stop, TestDb};
use crate::site::{Site, Step, is_long};
use crate::{now, quantile, stored};

const VISITORS_A_SECOND: u32 = 5;
/// The share of the whole time that each outage takes: half a minute of half an hour.
const OUTAGE: f64 = 1.0 / 60.0;
/// After an outage, until pauses that grew have passed, it is not counted how long mails take.
const RECOVERY: f64 = 45.0;
/// By how much the last quarter may lie above the second: the page cache of the journal fills up to 4 MiB, and each new start of the
/// database leaves a little behind.
const MORE_MEMORY_KIB: f64 = 6.0 * 1024.0;
const MORE_FILES: f64 = 8.0;

/// `None`: not in this run.
fn span() -> Option<Duration> {
    match std::env::var("CREDKEEPER_SOAK") {
        Ok(text) => {
            let minutes = text.strip_suffix('m').and_then(|minutes| minutes.parse::<f64>().ok());
            Some(Duration::from_secs_f64(60.0 * minutes.expect("CREDKEEPER_SOAK is a number of minutes, as in 10m")))
        }
        Err(_) => is_long().then(|| Duration::from_secs(1800)),
    }
}

#[derive(Clone, Copy, Debug)]
enum Outage {
    Mail,
    Database(Stop),
}

/// Which outage begins after which share of the time.
const OUTAGES: [(f64, Outage); 6] = [
    (0.12, Outage::Mail),
    (0.25, Outage::Database(Stop::Fast)),
    (0.38, Outage::Mail),
    (0.51, Outage::Database(Stop::Immediate)),
    (0.64, Outage::Mail),
    (0.77, Outage::Database(Stop::Fast)),
];

#[derive(Clone, Copy)]
struct Sample {
    /// Seconds from the start.
    at: f64,
    memory_kib: f64,
    files: f64,
    added: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_hour_of_visitors_through_outages_loses_nobody() {
    let Some(span) = span() else {
        println!("only in `./test long`, or with CREDKEEPER_SOAK=10m");
        return;
    };
    let setup = Setup { name: "soak", hba: pg::HBA, files: Vec::new(), copy_of: None };
    let cluster = std::thread::spawn(|| pg::start(setup)).join().expect("a server of its own");
    let database = TestDb::on(&cluster).await;
    let site = Arc::new(Site::on(database));
    // What was answered with COMMIT must outlive a crash of the server, as it does at a site.
    site.sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on', current_database()); END $$").await;
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;

    let begun = Instant::now();
    let ends = Arc::new(AtomicBool::new(false));
    let added: Arc<Mutex<Vec<(String, f64)>>> = Arc::default();
    let adding = tokio::spawn(add_visitors(site.clone(), added.clone(), ends.clone()));
    let sampling = tokio::spawn(sample(daemon.id(), begun, span, added.clone(), ends.clone()));
    let mut outages = Vec::new();
    for (share, outage) in OUTAGES {
        tokio::time::sleep(span.mul_f64(share).saturating_sub(begun.elapsed())).await;
        let from = now();
        make(&site, &cluster, outage, span.mul_f64(OUTAGE)).await;
        println!("{outage:?}: away for {:.0} s, {:.0} s after the start", now() - from, begun.elapsed().as_secs_f64());
        outages.push((from, now()));
    }
    tokio::time::sleep(span.saturating_sub(begun.elapsed())).await;
    ends.store(true, Ordering::Relaxed);
    adding.await.unwrap();
    let samples = sampling.await.unwrap();
    let added = std::mem::take(&mut *added.lock().unwrap());

    let journal = site.folder().join("journal.db");
    let until = Instant::now() + Duration::from_secs(120);
    let client = site.connect().await.unwrap();
    while journals::count(&journal, &journals::OPEN) > 0 || without_pin(&client).await > 0 {
        assert!(Instant::now() < until, "some visitors still wait:\n{}", daemon.log());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let ended = daemon.stop();
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert_eq!(journals::count(&journal, &["planned", "committed", "undeliverable"]), 0);
    everybody_knows_the_pin(&site, &client, &added, &outages).await;
    flat(&samples);
}

/// One every fifth of a second; what could not be added while the database was away is added later.
async fn add_visitors(site: Arc<Site>, added: Arc<Mutex<Vec<(String, f64)>>>, ends: Arc<AtomicBool>) {
    let begun = Instant::now();
    let mut client: Option<Client> = None;
    let mut n = 0;
    while !ends.load(Ordering::Relaxed) || client.is_none() {
        tokio::time::sleep((begun + Duration::from_secs(1) / VISITORS_A_SECOND * n).saturating_duration_since(Instant::now())).await;
        let Some(session) = &client else {
            client = site.connect().await.ok();
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let login = format!("v{n}@visitors.example");
        // Whoever was cut off does not know whether the row is there.
        let sql = format!(
            "INSERT INTO users (login, ou_id, ou_number) SELECT '{login}', 11, 100 WHERE NOT EXISTS (SELECT FROM users WHERE login = '{login}')"
        );
        match session.batch_execute(&sql).await {
            Ok(()) => {
                added.lock().unwrap().push((login, now()));
                n += 1;
            }
            Err(_) => client = None,
        }
    }
}

async fn make(site: &Site, cluster: &Cluster, outage: Outage, span: Duration) {
    match outage {
        Outage::Mail => site.stop_mail_server(),
        Outage::Database(how) => cluster.stop(how).await,
    }
    tokio::time::sleep(span).await;
    match outage {
        Outage::Mail => site.start_mail_server(),
        Outage::Database(_) => cluster.start_again().await,
    }
}

async fn sample(process: u32, begun: Instant, span: Duration, added: Arc<Mutex<Vec<(String, f64)>>>, ends: Arc<AtomicBool>) -> Vec<Sample> {
    let every = Duration::from_secs(10).min(span / 60);
    let mut samples = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the daemon runs");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        samples.push(Sample {
            at: begun.elapsed().as_secs_f64(),
            memory_kib: memory.trim().trim_end_matches(" kB").parse().expect("a number"),
            files: std::fs::read_dir(format!("/proc/{process}/fd")).expect("its files").count() as f64,
            added: added.lock().unwrap().len(),
        });
        tokio::time::sleep(every).await;
    }
    samples
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(&format!("SELECT ({sql})::bigint"), &[]).await.unwrap().get(0)
}

async fn without_pin(client: &Client) -> i64 {
    number(client, "SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT FROM users_cards c WHERE c.user_id = u.id)").await
}

/// Each visitor has one valid PIN, and the last mail says which.
async fn everybody_knows_the_pin(site: &Site, client: &Client, added: &[(String, f64)], outages: &[(f64, f64)]) {
    let rows = client
        .query(
            "SELECT login, c.card FROM users u JOIN users_cards c ON c.user_id = u.id
              WHERE card LIKE 'PIN%' AND pin_expiration_date > localtimestamp + interval '29 days' AND ou_id = 12 AND ou_number = 200",
            &[],
        )
        .await
        .unwrap();
    let standing: HashMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows.len(), added.len(), "exactly one PIN each");
    assert_eq!(number(client, "SELECT count(*) FROM users_cards").await, added.len() as i64);
    assert_eq!(number(client, "SELECT count(DISTINCT card) FROM users_cards").await, added.len() as i64);

    let mails = site.received();
    let mut last: HashMap<String, String> = HashMap::new();
    let mut first_at: HashMap<String, f64> = HashMap::new();
    for mail in &mails {
        let parsed = crate::site::parse(&mail.data);
        last.insert(parsed.to.clone(), stored(&parsed.pin()));
        first_at.entry(parsed.to).or_insert(mail.at);
    }
    for (login, _) in added {
        let told = last.get(login).unwrap_or_else(|| panic!("{login} was never told"));
        assert_eq!(Some(told), standing.get(login), "{login} was told another PIN");
    }
    let quiet = |at: f64| !outages.iter().any(|(from, to)| at >= from - RECOVERY / 3.0 && at <= to + RECOVERY);
    let took = |wanted: &dyn Fn(f64) -> bool| {
        let mut took: Vec<f64> = added.iter().filter(|(_, at)| wanted(*at)).map(|(login, at)| first_at[login] - at).collect();
        took.sort_by(f64::total_cmp);
        took
    };
    for (which, took) in [("outside of the outages", took(&quiet)), ("in and after them", took(&|at| !quiet(at)))] {
        println!(
            "from the row to the mail, {which}: median {:.1} s, 99 % {:.1} s, longest {:.1} s ({} visitors)",
            quantile(&took, 0.5),
            quantile(&took, 0.99),
            quantile(&took, 1.0),
            took.len()
        );
    }
    println!("{} visitors, {} mails, {} of them told again", added.len(), mails.len(), mails.len() - first_at.len());
}

/// Neither memory nor open files grow.
fn flat(samples: &[Sample]) {
    println!("    at  visitors     RSS  files");
    for sample in samples.iter().step_by((samples.len() / 30).max(1)) {
        println!("{:4.0} s {:9} {:4.1} MiB {:5.0}", sample.at, sample.added, sample.memory_kib / 1024.0, sample.files);
    }
    let quarter = |n: usize, of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples[samples.len() * n / 4..samples.len() * (n + 1) / 4].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        quantile(&values, 0.5)
    };
    for (what, of, more) in [
        ("KiB of memory", (|sample| sample.memory_kib) as fn(&Sample) -> f64, MORE_MEMORY_KIB),
        ("open files", |sample| sample.files, MORE_FILES),
    ] {
        let (second, last) = (quarter(1, of), quarter(3, of));
        println!("{what}: median of the second quarter {second:.0}, of the last {last:.0}, allowed {:.0}", second + more);
        assert!(last <= second + more, "{what} grew");
    }
}
