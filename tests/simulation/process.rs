//! The program, one process after the other. Each has a runtime of its own; a kill drops the runtime and whatever the process had open,
//! and the next one begins with the files.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use credkeeper::cli::Once;
use credkeeper::complaint::complaint;
use credkeeper::config::Config;
use credkeeper::deliver::{Delivery, Desk, Mode};
use credkeeper::domain::{Timestamp, UserId};
use credkeeper::journal::{Journal, JournalFile, Owner};
use credkeeper::logging::Progress;
use credkeeper::metrics::Metrics;
use credkeeper::reconcile::{self, Ask, Passed, Watch};
use credkeeper::recover::recover;
use credkeeper::report::{PassKind, Report};
use credkeeper::store::{Leadership, Store};
use credkeeper::{clock, commands, once};
use tokio::runtime::{Builder, Runtime};

use crate::check::Broken;
use crate::database;
use crate::post;
use crate::setups::Setup;
use crate::world::World;

/// A folder with a configuration, which one schedule after the other runs in.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub config: Arc<Config>,
    metrics: Arc<Metrics>,
    listener: std::net::TcpListener,
}

impl Bench {
    pub fn new(setup: &Setup) -> Bench {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, setup.yaml(listener.local_addr().unwrap().port())).unwrap();
        let config = Arc::new(Config::load(&path).unwrap_or_else(|problems| panic!("{}: {problems}", setup.name)));
        database::template(&folder.path().join("template.db"));
        let metrics = Arc::new(commands::metrics(&config));
        Bench { folder, config, metrics, listener }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The files as they are before the first start.
    pub fn clear(&self) {
        for name in ["site.db", "journal.db"] {
            for end in ["", "-wal", "-shm", ".lock"] {
                let _ = std::fs::remove_file(self.path(&format!("{name}{end}")));
            }
        }
        std::fs::copy(self.path("template.db"), self.path("site.db")).unwrap();
    }
}

/// A process.
pub struct Process<'a> {
    bench: &'a Bench,
    world: Rc<World>,
    daemon: Option<Daemon>,
    post: Pin<Box<dyn Future<Output = ()>>>,
    /// Last: what else there is must go before.
    runtime: Runtime,
}

/// What a daemon has in hand.
struct Daemon {
    journal: Journal,
    store: Arc<Store>,
    lead: Leadership,
    delivery: Delivery,
    newest: Option<UserId>,
}

/// The process is dead; or something went wrong that must not.
pub enum Ended {
    Died,
    Broken(Broken),
}

