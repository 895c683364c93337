//! How the operating system asks the process to stop, or to read its configuration again. The only place that knows the
//! platforms' signals.

use std::io;

use tokio::sync::{mpsc, watch};

/// Watches for a request to stop from now on; the future ends with the first one and names it. After it there are about
/// ten seconds to finish in good order. A second request ends the process at once: the journal makes that safe, whatever
/// was in hand.
///
/// On Unix these are SIGTERM (systemd) and SIGINT (Ctrl-C); on Windows Ctrl-C, Ctrl-Break, the closing of the console, and
/// the shutdown of the system.
///
/// # Errors
/// When the operating system refuses to tell us.
pub fn stop_signal() -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let signals = platform::watch()?;
    Ok(first(signals, || std::process::exit(1)))
}

/// Changes whenever somebody asks to read the configuration again; several requests that nobody has looked at yet are one.
///
/// On Unix this is SIGHUP. On Windows nobody asks yet; the service control will.
///
/// # Errors
/// When the operating system refuses to tell us.
pub fn reload_signal() -> io::Result<watch::Receiver<()>> {
    platform::watch_reload()
}

/// `end` is called at the second request.
async fn first(mut signals: mpsc::Receiver<&'static str>, end: impl FnOnce() + Send + 'static) -> &'static str {
    let Some(name) = signals.recv().await else {
        // No watcher is left, so nobody can ask any more.
        return std::future::pending().await;
    };
    tokio::spawn(async move {
        if signals.recv().await.is_some() {
            end();
        }
    });
    name
}

/// Passes `event` on as `name`, as often as it happens, until nobody listens.
macro_rules! forward {
    ($sender:expr, $name:literal, $event:expr) => {{
        let (sender, mut event) = ($sender.clone(), $event);
        tokio::spawn(async move { while event.recv().await.is_some() && sender.send($name).await.is_ok() {} });
    }};
}

#[cfg(unix)]
mod platform {
    use tokio::signal::unix::{SignalKind, signal};

    use super::{io, mpsc, watch};

    pub(super) fn watch() -> io::Result<mpsc::Receiver<&'static str>> {
        let (sender, receiver) = mpsc::channel(4);
        forward!(sender, "SIGTERM", signal(SignalKind::terminate())?);
        forward!(sender, "SIGINT", signal(SignalKind::interrupt())?);
        Ok(receiver)
    }

    pub(super) fn watch_reload() -> io::Result<watch::Receiver<()>> {
        let (sender, receiver) = watch::channel(());
        let mut asked = signal(SignalKind::hangup())?;
        tokio::spawn(async move { while asked.recv().await.is_some() && sender.send(()).is_ok() {} });
        Ok(receiver)
    }
}

#[cfg(windows)]
mod platform {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};

    use super::{io, mpsc, watch};

    pub(super) fn watch() -> io::Result<mpsc::Receiver<&'static str>> {
        let (sender, receiver) = mpsc::channel(4);
        forward!(sender, "Ctrl-C", ctrl_c()?);
        forward!(sender, "Ctrl-Break", ctrl_break()?);
        forward!(sender, "console closed", ctrl_close()?);
        forward!(sender, "system shutdown", ctrl_shutdown()?);
        Ok(receiver)
    }

    pub(super) fn watch_reload() -> io::Result<watch::Receiver<()>> {
        Ok(watch::channel(()).1)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_first_request_asks_and_the_second_ends() {
        let (sender, receiver) = mpsc::channel(4);
        let (ended, has_ended) = oneshot::channel();
        let asked = first(receiver, move || _ = ended.send(()));
        sender.send("SIGTERM").await.unwrap();
        assert_eq!(asked.await, "SIGTERM");
        sender.send("SIGINT").await.unwrap();
        has_ended.await.expect("the end was called");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn requests_to_reload_that_nobody_has_looked_at_are_one() {
        let mut asked = reload_signal().unwrap();
        let ask = || std::process::Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status().unwrap();
        assert!(ask().success() && ask().success() && ask().success());
        asked.changed().await.unwrap();
        let again = tokio::time::timeout(std::time::Duration::from_millis(200), asked.changed()).await;
        assert!(again.is_err() || !asked.has_changed().unwrap(), "at most one more");
        assert!(ask().success());
        asked.changed().await.unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_real_signal_arrives() {
        // Watched before it is sent, so that it cannot end the test run.
        let asked = stop_signal().unwrap();
        let sent = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(asked.await, "SIGTERM");
    }
}
