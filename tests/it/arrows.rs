//! The rooms of `src/` and the arrows between them, as ARCHITECTURE.md draws them. A new arrow is a change of the design:
//! it belongs in that page, here, and in a commit of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// What each room may import.
const ARROWS: &[(&str, &str)] = &[
    ("clock", "domain"),
    ("domain", ""),
    ("policy", "domain"),
    ("inventory", "domain"),
    ("plan", "domain inventory policy"),
    ("mint", "domain policy"),
    ("seal", "domain"),
    ("tls", "domain"),
    ("config", "domain policy seal tls"),
    ("store", "clock config domain inventory tls"),
    ("journal", "config domain fault inventory seal"),
    ("mail", "config domain fault tls"),
    ("report", "domain inventory plan"),
    ("metrics", "domain plan report"),
    ("http", "clock domain metrics"),
    ("logging", "config domain tls"),
    ("service", ""),
    ("sandbox", "domain"),
    ("cli", "domain report"),
    ("fault", ""),
    ("complaint", "journal logging"),
    ("reconcile", "complaint config domain fault inventory journal logging mint plan policy report store"),
    ("recover", "domain fault journal reconcile report store"),
    ("deliver", "clock config domain fault inventory journal logging mail metrics plan reconcile report store"),
    ("explain", "domain inventory journal plan policy"),
    ("digest", "clock config domain mail metrics plan report"),
    ("doctor", "clock config domain inventory journal logging mail mint plan reconcile store"),
    ("commands", "cli clock complaint config doctor domain explain inventory journal logging metrics plan reconcile seal store"),
    (
        "operate",
        "cli clock commands complaint config deliver domain inventory journal logging metrics mint plan policy reconcile recover report store",
    ),
    ("adopt", "cli clock commands complaint config domain inventory journal reconcile store"),
    ("once", "cli clock config deliver digest journal logging metrics reconcile recover report store"),
    (
        "daemon",
        "cli clock complaint config deliver digest domain http inventory journal logging metrics operate plan reconcile recover report store",
    ),
];

/// These decide: nothing in them may read a clock, roll dice, wait or log.
const PURE: [&str; 4] = ["domain", "policy", "inventory", "plan"];

#[test]
fn rooms_import_only_what_the_design_allows() {
    let imports = imports();
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ARROWS.iter().map(|(room, to)| (*room, to.split_whitespace().collect())).collect();
    let mut wrong = Vec::new();
    for (room, used) in &imports {
        match allowed.get(room.as_str()) {
            None => wrong.push(format!("{room}: a room that the design does not know")),
            Some(allowed) => {
                wrong.extend(used.iter().filter(|u| !allowed.contains(u.as_str())).map(|u| format!("{room} → {u}: not in the design")));
                wrong.extend(allowed.iter().filter(|a| !used.contains(**a)).map(|a| format!("{room} → {a}: in the design, but not used")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_decides_is_pure() {
    let impure = Regex::new(r"\b(tokio|tracing|rand|SystemTime|Instant|Utc::now|Local::now|rusqlite|tokio_postgres)\b").unwrap();
    let mut wrong = Vec::new();
    for (room, file, code) in sources().iter().filter(|(room, ..)| PURE.contains(&room.as_str())) {
        wrong.extend(impure.find_iter(code).map(|found| format!("{room}: {} uses {}", file.display(), found.as_str())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_is_one_idea() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(_, file, code)| (file, code.lines().count()))
        .filter(|(_, lines)| *lines > 450)
        .map(|(file, lines)| format!("{}: {lines} lines without its tests", file.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let group = Regex::new(r"crate::\{([^}]*)\}").unwrap();
    let single = Regex::new(r"\bcrate::([a-z_]+)").unwrap();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (room, _, code) in sources() {
        let used = imports.entry(room.clone()).or_default();
        used.extend(single.captures_iter(&code).map(|c| c[1].to_owned()));
        for names in group.captures_iter(&code) {
            used.extend(names[1].split(',').filter_map(|n| n.trim().split("::").next()).filter(|n| !n.is_empty()).map(str::to_owned));
        }
        used.remove(&room);
    }
    imports
}

/// Room, file and code of each source file, without comments and tests.
fn sources() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let in_room = |file: PathBuf| {
        let relative = file.strip_prefix(&src).unwrap().to_owned();
        let room = relative.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        let whole = fs::read_to_string(&file).unwrap();
        let code = whole.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (room, relative, code.join("\n"))
    };
    files.into_iter().map(in_room).filter(|(room, ..)| room != "main" && room != "lib").collect()
}