fn failed(what: &str, e: &(dyn std::error::Error + 'static)) -> Ended {
    Ended::Broken(Broken { promise: "no failure", what: format!("{what}: {}", complaint(e)) })
}

impl<'a> Process<'a> {
    pub fn start(bench: &'a Bench, world: &Rc<World>) -> Process<'a> {
        wait_for_lock(&bench.path("journal.db.lock"));
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        world.dead.set(false);
        let listener = bench.listener.try_clone().unwrap();
        let post = Box::pin(post::serve(listener, world.post.clone(), world.clock.clone()));
        Process { bench, world: world.clone(), daemon: None, post, runtime }
    }

    pub fn is_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// Runs `work` until its end or the death of the process.
    fn run<T>(
        runtime: &Runtime,
        post: &mut Pin<Box<dyn Future<Output = ()>>>,
        world: &World,
        work: impl Future<Output = T>,
    ) -> Result<T, Ended> {
        runtime.block_on(async {
            world.clock.go();
            let ended = tokio::select! {
                biased;
                () = world.died.notified() => Err(Ended::Died),
                () = post => unreachable!("the mail server ends with the process"),
                done = work => Ok(done),
            };
            world.clock.halt();
            ended
        })
    }

    /// As `credkeeper --once` from beginning to end.
    pub fn once(&mut self) -> Result<Report, Ended> {
        let (config, metrics) = (self.bench.config.clone(), self.bench.metrics.clone());
        let (asked, progress) = (Once::default(), Progress::new(false));
        let work = once::run(config, &asked, metrics, &progress);
        let mut ended = Self::run(&self.runtime, &mut self.post, &self.world, work)?.map_err(|e| failed("--once", &e))?;
        let report = ended.remove(0).outcome.map_err(|e| failed("--once", &e))?;
        match &report.error {
            Some(error) => Err(Ended::Broken(Broken { promise: "no failure", what: format!("the pass: {error}") })),
            None => Ok(report),
        }
    }

    /// As the daemon begins: journal, lead, and delivery.
    pub fn begin(&mut self) -> Result<(), Ended> {
        let Bench { config, metrics, .. } = self.bench;
        let begun = async {
            let database = &config.databases[0];
            let store = Arc::new(Store::connect(database).await.map_err(|e| failed("connect", &e))?);
            let file = JournalFile::open(&config.journal, Owner::all(&config.databases), Duration::ZERO).await;
            let file = file.map_err(|e| failed("the journal", &e))?;
            let journal = file.of(&database.name).await.map_err(|e| failed("the journal", &e))?;
            let lead = store.lead().await.map_err(|e| failed("the lead", &e))?.expect("nobody else leads");
            let desk = Desk { journal: file, config: config.clone(), metrics: metrics.clone(), down_since: None };
            let delivery = Delivery::start(desk, Mode::Daemon);
            delivery.outlet().serve(&database.name, &journal, &store);
            Ok(Daemon { journal, store, lead, delivery, newest: None })
        };
        self.daemon = Some(Self::run(&self.runtime, &mut self.post, &self.world, begun)??);
        Ok(())
    }

    /// One pass of the daemon, with what it does before. `above`: a poll of so many of the last ids.
    pub fn pass(&mut self, reach: Option<i64>, recovers: bool) -> Result<Report, Ended> {
        let config = &self.bench.config;
        let database = &config.databases[0];
        let Some(daemon) = &mut self.daemon else { unreachable!("a daemon") };
        let outlet = daemon.delivery.outlet();
        let above = reach.zip(daemon.newest).map(|(reach, newest)| UserId((newest.0 - reach).max(0)));
        let work = async {
            let ring = outlet.ring();
            let now: Timestamp = clock::now();
            if recovers {
                let recovered = recover(&daemon.store, &daemon.journal, now).await.map_err(|e| failed("recovery", &e))?;
                if recovered.resent > 0 {
                    ring.notify_one();
                }
            }
            let kind = if above.is_some() { PassKind::Poll } else { PassKind::Resync };
            let ask = Ask { above, undelivered_since: outlet.down_since(), ..Ask::full(kind, now) };
            let watch = Watch { progress: &|_, _| {}, line: &|_| {}, committed: &ring, stop: &|| false };
            Ok(reconcile::pass(&daemon.store, &daemon.lead, &daemon.journal, config, database, &ask, &watch).await)
        };
        let Passed { report, newest, error } = Self::run(&self.runtime, &mut self.post, &self.world, work)??;
        if let Some(e) = error {
            return Err(failed("the pass", &e));
        }
        daemon.newest = newest.or(daemon.newest);
        Ok(report)
    }

    /// The daemon's delivery goes on for so long.
    pub fn wait(&mut self, seconds: u64) -> Result<(), Ended> {
        Self::run(&self.runtime, &mut self.post, &self.world, async { tokio::time::sleep(Duration::from_secs(seconds)).await })
    }

    /// Something with the daemon's journal.
    pub fn journal<T>(&mut self, work: impl AsyncFnOnce(&Journal) -> T) -> Result<T, Ended> {
        let Some(daemon) = &self.daemon else { unreachable!("a daemon") };
        Self::run(&self.runtime, &mut self.post, &self.world, work(&daemon.journal))
    }

    /// Ends it as a stop does.
    pub fn stop(mut self) -> Result<(), Ended> {
        if let Some(Daemon { journal, delivery, .. }) = self.daemon.take() {
            let work = async {
                delivery.stop().await;
                journal.checkpoint().await?;
                journal.close().await
            };
            Self::run(&self.runtime, &mut self.post, &self.world, work)?.map_err(|e| failed("the stop", &e))?;
        }
        Ok(())
    }
}

/// The thread of a process that was killed lets go of the journal in its own time.
fn wait_for_lock(lock: &Path) {
    loop {
        let Ok(file) = std::fs::File::options().write(true).open(lock) else { return };
        if file.try_lock().is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
