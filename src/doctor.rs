//! `doctor`: the start-up inspection in full, each line ok, warning or failed with what to do.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;

use crate::clock;
use crate::config::{Config, DatabaseConfig, JournalConfig};
use crate::domain::{CostCenterRef, RoleRef, Template, WallClock, alike, printable};
use crate::inventory::Now;
use crate::journal::{self, JournalError, JournalReader, Owner, StateCounts, folder};
use crate::logging::chain;
use crate::plan::density::{Crowding, Density, densities};
use crate::plan::{Blocker, Missing, Planner, lint};
use crate::reconcile;
use crate::store::{Check, CheckVerdict, Reader};

mod credentials;
mod folders;
mod leader;
mod mail;
mod restored;

pub use credentials::cac_pair;
pub use mail::test as mail_test;

/// Looks at everything that a pass needs, and changes nothing.
pub async fn inspect(config: &Config) -> Vec<Check> {
    let mut checks = vec![Check::ok("configuration", format!("{} is valid", config.path.display()))];
    checks.extend(warnings(config).into_iter().map(|w| Check::warning("configuration", w, "")));
    for database in config.selected() {
        checks.extend(inspect_one(config, database).await.into_iter().map(|check| named(config, database, check)));
    }
    checks.push(mail::server(config, clock::now()).await);
    match writable(&config.journal) {
        Err(refused) => checks.push(refused),
        Ok(()) => {
            for database in config.selected() {
                checks.push(named(config, database, journal(config, database).await));
            }
        }
    }
    checks
}

async fn inspect_one(config: &Config, database: &DatabaseConfig) -> Vec<Check> {
    let reader = match Reader::connect(database).await {
        Ok(reader) => reader,
        Err(error) => return vec![Check::failed("database", chain(&error), "see databases in the configuration")],
    };
    let mut checks: Vec<Check> = credentials::md5_passwords(database.password_encoding).into_iter().collect();
    let found = reader.inspect().await;
    let reachable = !found.iter().any(|c| c.verdict == CheckVerdict::Failed);
    checks.extend(found);
    if reachable {
        checks.extend(places(config, database, &reader).await);
        checks.extend(pin_space(database, &reader).await);
        checks.push(leader::check(config, &reader).await);
        checks.extend(restored::check(config, database, &reader).await);
    }
    checks
}

/// Says which database it is about, where there are several.
fn named(config: &Config, database: &DatabaseConfig, check: Check) -> Check {
    if !config.has_several() {
        return check;
    }
    Check { found: format!("{}: {}", printable(&database.name), check.found), ..check }
}

/// What works but should be known: of the file, of the policies together, and what no daemon would run.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut all = config.warnings.clone();
    all.extend(of_policies(config, |database| lint::warnings(&database.policies)));
    all.extend(endless(config));
    all
}

/// What no daemon would run.
pub fn endless(config: &Config) -> Vec<String> {
    of_policies(config, |database| lint::endless(&database.policies))
}

/// What `judge` says of the policies of each database; which one, where there are several.
fn of_policies(config: &Config, judge: impl Fn(&DatabaseConfig) -> Vec<String>) -> Vec<String> {
    let of = |database: &DatabaseConfig| {
        let name = if config.has_several() { format!("database {}: ", printable(&database.name)) } else { String::new() };
        judge(database).into_iter().map(move |said| format!("{name}{said}"))
    };
    config.databases.iter().flat_map(of).collect()
}

const CENTERS: &str = "cost centers";
const ROLES: &str = "roles";

/// Whether the cost centers and roles that the configuration names are there.
async fn places(config: &Config, database: &DatabaseConfig, reader: &Reader) -> Vec<Check> {
    let wanted = reconcile::wanted(config, database);
    let places = match reader.places(&wanted).await {
        Ok(places) => places,
        Err(error) => return vec![Check::failed(CENTERS, chain(&error), "see schema_map.cost_centers and roles in the configuration")],
    };
    let now = Now { utc: clock::now(), wall: WallClock(0) };
    let blockers = Planner::new(&database.policies, &places, now).blockers();
    let pilot = reconcile::pilot_missing(config, &places);
    let named = config.templates.values().flat_map(Template::cost_centers).collect::<BTreeSet<_>>();
    let of_templates: Vec<_> = named.into_iter().filter(|named| places.get(named).is_none()).collect();
    let is_role = |blocker: &&Blocker| matches!(blocker.missing, Missing::Role(_));
    let all = |name, count: usize| Check::ok(name, format!("all {count} that the configuration names are there"));
    let mut checks = Vec::new();
    if pilot.is_empty() && of_templates.is_empty() && blockers.iter().all(|blocker| is_role(&blocker)) {
        checks.push(all(CENTERS, wanted.cost_centers.len()));
    }
    if !wanted.roles.is_empty() && !blockers.iter().any(|blocker| is_role(&blocker)) {
        checks.push(all(ROLES, wanted.roles.len()));
    }
    if blockers.is_empty() && pilot.is_empty() && of_templates.is_empty() {
        return checks;
    }
    // Without them there is only less advice.
    let (centers, roles) = (reader.cost_center_names().await.unwrap_or_default(), reader.role_names().await.unwrap_or_default());
    let of_pilot = |place: &CostCenterRef| {
        let found = format!("the pilot names cost center {place}, which the database does not have");
        Check::failed(CENTERS, found, "create it in the print system, or correct the pilot: nobody is covered by it")
    };
    let of_template = |place: &&CostCenterRef| {
        let found = format!("a translation is for cost center {place}, which the database does not have");
        Check::warning(CENTERS, found, "correct it in the templates: nobody reads that translation")
    };
    checks.extend(blockers.iter().map(|blocker| blocked(blocker, if is_role(&blocker) { &roles } else { &centers })));
    checks.extend(pilot.iter().map(of_pilot).chain(of_templates.iter().map(of_template)));
    checks
}

