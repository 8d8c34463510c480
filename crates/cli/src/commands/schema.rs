//! `daybook schema`: the machine-readable contract.

use clap::ValueEnum;

use crate::exit::Failure;

/// Print the contract, generated from the types that the server runs on.
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_enum, default_value = "json-schema")]
    document: Document,
}

#[derive(Clone, Copy, ValueEnum)]
enum Document {
    /// Every message and the event.
    JsonSchema,
    /// The WebSocket.
    Asyncapi,
    /// HTTP.
    Openapi,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let document = match args.document {
        Document::JsonSchema => daybook_server::schema::json_schema(),
        Document::Asyncapi => daybook_server::schema::asyncapi(),
        Document::Openapi => daybook_server::schema::openapi(),
    };
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &document).map_err(std::io::Error::from)?;
    Ok(std::io::Write::write_all(&mut out, b"\n")?)
}
