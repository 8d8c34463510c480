//! `daybook demo`: bus, services, backend and page in one process, on the
//! embedded store.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use daybook_superclient::{Limits, Reload, Script, StateLocation};

use crate::exit::Failure;

/// Run everything at once: open a page and move money.
#[derive(clap::Args)]
pub struct Args {
    /// Where the log lives; made if absent. Started again on it, everything is still there.
    #[arg(long, env = "DAYBOOK_DATA", default_value = "daybook-data")]
    data: PathBuf,
    /// Address of the event bus; port 0 picks a free one.
    #[arg(long, env = "DAYBOOK_LISTEN", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// Address of the bank's page.
    #[arg(long, env = "DAYBOOK_BANK_LISTEN", default_value = "127.0.0.1:8080")]
    bank_listen: SocketAddr,
    /// Make two customers with money and a teller, and print their passwords.
    #[arg(long)]
    seed_users: bool,
    /// Take the services' Lua files from here instead of those built in.
    #[arg(long)]
    services: Option<PathBuf>,
}

macro_rules! built_in {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../../../apps/bank/services/", $name)))),*]
    };
}

const SERVICES: [(&str, &str); 4] =
    built_in!("users.lua", "accounts.lua", "transactions.lua", "reporting.lua");

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut interrupts = super::Interrupts::listen()?;
    if args.data.join("LOG").exists() {
        let data = args.data.display();
        return Err(Failure::failed(format!(
            "{data} is a log of `daybook serve`; a demo keeps its own in a directory of its own: --data OTHER"
        )));
    }
    let config = daybook_server::Config::new(args.data.join("log")).listen(args.listen);
    let server = daybook_server::start(config).await.map_err(|e| Failure::failed(e.to_string()))?;
    let bus = format!("http://{}", server.local_addr());
    // Nobody but our own backend may call the services.
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let scripts = SERVICES
        .iter()
        .map(|(name, text)| match &args.services {
            Some(dir) => Script::File(dir.join(name)),
            None => Script::Source { name: (*name).into(), text: (*text).into() },
        })
        .collect();
    let config = daybook_superclient::Config {
        bus: bus.clone(),
        scripts,
        state: StateLocation::Dir(args.data.join("state")),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        instances: 1,
        token: Some(token.clone()),
        instance_name: "demo".into(),
        services: HashMap::new(),
        limits: Limits::default(),
        reload: Reload::default(),
    };
    let host = match daybook_superclient::start(config).await {
        Ok(host) => host,
        Err(error) => {
            server.shutdown().await;
            return Err(super::run::failure(error));
        }
    };
    let services = format!("http://{}", host.local_addr());
    let config = daybook_bank_web::Config {
        listen: args.bank_listen,
        services: services.clone(),
        token: token.clone(),
    };
    let web = match daybook_bank_web::start(config).await {
        Ok(web) => web,
        Err(error) => {
            host.shutdown().await;
            server.shutdown().await;
            return Err(Failure::failed(error.to_string()));
        }
    };
    let seeded = if args.seed_users {
        daybook_bank_web::seed(&services, &token)
            .await
            .map_err(|e| Failure::failed(format!("cannot seed users: {e}")))?
    } else {
        Vec::new()
    };
    println!();
    println!("  Daybook is running.");
    println!();
    println!("  bank   http://{}", web.local_addr());
    println!("  bus    {bus}");
    println!("  data   {}", args.data.display());
    for user in &seeded {
        let password = user.password.as_deref().unwrap_or("(made earlier, password as printed then)");
        println!("  user   {:8} {:9} {password}", user.username, user.role);
    }
    println!();
    println!("  Watch every event:  daybook tail --bus {bus}");
    println!("  End it with Ctrl-C; started again, everything is still there.");
    println!();
    let poisoned = tokio::select! {
        () = interrupts.next() => None,
        reason = server.wait() => Some(reason),
    };
    // A second Ctrl-C does not wait for anybody.
    let ending = async {
        web.shutdown().await;
        host.shutdown().await;
        server.shutdown().await;
    };
    tokio::select! {
        () = ending => {}
        () = interrupts.next() => {}
    }
    match poisoned {
        None => Ok(()),
        Some(reason) => Err(Failure::failed(format!("the log failed and takes no more: {reason}"))),
    }
}
