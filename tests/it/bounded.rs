//! Waits that end: a test that waits for something that never comes fails, and does not keep all others from being told about.

use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::site::at_most;

/// Waits until it is so.
pub async fn until(what: &str, within: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + within;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until it has ended.
pub fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + at_most();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("still running after {:?}", at_most());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub trait Bounded {
    /// As `output`, with both outputs. A program that does not end is ended.
    fn output_in_time(&mut self) -> Output;
}

impl Bounded for Command {
    fn output_in_time(&mut self) -> Output {
        let child = self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id().to_string();
        let (ended, wait) = channel::<()>();
        let dog = std::thread::spawn(move || {
            let late = wait.recv_timeout(at_most()) == Err(RecvTimeoutError::Timeout);
            if late {
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
            late
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        assert!(!dog.join().unwrap(), "{self:?}: still running after {:?}: {}", at_most(), String::from_utf8_lossy(&output.stderr));
        output
    }
}
