//! The two directions of a connection, after its handshake.
//!
//! # Promises
//! 1. What the client sent together with its handshake is read first.
//! 2. A TCP socket leaves the runtime that took it in and is bound to another;
//!    any other transport (one that is simulated) stays where it is.
//!
//! # Not here
//! The handshake (`upgrade.rs`), frames (`frame/`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A connection that no runtime looks after yet.
pub(super) enum Socket {
    Tcp { early: Bytes, tcp: std::net::TcpStream },
    Other(Upgraded),
}

impl Socket {
    pub fn new(upgraded: Upgraded) -> io::Result<Self> {
        match downcast::<TokioIo<TcpStream>>(upgraded) {
            Ok(parts) => Ok(Self::Tcp { early: parts.read_buf, tcp: parts.io.into_inner().into_std()? }),
            Err(upgraded) => Ok(Self::Other(upgraded)),
        }
    }

    pub fn can_move(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }

    /// Binds it to the runtime of the caller.
    pub fn split(self) -> io::Result<(Reader, Writer)> {
        Ok(match self {
            Self::Tcp { early, tcp } => {
                let (reader, writer) = TcpStream::from_std(tcp)?.into_split();
                (Reader::Tcp(early, reader), Writer::Tcp(writer))
            }
            Self::Other(upgraded) => {
                let (reader, writer) = split(TokioIo::new(upgraded));
                (Reader::Other(reader), Writer::Other(writer))
            }
        })
    }
}

pub(super) enum Reader {
    /// And what had come before it was bound.
    Tcp(Bytes, OwnedReadHalf),
    Other(ReadHalf<TokioIo<Upgraded>>),
}

pub(super) enum Writer {
    Tcp(OwnedWriteHalf),
    Other(WriteHalf<TokioIo<Upgraded>>),
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(early, _) if !early.is_empty() => {
                into.put_slice(&early.split_to(early.len().min(into.remaining())));
                Poll::Ready(Ok(()))
            }
            Self::Tcp(_, half) => Pin::new(half).poll_read(context, into),
            Self::Other(half) => Pin::new(half).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(context, bytes),
            Self::Other(half) => Pin::new(half).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_flush(context),
            Self::Other(half) => Pin::new(half).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(context),
            Self::Other(half) => Pin::new(half).poll_shutdown(context),
        }
    }
}
