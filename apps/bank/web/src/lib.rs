//! The bank's backend-for-frontend: the only part that faces the outside.
//!
//! # Promises
//! 1. It talks to the services' HTTP, never to the bus (paper §10.1).
//! 2. Form errors are refused before any event, each with its own code; what
//!    only an authority knows is decided by the services.
//! 3. Nobody reads or debits an account that is not his.
//! 4. A POST answers with the position of what it wrote; a read with `after=`
//!    that position sees it.
//!
//! # Not here
//! Balances and rules: those are the services'. Sessions live in memory: a
//! restart signs everybody out and loses nothing else.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod assets;
mod money;
mod problem;
mod seed;
mod services;
mod sessions;
mod transactions;
mod updates;
mod users;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use seed::{SeededUser, grant, seed};
use services::Services;
use sessions::Sessions;
use updates::Updates;

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// Base URL of the superclient that runs the bank's services.
    pub services: String,
    /// What those services demand.
    pub token: String,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("cannot listen on {address}: {source}; choose another address with --bank-listen")]
    Listen { address: SocketAddr, source: std::io::Error },
}

pub(crate) struct Bank {
    pub services: Services,
    pub sessions: Sessions,
    pub updates: Updates,
    pub shutdown: watch::Receiver<bool>,
}

pub struct Web {
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<std::io::Result<()>>,
    following: JoinHandle<()>,
}

/// Bodies are small forms.
const BODY_BYTES_MAX: usize = 64 << 10;

pub async fn start(config: Config) -> Result<Web, StartError> {
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(|source| StartError::Listen { address: config.listen, source })?;
    let address =
        listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
    let (shutdown, stopped) = watch::channel(false);
    let bank = Arc::new(Bank {
        services: Services::new(&config.services, &config.token),
        sessions: Sessions::default(),
        updates: Updates::default(),
        shutdown: stopped.clone(),
    });
    let following = tokio::spawn(updates::follow(bank.clone()));
    let app = Router::new()
        .route("/api/users", post(users::register))
        .route("/api/sessions", post(users::sign_in).delete(users::sign_out))
        .route("/api/init", get(accounts::init))
        .route("/api/updates", get(updates::socket))
        .route("/api/accounts", post(accounts::open))
        .route("/api/accounts/{number}/statement", get(accounts::statement))
        .route("/api/transactions", post(transactions::create))
        .route("/api/transactions/{id}", get(transactions::read))
        .route("/api/transactions/{id}/reversal", post(transactions::reverse))
        .fallback(assets::serve)
        .layer(axum::middleware::from_fn(sessions::same_origin))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(bank);
    let mut ending = stopped;
    let serving = tokio::spawn(async move {
        axum::serve(listener, app)
            .with_graceful_shutdown(async move {
                let _ = ending.wait_for(|stop| *stop).await;
            })
            .await
    });
    Ok(Web { address, shutdown, serving, following })
}

impl Web {
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    pub async fn shutdown(mut self) {
        self.shutdown.send_replace(true);
        self.following.abort();
        if tokio::time::timeout(std::time::Duration::from_secs(2), &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}
