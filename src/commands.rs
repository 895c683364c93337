//! The commands that change nothing in the database: `explain`, `doctor`, `check-config`, `journal list`, `status`, `seal`.

use std::io::{self, Write};

use futures_util::StreamExt;
use tracing::{error, warn};

use crate::cli::ExitStatus;
use crate::clock;
use crate::complaint::complaint;
use crate::config::{self, Config, DatabaseConfig};
use crate::doctor;
use crate::domain::time::span;
use crate::domain::{Mailbox, printable};
use crate::explain;
use crate::inventory::Now;
use crate::journal::{JournalError, JournalReader, Owner};
use crate::plan::Planner;
use crate::reconcile::{PassError, wanted, with_facts};
use crate::store::{CheckVerdict, Filter, Reader};

mod cac_pair;
mod metrics;
mod seal;

pub use cac_pair::cac_pair;
pub use metrics::{metrics, renew};
pub use seal::seal;

/// How many issuances `journal list` shows.
const LISTED: usize = 1_000;
/// About a login that is not found.
const EXACTLY: &str = "write the login exactly as the print system has it, capitals too";
/// How many issuances `explain` tells of one user.
const TOLD: usize = 10;

/// Prints to the standard output. A reader that went away (`| head`) is no failure.
pub fn print(text: &str) -> ExitStatus {
    print_bytes(text.as_bytes())
}

pub fn print_bytes(bytes: &[u8]) -> ExitStatus {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => ExitStatus::Failed,
        _ => ExitStatus::Done,
    }
}

/// Each start says what works but should be known.
pub fn warn_of(config: &Config) {
    doctor::warnings(config).iter().for_each(|w| warn!("Configuration: {w}"));
}

pub fn check_config(config: &Config) -> ExitStatus {
    let warnings: String = doctor::warnings(config).iter().map(|w| format!("warning: {w}\n")).collect();
    let policies = match &config.databases[..] {
        [only] => format!("{} policies", only.policies.len()),
        several => {
            let said: Vec<String> = several.iter().map(|d| format!("{} policies for {}", d.policies.len(), printable(&d.name))).collect();
            format!("{} databases, {}", several.len(), said.join(", "))
        }
    };
    print(&format!("{warnings}{} is valid: {policies}\n", config.path.display()))
}

/// `mail_test` is who is sent a mail without any credential.
pub async fn doctor(config: &Config, mail_test: Option<&Mailbox>) -> ExitStatus {
    let mut checks = doctor::inspect(config).await;
    if let Some(to) = mail_test {
        checks.push(doctor::mail_test(config, to).await);
    }
    let printed = print(&doctor::render(&checks));
    let failed = checks.iter().any(|c| c.verdict == CheckVerdict::Failed);
    if failed { ExitStatus::Failed } else { printed }
}

pub async fn explain(config: &Config, login: &str) -> ExitStatus {
    let mut text = String::new();
    let mut status = ExitStatus::Done;
    for database in config.selected() {
        match explained(config, database, login).await {
            Ok(Some(told)) => text.push_str(&section(config, database, &text, &told)),
            Ok(None) => {}
            Err(e) => {
                error!("{}{}", of_database(config, database), complaint(&e));
                status = ExitStatus::Failed;
            }
        }
    }
    if text.is_empty() && status == ExitStatus::Done {
        error!("The user {} is not in the database; {EXACTLY}", printable(login));
        return ExitStatus::Partial;
    }
    ExitStatus::worst([status, print(&text)])
}

/// What is told of one of several databases, under its name.
fn section(config: &Config, database: &DatabaseConfig, before: &str, told: &str) -> String {
    let apart = if before.is_empty() { "" } else { "\n" };
    if config.has_several() { format!("{apart}Database {}\n{told}", printable(&database.name)) } else { told.to_owned() }
}

fn of_database(config: &Config, database: &DatabaseConfig) -> String {
    if config.has_several() { format!("Database {}: ", printable(&database.name)) } else { String::new() }
}

async fn explained(config: &Config, database: &DatabaseConfig, login: &str) -> Result<Option<String>, PassError> {
    let reader = Reader::connect(database).await?;
    let journal = JournalReader::open(&config.journal, Owner::all(&config.databases), &database.name).await?;
    let now = Now { utc: clock::now(), wall: reader.clock().await? };
    let places = reader.places(&wanted(config, database)).await?;
    let planner = Planner::new(&database.policies, &places, now).with_pilot(config.pilot.as_ref());
    let mut text = String::new();
    let mut users = reader.read(&Filter { login: Some(login.to_owned()), ..Filter::default() });
    while let Some(chunk) = users.next().await {
        for (user, facts) in with_facts(journal.as_ref(), chunk?).await? {
            text.push_str(&explain::explain(&database.policies, &planner, &user, &facts));
            if let Some(journal) = &journal {
                if let Some(hold) = journal.hold_of(user.id).await? {
                    text.push_str(&format!("\nOn hold since {}: {}. `credkeeper release` ends it.\n", hold.since, hold.reason));
                }
                if let Some(last) = journal.reminded(vec![user.id]).await?.get(&user.id) {
                    text.push_str(&format!(
                        "\nThe last reminder, sent or about to be: {} before a PIN's end {}.\n",
                        span(last.window),
                        last.end
                    ));
                }
                let history = journal.user_history(user.id, TOLD).await?;
                text.push_str(if history.is_empty() {
                    "\nThe journal knows nothing of this user.\n"
                } else {
                    "\nIn the journal, newest first:\n"
                });
                history.iter().for_each(|row| text.push_str(&format!("  {}\n", explain::history_line(row))));
            }
        }
    }
    Ok((!text.is_empty()).then_some(text))
}

