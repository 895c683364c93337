//! Two daemons on one database for minutes, beside a vendor that changes everything at random; the one that leads is killed from time
//! to time. With one journal, as two on one host have it; and with two, as on two hosts, which is not supported but must never give two
//! users one PIN, or one user two.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio_postgres::Client;

use crate::history;
use crate::journals;
use crate::judge::{Court, Told};
use crate::pg::free_port;
use crate::site::{Process, Site, Step, is_long};
use crate::vendor::Vendor;

/// What a takeover may take (product rule R26).
const TAKEOVER: Duration = Duration::from_secs(30);
const LEADS: &str = "credkeeper_leader{database=\"main\"} 1\n";

/// How long the vendor works, and between which pauses the leader is killed.
fn spans() -> (Duration, std::ops::Range<f64>) {
    if is_long() { (Duration::from_secs(300), 1.0..6.0) } else { (Duration::from_secs(40), 2.0..6.0) }
}

/// One of the two.
struct Seat {
    config: PathBuf,
    port: u16,
    journal: PathBuf,
    role: &'static str,
    process: Option<Process>,
}

impl Seat {
    fn new(site: &Site, name: &str, journal: &str, role: &'static str) -> Seat {
        let port = free_port();
        let listen = regex::Regex::new(r"listen: '[^']+'").unwrap();
        let yaml = std::fs::read_to_string(site.config()).unwrap();
        let yaml = listen.replace(&yaml, format!("listen: '127.0.0.1:{port}'"));
        let yaml = yaml.replace("journal.db", &format!("{journal}.db")).replace("journal.key", &format!("{journal}.key"));
        let config = site.folder().join(format!("{name}.yaml"));
        std::fs::write(&config, yaml.replace("postgres://credkeeper@", &format!("postgres://{role}@"))).unwrap();
        Seat { config, port, journal: site.folder().join(format!("{journal}.db")), role, process: None }
    }