/// Two of one name count as none: guessing could move people into the wrong cost center, or take the wrong role from them.
fn blocked(Blocker { policy, missing }: &Blocker, names: &[String]) -> Check {
    let check = if matches!(missing, Missing::Role(_)) { ROLES } else { CENTERS };
    let failed = |found: &str, advice: String| Check::failed(check, format!("policy {policy} names {missing}, {found}"), advice);
    let absent = "which the database does not have";
    let (Missing::CostCenter(CostCenterRef::Name(name)) | Missing::Role(RoleRef::Name(name))) = missing else {
        return failed(absent, "create it in the print system, or correct the number in the policy".to_owned());
    };
    if names.iter().filter(|other| *other == name).count() > 1 {
        return failed("and more than one is called that", "name it by its number in the policy".to_owned());
    }
    let near = alike(name, names.iter().map(String::as_str)).iter().map(|name| format!("“{}”", printable(name))).collect::<Vec<_>>();
    match near.is_empty() {
        true => failed(absent, "create it in the print system, or correct the name in the policy".to_owned()),
        false => failed(absent, format!("write {} in the policy if that is meant, or create it in the print system", near.join(" or "))),
    }
}

/// How full the space of each policy's PINs is (R8).
async fn pin_space(database: &DatabaseConfig, reader: &Reader) -> Vec<Check> {
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
    densities(&database.policies, &counts, &vec![0; database.policies.len()]).iter().map(said).collect()
}

async fn journal(config: &Config, database: &DatabaseConfig) -> Check {
    let path = config.journal.path.display();
    match JournalReader::open(&config.journal, Owner::all(&config.databases), &database.name).await {
        Ok(None) => match journal::is_new(&config.journal) {
            Ok(()) => Check::ok("journal", format!("{path} will be made with the first pass")),
            Err(error) => Check::failed("journal", chain(&error), error.remedy().unwrap_or_default()),
        },
        Ok(Some(journal)) => match sound(&journal, config).await {
            Ok(counts) => {
                let said: Vec<String> = counts.iter().filter(|(_, n)| *n > 0).map(|(state, n)| format!("{} {n}", state.as_str())).collect();
                let said = if said.is_empty() { "empty".to_owned() } else { said.join(", ") };
                Check::ok("journal", format!("{path}: {said}"))
            }
            Err(error) => Check::failed("journal", chain(&error), error.remedy().unwrap_or_default()),
        },
        Err(error) => Check::failed("journal", chain(&error), error.remedy().unwrap_or_default()),
    }
}

/// The counts, if the file hangs together.
async fn sound(journal: &JournalReader, config: &Config) -> Result<StateCounts, JournalError> {
    journal.sound(&config.journal.path).await?;
    journal.counts().await
}

/// Whether a pass could write there.
fn writable(journal: &JournalConfig) -> Result<(), Check> {
    let refused = |path: &Path, error: &std::io::Error| {
        let found = match error.kind() {
            ErrorKind::NotFound => format!("{} does not exist", path.display()),
            _ => format!("{} cannot be written by this account: {error}", path.display()),
        };
        Check::failed("journal", found, folder(error))
    };
    // A key that is there is only read.
    for file in [Some(&journal.path), Some(&journal.key).filter(|key| !key.exists())].into_iter().flatten() {
        let above = file.parent().unwrap_or(Path::new(""));
        folders::may_write(above).map_err(|error| refused(above, &error))?;
    }
    if journal.path.exists() { folders::allowed(&journal.path).map_err(|error| refused(&journal.path, &error)) } else { Ok(()) }
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
        let _ = writeln!(text, "{verdict}  {:<18} {}", check.name, check.found);
        if check.verdict != CheckVerdict::Ok && !check.advice.is_empty() {
            let _ = writeln!(text, "{:>28} → {}", "", check.advice);
        }
    }
    text
}