pub async fn journal_list(config: &Config) -> ExitStatus {
    told(config, "", async |database| {
        let Some(journal) = JournalReader::open(&config.journal, Owner::all(&config.databases), &database.name).await? else {
            return Ok(no_journal(config));
        };
        let unfinished = journal.unfinished(LISTED).await?;
        let mut text = match unfinished.len() {
            0 => "Every issuance is finished.\n".to_owned(),
            LISTED => format!("The first {LISTED} issuances that are not finished:\n"),
            n => format!("{n} issuances are not finished:\n"),
        };
        unfinished.iter().for_each(|row| text.push_str(&format!("  {}\n", explain::history_line(row))));
        Ok(text)
    })
    .await
}

pub async fn status(config: &Config) -> ExitStatus {
    told(config, &mode(config), async |database| {
        let Some(journal) = JournalReader::open(&config.journal, Owner::all(&config.databases), &database.name).await? else {
            return Ok(no_journal(config));
        };
        let mut text = String::new();
        text.push_str(&match journal.last_pass().await? {
            Some(pass) => {
                let stopped = ["stops", "refusals", "blockers"].iter().filter_map(|key| pass.totals[key].as_array()).flatten();
                let stopped: String = stopped.map(|s| format!("  stopped: {}\n", printable(&why_stopped(s)))).collect();
                let end = pass.ended.map_or("has not ended".to_owned(), |at| format!("ended {at}"));
                format!(
                    "last pass: {} {}, started {}, {end}, {}\n{stopped}",
                    pass.kind,
                    pass.pass,
                    pass.started,
                    pass.outcome.unwrap_or_default()
                )
            }
            None => "no pass has ended yet\n".to_owned(),
        });
        for (state, n) in journal.counts().await? {
            text.push_str(&format!("{:<14} {n}\n", state.as_str()));
        }
        let holds = journal.holds(LISTED).await?;
        if !holds.is_empty() {
            text.push_str(&format!("on hold        {}\n", holds.len()));
            holds
                .iter()
                .for_each(|h| text.push_str(&format!("  user {} “{}” since {}: {}\n", h.user, printable(&h.login), h.since, h.reason)));
        }
        for plan in journal.refused().await? {
            let how = match plan.approved_until {
                Some(until) => format!("approved until {until}"),
                None => "waits for `credkeeper approve`".to_owned(),
            };
            let policy = printable(&plan.policy.0).into_owned();
            text.push_str(&format!("refused plan   {} of policy {policy}, {} users, {}: {how}\n", plan.plan, plan.users, plan.limit));
        }
        if let Some(oldest) = journal.oldest_open().await? {
            text.push_str(&format!("oldest mail waiting since {oldest}\n"));
        }
        Ok(text)
    })
    .await
}

/// What keeps passes from doing all that the policies ask; empty if nothing does.
fn mode(config: &Config) -> String {
    let observe = match config.mode {
        config::Mode::Observe => "MODE: OBSERVE: nothing is changed and no mail is sent\n",
        config::Mode::Enforce => "",
    };
    let pilot = config.pilot.as_ref().map_or(String::new(), |pilot| {
        let (logins, centers) = (pilot.logins.len(), pilot.cost_center.len());
        format!("PILOT: changes reach only {logins} logins and the members of {centers} cost centers\n")
    });
    format!("{observe}{pilot}")
}

/// A stop, a refusal or a blocker of a pass, as its totals in the journal have it.
fn why_stopped(totals: &serde_json::Value) -> String {
    match totals["message"].as_str() {
        Some(message) => message.to_owned(),
        None => {
            let (what, named) = if totals["role"].is_null() { ("cost center", "cost_center") } else { ("role", "role") };
            format!("policy {} is blocked: the database has no {what} {}", totals["policy"], totals[named])
        }
    }
}

/// Prints `first`, and what `of` tells of each database.
async fn told(config: &Config, first: &str, of: impl AsyncFn(&DatabaseConfig) -> Result<String, JournalError>) -> ExitStatus {
    let mut text = first.to_owned();
    let mut status = ExitStatus::Done;
    for database in config.selected() {
        match of(database).await {
            Ok(told) => text.push_str(&section(config, database, &text, &told)),
            Err(e) => {
                error!("{}{}", of_database(config, database), complaint(&e));
                status = ExitStatus::Failed;
            }
        }
    }
    ExitStatus::worst([status, print(&text)])
}

fn no_journal(config: &Config) -> String {
    match config.journal.path.exists() {
        true => "the journal knows nothing of it yet: no pass has run\n".to_owned(),
        false => format!("there is no journal at {} yet: no pass has run\n", config.journal.path.display()),
    }
}