    fn start(&mut self, site: &Site) {
        self.process = Some(site.start_by(&self.config, self.port, &[]));
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    async fn leads(&self) -> bool {
        match &self.process {
            Some(process) => process.page("/metrics").await.is_some_and(|page| page.contains(LEADS)),
            None => false,
        }
    }

    async fn until_it_leads(&self) -> Duration {
        let begun = Instant::now();
        while !self.leads().await {
            assert!(begun.elapsed() < 2 * TAKEOVER, "{} does not lead:\n{}", self.config.display(), self.process().log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }
}

async fn site() -> Site {
    let site = Site::empty().await.with_config(|yaml| {
        yaml.replace("poll: 5s", "poll: 1s\n  resync: 10s")
            .replace("limits:\n", "limits:\n  users_shrunk: unlimited\n  pinless_rise: unlimited\n")
            .replace("batch_size: 1000", "batch_size: 20")
    });
    history::record(&site.connect().await.unwrap()).await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_with_one_journal_are_as_good_as_one() {
    let site = site().await;
    let mut seats = [Seat::new(&site, "first", "journal", "credkeeper"), Seat::new(&site, "second", "journal", "credkeeper")];
    let told = endure(&site, &mut seats, "one journal").await;
    assert_eq!(told.crossed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_with_a_journal_each_never_give_one_pin_twice() {
    let site = site().await;
    // Another role, so that the history tells the two apart.
    site.sql("GRANT credkeeper TO reader").await;
    let mut seats = [Seat::new(&site, "first", "first", "credkeeper"), Seat::new(&site, "second", "second", "reader")];
    endure(&site, &mut seats, "two journals").await;
}

async fn endure(site: &Site, seats: &mut [Seat; 2], form: &str) -> Told {
    let seed: u64 = rand::random();
    println!("{form}: the vendor's seed is {seed}");
    let (span, pauses) = spans();
    let one_journal = seats[0].journal == seats[1].journal;
    let mut leader = 0;
    seats[leader].start(site);
    seats[leader].process().until(Step::Ready).await;
    seats[1].start(site);
    let vendor = Vendor::start(site, seed).await;
    let watcher = site.connect().await.unwrap();

    let until = Instant::now() + span;
    let mut takeovers = Vec::new();
    while Instant::now() < until {
        let kill_at = Instant::now() + Duration::from_secs_f64(rand::rng().random_range(pauses.clone()));
        let mut led_at = Instant::now();
        while Instant::now() < kill_at.min(until) || led_at.elapsed() > Duration::from_secs(1) {
            match leading(seats).await {
                Some(seat) if seat == leader => led_at = Instant::now(),
                // The lead alone goes over when a session breaks; the journal's lock stays where it is.
                Some(seat) => {
                    assert!(!one_journal, "the standby leads beside a living daemon\n{}", seats[leader].process().log());
                    println!("{form}: the lead went over by itself");
                    (leader, led_at) = (seat, Instant::now());
                }
                None => assert!(led_at.elapsed() < TAKEOVER, "nobody leads:\n{}", seats[leader].process().log()),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        if Instant::now() >= until {
            break;
        }
        // Of three kills two fall into a transaction, or just after it; the third falls anywhere, which is mostly between passes.
        if takeovers.len() % 3 < 2 {
            inside_a_transaction(&watcher).await;
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..12))).await;
        }
        let killed = seats[leader].process.take().expect("it runs");
        assert!(killed.kill(), "it had ended by itself");
        leader = 1 - leader;
        takeovers.push(seats[leader].until_it_leads().await);
        seats[1 - leader].start(site);
        seats[1 - leader].process().says("Standing by", 1).await;
    }
    let of_vendor = vendor.stop().await;

    // Some PINs end only now (the vendor gives such as end in five seconds).
    tokio::time::sleep(Duration::from_secs(6)).await;
    // What is left is done; with two journals each has mail of its own, and sends it only while it leads.
    settled(site, &seats[leader]).await;
    if !one_journal {
        assert_eq!(seats[leader].process.take().expect("it runs").stop().code, 0);
        leader = 1 - leader;
        seats[leader].until_it_leads().await;
        settled(site, &seats[leader]).await;
    }
    for seat in [1 - leader, leader] {
        if let Some(process) = seats[seat].process.take() {
            let ended = process.stop();
            assert_eq!(ended.code, 0, "{}", ended.all());
        }
    }
    let plan = site.start_by(&seats[leader].config, seats[leader].port, &["plan", "--exit-code"]).wait();
    assert_eq!(plan.code, 0, "nothing is left to do: {}", plan.all());

    let history = history::read(&site.connect().await.unwrap()).await;
    let mut court = Court::hear(&history);
    let mut journals = vec![(seats[0].role, journals::batches(&seats[0].journal))];
    if !one_journal {
        journals.push((seats[1].role, journals::batches(&seats[1].journal)));
    }
    court.compare_journals(&history, &journals);
    court.compare_mails(&site.received(), one_journal);
    let longest = takeovers.iter().max().copied().unwrap_or_default();
    println!("{form}, {} s: the vendor: {of_vendor}", span.as_secs());
    println!("{form}: {:#?}", court.told);
    println!(
        "{form}: {} takeovers after SIGKILL, the longest {:.1} s: {:.1?}",
        takeovers.len(),
        longest.as_secs_f64(),
        takeovers.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()
    );
    assert!(court.wrong.is_empty(), "{form}, seed {seed}: {} things are wrong:\n{}", court.wrong.len(), court.wrong.join("\n"));
    assert!(court.told.pins_issued > 50 && court.told.mails >= court.told.users_with_our_pin, "too little was done to show anything");
    assert!(takeovers.len() >= 2 && longest < TAKEOVER, "{takeovers:?}");
    court.told
}

/// Who of the two says that it leads; never both.
async fn leading(seats: &[Seat; 2]) -> Option<usize> {
    let (first, second) = (seats[0].leads().await, seats[1].leads().await);
    // Between the two looks the lead may have gone over.
    assert!(!(first && second && seats[0].leads().await), "both lead:\n{}\n{}", seats[0].process().log(), seats[1].process().log());
    if second { Some(1) } else { first.then_some(0) }
}

/// Waits until credkeeper has written something that is not committed yet.
async fn inside_a_transaction(watcher: &Client) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'credkeeper' AND backend_xid IS NOT NULL AND datname = current_database()";
    let until = Instant::now() + Duration::from_secs(20);
    while watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(Instant::now() < until, "credkeeper writes nothing");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until a full comparison finds nothing to do, and no mail waits.
async fn settled(site: &Site, seat: &Seat) {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let plan = site.start_by(&seat.config, seat.port, &["plan", "--exit-code"]).wait();
        if plan.code == 0 && journals::count(&seat.journal, &journals::OPEN) == 0 {
            return;
        }
        assert!(Instant::now() < until, "there is still something to do: {}\n{}", plan.all(), seat.process().log());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
