//! `doctor`: the start-up inspection in full, each line ok, warning or failed with what to do.

use std::fmt::Write;

use crate::clock;
use crate::config::Config;
use crate::domain::{CostCenterRef, WallClock};
use crate::inventory::Now;
use crate::journal::JournalReader;
use crate::logging::chain;
use crate::plan::Planner;
use crate::plan::density::{Crowding, Density, densities};
use crate::reconcile;
use crate::store::{Check, CheckVerdict, Reader};

mod mail;

pub use mail::test as mail_test;

/// Looks at everything that a pass needs, and changes nothing.
pub async fn inspect(config: &Config) -> Vec<Check> {
    let mut checks = vec![Check::ok("configuration", format!("{} is valid", config.path.display()))];
    checks.extend(config.warnings.iter().map(|w| Check::warning("configuration", w.clone(), "see the manual")));
    for database in &config.databases {
        match Reader::connect(database).await {
            Err(error) => checks.push(Check::failed("database", chain(&error), "see databases in the configuration")),
            Ok(reader) => {
                let found = reader.inspect(&reconcile::needs(config)).await;
                let reachable = !found.iter().any(|c| c.verdict == CheckVerdict::Failed);
                checks.extend(found);
                if reachable {
                    checks.extend(cost_centers(config, &reader).await);
                    checks.extend(pin_space(config, &reader).await);
                }
            }
        }
    }
    checks.push(mail::server(config, clock::now()).await);
    checks.push(journal(config).await);
    checks
}

async fn cost_centers(config: &Config, reader: &Reader) -> Vec<Check> {
    let wanted = reconcile::wanted(config);
    let places = match reader.places(&wanted).await {
        Ok(places) => places,
        Err(error) => return vec![Check::failed("cost centers", chain(&error), "see schema_map.cost_centers in the configuration")],
    };
    let now = Now { utc: clock::now(), wall: WallClock(0) };
    let blockers = Planner::new(&config.policies, &places, now).blockers();
    let pilot = reconcile::pilot_missing(config, &places);
    if blockers.is_empty() && pilot.is_empty() {
        return vec![Check::ok("cost centers", format!("all {} that the configuration names are there", wanted.len()))];
    }
    let said = |b: &crate::plan::Blocker| {
        let found = format!("policy {} names cost center {}, which the database does not have", b.policy, b.cost_center);
        Check::failed("cost centers", found, "create it in the print system, or correct the name in the policy")
    };
    let said_of_pilot = |place: &CostCenterRef| {
        let found = format!("the pilot names cost center {place}, which the database does not have");
        Check::failed("cost centers", found, "create it in the print system, or correct the pilot: nobody is covered by it")
    };
    blockers.iter().map(said).chain(pilot.iter().map(said_of_pilot)).collect()
}

/// How full the space of each policy's PINs is (R8).
async fn pin_space(config: &Config, reader: &Reader) -> Vec<Check> {
    const NAME: &str = "PIN space";
    let counts = match reader.counts().await {
        Ok(counts) => counts,
        Err(error) => return vec![Check::failed(NAME, chain(&error), "see the message")],
    };
    let said = |density: &Density| {
        let found = density.to_string();
        match density.crowding() {
            Crowding::Fine => Check::ok(NAME, found),
            Crowding::Dense => {
                let advice = "guesses at a printer meet somebody's PIN too often: a longer pin.length gives more room";
                Check::warning(NAME, found, advice)
            }
            Crowding::TooDense => {
                Check::failed(NAME, found, "no new PIN is issued: take a longer pin.length, or set pin.allow_dense: true")
            }
        }
    };
    densities(&config.policies, &counts, &vec![0; config.policies.len()]).iter().map(said).collect()
}

async fn journal(config: &Config) -> Check {
    let path = config.journal.path.display();
    match JournalReader::open(&config.journal, &config.databases[0].identity()).await {
        Ok(None) => Check::ok("journal", format!("{path} will be made with the first pass")),
        Ok(Some(journal)) => match journal.counts().await {
            Ok(counts) => {
                let said: Vec<String> = counts.iter().filter(|(_, n)| *n > 0).map(|(state, n)| format!("{} {n}", state.as_str())).collect();
                let said = if said.is_empty() { "empty".to_owned() } else { said.join(", ") };
                Check::ok("journal", format!("{path}: {said}"))
            }
            Err(error) => Check::failed("journal", format!("{path}: {}", chain(&error)), "restore the journal from a backup"),
        },
        Err(error) => Check::failed("journal", format!("{path}: {}", chain(&error)), "see “The journal” in the manual"),
    }
}

/// One line a check, the advice under it.
pub fn render(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let verdict = match check.verdict {
            CheckVerdict::Ok => "ok     ",
            CheckVerdict::Warning => "warning",
            CheckVerdict::Failed => "FAILED ",
        };
        let _ = writeln!(text, "{verdict}  {:<14} {}", check.name, check.found);
        if check.verdict != CheckVerdict::Ok && !check.advice.is_empty() {
            let _ = writeln!(text, "{:>24} → {}", "", check.advice);
        }
    }
    text
}
