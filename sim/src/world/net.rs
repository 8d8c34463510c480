//! The product's two doors, opened to the simulated network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use daybook_client::{Builder, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::{TcpListener, TcpStream};

pub const PORT: u16 = 7400;
pub const SERVER: &str = "server";

/// What the server listens on.
pub struct Listener(TcpListener);

impl Listener {
    pub async fn bind() -> io::Result<Self> {
        Ok(Self(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?))
    }
}

impl axum::serve::Listener for Listener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Ok(accepted) = self.0.accept().await {
                return accepted;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What clients dial with.
pub fn dial() -> Builder {
    Client::builder(&format!("http://{SERVER}:{PORT}"))
        .connector(|_| async { TcpStream::connect((SERVER, PORT)).await })
}

/// One HTTP request; the body of a good answer.
pub async fn http(method: &'static str, path: String) -> io::Result<String> {
    let mut stream = TcpStream::connect((SERVER, PORT)).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {SERVER}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 2") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}
