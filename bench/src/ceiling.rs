//! The server of the ceiling: a bare group commit, in one thread. All that has
//! come from all sockets is written at once over space that was filled with
//! zeros, synced, answered. Nothing is checked, found again or recovered: an
//! upper bound for this shape on this disk, no product.
//!
//! A frame is its length (u32, little-endian) and its body; the answer is one
//! byte. The lengths below ask to be sent every frame instead.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::Result;

/// Instead of a frame: every frame of the file, and those to come.
pub const FROM_START: u32 = u32::MAX;
/// Instead of a frame: those to come.
pub const FROM_END: u32 = u32::MAX - 1;
/// Bytes filled with zeros before the first write; beyond them the file grows.
const PREPARED: usize = 512 << 20;

/// The bare group commit that `bench` compares with.
#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    file: PathBuf,
}

struct Peer {
    socket: TcpStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// How far this reader has been sent the file.
    reads_from: Option<u64>,
}

pub fn serve(args: &Args) -> Result<()> {
    let file = prepare(&args.file)?;
    let mut listener = TcpListener::bind(args.listen)?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1_024));
    const LISTENER: Token = Token(usize::MAX);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    eprintln!("listening on {}", args.listen);
    let (mut peers, mut tokens) = (HashMap::<Token, Peer>::new(), 0);
    let (mut end, mut batch, mut writers) = (0u64, Vec::new(), Vec::new());
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    tokens += 1;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut socket, Token(tokens), interest)?;
                    let peer = Peer { socket, unread: Vec::new(), unsent: Vec::new(), reads_from: None };
                    peers.insert(Token(tokens), peer);
                }
                continue;
            }
            let Some(peer) = peers.get_mut(&event.token()) else { continue };
            if !peer.take() {
                peers.remove(&event.token());
                continue;
            }
            let frames = peer.frames(&mut batch, end);
            if frames > 0 {
                writers.push((event.token(), frames));
            }
        }
        if !batch.is_empty() {
            file.write_all_at(&batch, end)?;
            file.sync_data()?;
            end += batch.len() as u64;
            batch.clear();
        }
        for (token, frames) in writers.drain(..) {
            if let Some(peer) = peers.get_mut(&token) {
                peer.unsent.resize(peer.unsent.len() + frames, 1);
            }
        }
        for peer in peers.values_mut() {
            peer.give(&file, end)?;
        }
    }
}

fn prepare(path: &std::path::Path) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; 4 << 20];
    for at in (0..PREPARED).step_by(zeros.len()) {
        file.write_all_at(&zeros, at as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

impl Peer {
    /// Takes up what has come; false once the socket is closed.
    fn take(&mut self) -> bool {
        let mut buffer = [0; 64 << 10];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(bytes) => self.unread.extend_from_slice(&buffer[..bytes]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Moves whole frames into `batch` and tells how many.
    fn frames(&mut self, batch: &mut Vec<u8>, end: u64) -> usize {
        let (mut at, mut frames) = (0, 0);
        while let Some(length) = self.unread.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
            match u32::from_le_bytes(*length) {
                FROM_START => self.reads_from = Some(0),
                FROM_END => self.reads_from = Some(end),
                length => {
                    let Some(frame) = self.unread.get(at..at + 4 + length as usize) else { break };
                    batch.extend_from_slice(frame);
                    at += frame.len();
                    frames += 1;
                    continue;
                }
            }
            at += 4;
        }
        self.unread.drain(..at);
        frames
    }

    fn give(&mut self, file: &File, end: u64) -> Result<()> {
        const CHUNK: u64 = 256 << 10;
        loop {
            if self.unsent.is_empty()
                && let Some(from) = self.reads_from.as_mut().filter(|from| **from < end)
            {
                self.unsent.resize((end - *from).min(CHUNK) as usize, 0);
                file.read_exact_at(&mut self.unsent, *from)?;
                *from += self.unsent.len() as u64;
            }
            if self.unsent.is_empty() {
                return Ok(());
            }
            match self.socket.write(&self.unsent) {
                Ok(bytes) => drop(self.unsent.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Gone: the next event of this socket tells.
                Err(_) => self.unsent.clear(),
            }
        }
    }
}
