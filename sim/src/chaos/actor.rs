//! One actor in a process of its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daybook_client::Client;
use tokio::signal::unix::{SignalKind, signal};

use crate::entropy::Dice;
use crate::history::{File, Scribe};
use crate::workload::{self, Actor, GROUPS, Orders};

/// Once this file is there, it is calm.
pub(super) const CALM: &str = "calm";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of the group with this number.
    Member(usize),
    Publisher,
    Follower,
    Rebuilder,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(group) => f.write_str(GROUPS[*group].name),
            Self::Publisher => f.write_str("publisher"),
            Self::Follower => f.write_str("follower"),
            Self::Rebuilder => f.write_str("rebuilder"),
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "publisher" => Ok(Self::Publisher),
            "follower" => Ok(Self::Follower),
            "rebuilder" => Ok(Self::Rebuilder),
            name => match GROUPS.iter().position(|group| group.name == name) {
                Some(group) => Ok(Self::Member(group)),
                None => Err(format!("there is no role `{name}`")),
            },
        }
    }
}

/// How many events of a key a member takes at once: half of them one, as most do.
fn window(who: &str) -> u64 {
    let instance = who.split('#').next().unwrap_or_default();
    if instance.ends_with(['2', '4']) { 4 } else { 1 }
}

/// Acts until asked to go.
pub async fn act(
    role: Role,
    who: &str,
    bus: SocketAddr,
    seed: u64,
    history: &Path,
    calm: PathBuf,
) -> io::Result<()> {
    let orders = Orders::default();
    let mut terminate = signal(SignalKind::terminate())?;
    let leave = orders.leave.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        leave.store(true, Ordering::SeqCst);
    });
    let calmed = orders.calm.clone();
    tokio::spawn(async move {
        while !calm.exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        calmed.store(true, Ordering::SeqCst);
    });
    let actor = Actor {
        scribe: Scribe::new(who, File::append_to(history)?),
        dice: Dice::new(seed, who),
        dial: Arc::new(move || Client::builder(&format!("http://{bus}"))),
        orders,
        calls: Arc::default(),
        // Three publishers of their own and the shared ones: a thousand keys.
        keys: 250,
        pause_ms: 60,
        faultless: false,
    };
    match role {
        Role::Member(group) => workload::serve(actor, &GROUPS[group], window(who)).await,
        Role::Publisher => workload::publish(actor).await,
        Role::Follower => workload::follow(actor).await,
        Role::Rebuilder => workload::rebuild(actor).await,
    }
    Ok(())
}
