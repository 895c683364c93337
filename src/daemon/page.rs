//! The page for health and metrics, over the configurations that follow each other: it moves only if its address changes.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;

use super::wait_for;
use crate::http::{self, Health, HttpError, Server};
use crate::logging::chain;
use crate::metrics::Metrics;

/// Dropped, it serves no more.
pub(super) struct Page {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// As the configuration says; `None`: there is none.
    at: Option<SocketAddr>,
    serving: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

/// What a new configuration makes of it.
pub(super) enum Turn {
    Stays,
    Closes,
    /// The new port is taken already.
    Moves(SocketAddr, Server),
}

impl Page {
    /// # Errors
    /// When the port cannot be had.
    pub(super) async fn open(at: Option<SocketAddr>, health: &Arc<Health>, metrics: &Arc<Metrics>) -> Result<Page, HttpError> {
        let mut page = Page { health: health.clone(), metrics: metrics.clone(), at: None, serving: None };
        if let Some(at) = at {
            let server = http::bind(at).await?;
            page.serve(at, server);
        }
        Ok(page)
    }

    /// What will have to be done to be at `to`. Nothing is done yet, but that the port is taken.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) async fn prepare(&self, to: Option<SocketAddr>) -> Result<Turn, HttpError> {
        let Some(to) = to else { return Ok(Turn::Closes) };
        if self.at == Some(to) {
            return Ok(Turn::Stays);
        }
        Ok(Turn::Moves(to, http::bind(to).await?))
    }

    pub(super) async fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Stays => {}
            Turn::Closes => self.close().await,
            Turn::Moves(to, server) => {
                self.close().await;
                self.serve(to, server);
            }
        }
    }

    fn serve(&mut self, at: SocketAddr, server: Server) {
        let (stop, stopping) = watch::channel(false);
        let serving = server.serve(self.health.clone(), self.metrics.clone(), wait_for(stopping));
        let task = tokio::spawn(async move {
            if let Err(e) = serving.await {
                error!(error.kind = e.kind(), "{}", chain(&e));
            }
        });
        self.at = Some(at);
        self.serving = Some((stop, task));
    }

    /// Answers under way have a moment to get out.
    async fn close(&mut self) {
        self.at = None;
        if let Some((stop, task)) = self.serving.take() {
            stop.send_replace(true);
            let _ = task.await; // whatever ended it has been told
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::metrics::Names;

    async fn free() -> SocketAddr {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
    }

    async fn answers(at: SocketAddr) -> bool {
        TcpStream::connect(at).await.is_ok()
    }

    #[tokio::test]
    async fn it_moves_only_when_it_has_to_and_never_to_a_port_that_is_taken() {
        let metrics = Arc::new(Metrics::new(Names { databases: &[], error_classes: &[], journal_states: &[] }));
        let (first, second) = (free().await, free().await);
        let mut page = Page::open(Some(first), &Arc::default(), &metrics).await.unwrap();
        assert!(matches!(page.prepare(Some(first)).await, Ok(Turn::Stays)));

        let taken = TcpListener::bind(second).await.unwrap();
        assert!(page.prepare(Some(second)).await.is_err());
        drop(taken);
        let turn = page.prepare(Some(second)).await.unwrap();
        page.turn(turn).await;
        assert_eq!((answers(first).await, answers(second).await), (false, true));

        let turn = page.prepare(None).await.unwrap();
        page.turn(turn).await;
        assert!(!answers(second).await);
    }
}
