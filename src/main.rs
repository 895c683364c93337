//! Arguments → mode → exit code; nothing else.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use credkeeper::cli::{self, ExitStatus, Format, Mode, Once};
use credkeeper::complaint::complaint;
use credkeeper::config::Config;
use credkeeper::domain::printable;
use credkeeper::logging::{Progress, Role, Volume};
use credkeeper::metrics::Metrics;
use credkeeper::{adopt, clock, commands, daemon, doctor, logging, once, operate, report, sandbox, service};
use tokio::sync::watch;
use tracing::error;

fn main() -> ExitCode {
    let cli = match cli::parse_from(std::env::args_os()) {
        Ok(cli) => cli,
        Err(stop) => return stop.print().into(),
    };
    match cli.mode {
        Mode::Completions(shell) => commands::print_bytes(&cli::completions(shell)),
        Mode::Sandbox { dir, users } => match sandbox::create(&dir, users) {
            Ok(made) => commands::print(&format!(
                "made a sandbox with {users} users in {dir}; now try\n\n  credkeeper --config {config} plan\n  credkeeper --config {config} --once\n",
                users = made.users,
                dir = made.dir.display(),
                config = made.config.display()
            )),
            Err(e) => failed(&e),
        },
        Mode::Seal => commands::seal(&cli.config),
        mode => with_config(&cli.config, cli.database, mode),
    }
    .into()
}

/// What the daemon is told from outside while it runs.
struct Controls {
    volume: Volume,
    /// `None`: not a daemon.
    reload: Option<watch::Receiver<()>>,
}

fn with_config(path: &Path, database: Option<String>, mode: Mode) -> ExitStatus {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&e),
    };
    // Watched from the beginning: by itself the signal ends a process.
    let watched = matches!(mode, Mode::Daemon).then(|| runtime.block_on(async { service::reload_signal() })).transpose();
    let reload = match watched {
        Ok(reload) => reload,
        Err(e) => return failed(&e),
    };
    let database = match &mode {
        Mode::JournalAdopt { name, .. } => Some(name.clone()),
        _ => database,
    };
    let config = match Config::load(path) {
        Ok(config) => Arc::new(Config { only: database, ..config }),
        Err(problems) => {
            eprintln!("{problems}");
            return ExitStatus::Usage;
        }
    };
    if let Some(only) = config.only.as_ref().filter(|_| config.selected().next().is_none()) {
        let known: Vec<&str> = config.databases.iter().map(|database| database.name.as_str()).collect();
        eprintln!("credkeeper: there is no database {} in the configuration; there are {}", printable(only), printable(&known.join(", ")));
        return ExitStatus::Usage;
    }
    if mode == Mode::CheckConfig {
        return commands::check_config(&config);
    }
    let progress = Progress::new(!matches!(mode, Mode::Daemon));
    let role = match &mode {
        Mode::Daemon => Role::Daemon,
        Mode::Once(once) if !once.dry_run => Role::Pass,
        _ => Role::Command,
    };
    // Dropped after all that logs, so that nothing is lost.
    let log = match logging::init(&config.log, role, &progress) {
        Ok(log) => log,
        Err(e) => return failed(&e),
    };
    let status = runtime.block_on(run(config, mode, &progress, Controls { volume: log.volume(), reload }));
    runtime.shutdown_background();
    status
}

async fn run(config: Arc<Config>, mode: Mode, progress: &Progress, controls: Controls) -> ExitStatus {
    match mode {
        Mode::Daemon => run_daemon(config, controls).await,
        Mode::Once(asked) => run_once(config, &asked, progress).await,
        Mode::Explain { login } => commands::explain(&config, &login).await,
        Mode::Operate(request) => operate::ask(config, request, progress).await,
        Mode::Preview(request) => operate::preview(&config, &request).await,
        Mode::Doctor { mail_test } => commands::doctor(&config, mail_test.as_ref()).await,
        Mode::CacPair => commands::cac_pair(&config).await,
        Mode::JournalList => commands::journal_list(&config).await,
        Mode::JournalAdopt { dry_run, .. } => adopt::adopt(&config, dry_run).await,
        Mode::Status => commands::status(&config).await,
        Mode::CheckConfig | Mode::Seal | Mode::Sandbox { .. } | Mode::Completions(_) => ExitStatus::Done, // served before
    }
}

