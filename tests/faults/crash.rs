//! kill -9 between any two steps, and again in the recovery from it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use credkeeper::fault::Point;
use rand::RngExt;

use crate::cases::{Cases, Kind};
use crate::invariants;
use crate::scenario::{Scenario, Stage};
use crate::site::{Process, is_long};

/// Where a batch can be parted from the next one.
pub const OF_A_BATCH: [Point; 5] = [Point::BatchBegun, Point::BatchWritten, Point::BatchPlanned, Point::BatchCommitted, Point::BatchNoted];
const OF_A_MAIL: [Point; 3] = [Point::MailTaken, Point::MailAnswered, Point::MailNoted];
pub const OF_RECOVERY: [Point; 2] = [Point::RecoveryLooked, Point::RecoveryNoted];

/// Whether a run that begins anew comes past the point.
fn reached(scenario: Scenario, point: Point) -> bool {
    match point {
        Point::RecoveryLooked | Point::RecoveryNoted => false,
        Point::RemindersNoted => scenario.has_reminders(),
        _ => true,
    }
}

/// Starts the program, and kills it where it comes past `point` for the `nth` time.
pub async fn killed_at(stage: &Stage, point: Point, nth: usize, arguments: &[&str]) {
    let file: PathBuf = stage.site.folder().join(format!("stands-{}", rand::random::<u32>()));
    let fault = format!("{}:{nth}:{}", point.as_str(), file.display());
    let process = stage.start(&[("CREDKEEPER_FAULT", &fault)], arguments);
    stands(&process, &file, point).await;
    assert!(process.kill(), "{} stood still, and had ended", point.as_str());
}

async fn stands(process: &Process, file: &Path, point: Point) {
    let until = Instant::now() + Duration::from_secs(60);
    while !file.exists() {
        assert!(Instant::now() < until, "it never came past {}:\n{}", point.as_str(), process.log());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn comes_to_rest(stage: &Stage) {
    let ended = stage.once().await;
    assert_eq!(ended.code, 0, "{}", ended.all());
    invariants::check(stage, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_point_of_a_run() {
    let mut cases = Cases::new("crash: every point of --once");
    for scenario in Scenario::ALL {
        for point in Point::ALL.into_iter().filter(|point| reached(scenario, *point)) {
            cases.add(format!("{scenario:?} at {}", point.as_str()), Kind::Busy, async move {
                let stage = Stage::new(scenario).await;
                killed_at(&stage, point, 1, &["--once"]).await;
                comes_to_rest(&stage).await;
            });
        }
    }
    cases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_point_of_the_second_batch() {
    let mut cases = Cases::new("crash: the second batch");
    for scenario in Scenario::ALL {
        for point in OF_A_BATCH {
            cases.add(format!("{scenario:?} at the second {}", point.as_str()), Kind::Busy, async move {
                let stage = Stage::new(scenario).await.small_batches();
                killed_at(&stage, point, 2, &["--once"]).await;
                comes_to_rest(&stage).await;
            });
        }
    }
    cases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_daemon() {
    let mut cases = Cases::new("crash: a daemon");
    for scenario in Scenario::ALL {
        let points = OF_A_MAIL
            .into_iter()
            .chain([Point::BatchCommitted])
            .chain(reached(scenario, Point::RemindersNoted).then_some(Point::RemindersNoted));
        for point in points {
            cases.add(format!("{scenario:?}, a daemon at {}", point.as_str()), Kind::Busy, async move {
                let stage = Stage::new(scenario).await;
                killed_at(&stage, point, 1, &[]).await;
                let daemon = stage.start(&[], &[]);
                stage.all_told(&daemon).await;
                assert_eq!(crate::scenario::stopped(daemon).await.code, 0);
                comes_to_rest(&stage).await;
            });
        }
    }
    cases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_recovery_from_a_crash() {
    let mut cases = Cases::new("crash: in the recovery");
    for scenario in Scenario::ALL {
        for first in [Point::BatchPlanned, Point::BatchCommitted] {
            for second in OF_RECOVERY {
                cases.add(format!("{scenario:?} at {}, then at {}", first.as_str(), second.as_str()), Kind::Busy, async move {
                    let stage = Stage::new(scenario).await;
                    killed_at(&stage, first, 1, &["--once"]).await;
                    killed_at(&stage, second, 1, &["--once"]).await;
                    comes_to_rest(&stage).await;
                });
            }
        }
        // A batch of each kind, and every step of the way back.
        cases.add(format!("{scenario:?}, one crash after the other"), Kind::Busy, async move {
            let stage = Stage::new(scenario).await.small_batches();
            for (point, nth) in [
                (Point::BatchCommitted, 2),
                (Point::RecoveryLooked, 1),
                (Point::RecoveryNoted, 1),
                (Point::BatchPlanned, 1),
                (Point::RecoveryLooked, 1),
                (Point::MailAnswered, 1),
            ] {
                killed_at(&stage, point, nth, &["--once"]).await;
            }
            comes_to_rest(&stage).await;
        });
    }
    cases.end().await;
}

/// Crashes in a row, wherever chance has them; only in long runs.
#[tokio::test(flavor = "multi_thread")]
async fn at_points_in_a_row_by_chance() {
    let mut cases = Cases::new("crash: by chance");
    for n in 0..if is_long() { 150 } else { 6 } {
        let scenario = Scenario::ALL[n % Scenario::ALL.len()];
        cases.add(format!("{scenario:?}, by chance, {n}"), Kind::Busy, async move {
            let stage = Stage::new(scenario).await.small_batches();
            let mut way = Vec::new();
            for _ in 0..4 {
                let point = Point::ALL[rand::rng().random_range(0..Point::ALL.len())];
                let file = stage.site.folder().join(format!("stands-{}", rand::random::<u32>()));
                let nth = rand::rng().random_range(1..=2);
                way.push(format!("{}:{nth}", point.as_str()));
                let mut run = stage.start(&[("CREDKEEPER_FAULT", &format!("{}:{nth}:{}", point.as_str(), file.display()))], &["--once"]);
                // It may end before it comes there.
                while !file.exists() && run.is_alive() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                run.kill();
            }
            println!("{scenario:?}: {}", way.join(", "));
            comes_to_rest(&stage).await;
        });
    }
    cases.end().await;
}
