//! A socket with a buffer on both sides, for protocols spoken by hand: all that
//! is queued goes out in one call, all that has come is taken before waiting.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// Asked of the socket at once, at least.
const ROOM_BYTES: usize = 256 << 10;

pub struct Lines {
    socket: TcpStream,
    pub out: Vec<u8>,
    read: Vec<u8>,
    taken: usize,
}

impl Lines {
    pub async fn connect(address: &str) -> Result<Self> {
        let socket = TcpStream::connect(address).await.map_err(|e| format!("cannot reach {address}: {e}"))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, out: Vec::new(), read: Vec::with_capacity(4 * ROOM_BYTES), taken: 0 })
    }

    /// What has come and is not taken.
    pub fn unread(&self) -> &[u8] {
        &self.read[self.taken..]
    }

    pub fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken == self.read.len() {
            self.read.clear();
            self.taken = 0;
        }
    }

    pub async fn flush(&mut self) -> Result<()> {
        if !self.out.is_empty() {
            self.socket.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Sends what is queued and waits for more.
    pub async fn more(&mut self) -> Result<()> {
        self.flush().await?;
        self.make_room();
        if self.socket.read_buf(&mut self.read).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }

    /// Takes up what has come without waiting; false if nothing has.
    pub fn more_now(&mut self) -> Result<bool> {
        self.make_room();
        match self.socket.try_read_buf(&mut self.read) {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What is not taken moves to the front only when it is in the way.
    fn make_room(&mut self) {
        if self.read.capacity() - self.read.len() < ROOM_BYTES {
            self.read.drain(..self.taken);
            self.taken = 0;
            self.read.reserve(ROOM_BYTES);
        }
    }
}