async fn run_daemon(config: Arc<Config>, controls: Controls) -> ExitStatus {
    let endless = doctor::endless(&config);
    if !endless.is_empty() {
        endless.iter().for_each(|problem| error!("{problem}"));
        if config.log.file.is_some() {
            endless.iter().for_each(|problem| eprintln!("credkeeper: {problem}"));
        }
        return ExitStatus::Usage;
    }
    commands::warn_of(&config);
    let metrics = Arc::new(commands::metrics(&config));
    let (stop, stopping) = watch::channel(false);
    match service::stop_signal() {
        Ok(asked) => drop(tokio::spawn(async move {
            let signal = asked.await;
            tracing::info!("Stopping on {signal}: finishing what is in hand");
            stop.send_replace(true);
        })),
        Err(e) => return failed(&e),
    }
    let source = source(&config, &metrics, controls);
    let on_stderr = config.log.file.is_none();
    match daemon::run(config, metrics, stopping, source).await {
        Ok(()) => ExitStatus::Done,
        Err(e) => {
            error!("{}", complaint(&e));
            // Whoever started it must see why it ended, wherever the log goes.
            if on_stderr { ExitStatus::Failed } else { failed(&e) }
        }
    }
}

/// The same file again.
fn source(config: &Config, metrics: &Arc<Metrics>, Controls { volume, reload }: Controls) -> daemon::Source {
    let asked = reload.unwrap_or_else(|| watch::channel(()).1);
    let (path, metrics) = (config.path.clone(), metrics.clone());
    let read = move || {
        let config = Config::load(&path).map_err(|wrong| {
            let of = wrong.path.display();
            wrong.problems.iter().map(|problem| format!("{of}:{problem}")).collect::<Vec<_>>()
        })?;
        let endless = doctor::endless(&config);
        if endless.is_empty() { Ok(config) } else { Err(endless) }
    };
    let taken = move |config: &Config| {
        commands::renew(config, &metrics);
        volume.set(&config.log.levels);
        commands::warn_of(config);
    };
    daemon::Source { asked, read: Arc::new(read), taken: Arc::new(taken) }
}

async fn run_once(config: Arc<Config>, asked: &Once, progress: &Progress) -> ExitStatus {
    commands::warn_of(&config);
    if let Some(answered) = operate::once(&config, asked, progress).await {
        return answered;
    }
    let metrics = Arc::new(commands::metrics(&config));
    let several = config.has_several();
    let write_metrics = || match &asked.metrics_file {
        None => ExitStatus::Done,
        Some(file) => metrics.write_file(file, clock::now()).map_or_else(|e| failed(&e), |()| ExitStatus::Done),
    };
    let ended = match once::run(config, asked, metrics.clone(), progress).await {
        Ok(ended) => ended,
        Err(e) => {
            error!("{}", complaint(&e));
            // A monitor is to see what failed; of one that gave way to another instance there is nothing to tell.
            let written = if e.status() == ExitStatus::Failed { write_metrics() } else { ExitStatus::Done };
            return ExitStatus::worst([e.status(), written]);
        }
    };
    for one in &ended {
        if let Err(e) = &one.outcome {
            error!("Database {}: {}", printable(&one.database), complaint(e));
        }
    }
    let told: Vec<_> = ended.iter().map(|one| (one.database.as_str(), one.outcome.as_ref().map_err(|e| complaint(e)))).collect();
    let text = match (asked.format, &told[..]) {
        (Format::Text, _) => report::text::several(&told),
        (Format::Json, [(_, Ok(report))]) if !several => report::json::text(&report::json::render(report)),
        (Format::Json, _) => report::json::text(&report::json::several(&told)),
    };
    let printed = commands::print(&text);
    let written = write_metrics();
    let of = |one: &once::Ended| match &one.outcome {
        Ok(report) => ExitStatus::of(report, asked.exit_code),
        Err(e) => e.status(),
    };
    ExitStatus::worst(ended.iter().map(of).chain([printed, written]))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitStatus {
    eprintln!("credkeeper: {}", complaint(error));
    ExitStatus::Failed
}
