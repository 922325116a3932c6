//! Bytes of replies on their way to a client.
//!
//! Always: what lies in the log goes to a plain socket without passing through this process
//! (`sendfile(2)`, as Kafka does), and by small pieces where it must be encrypted.
//! Always: no thread waits for a slow client, and no connection for a slow disk.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use falaj_log::Stored;
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tracing::error;

use crate::broker::Crashed;
use crate::connection::End;

/// How much of the log is read at once for a reply; it holds two of these.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// Where replies go.
pub(crate) trait Outlet: AsyncWrite + Unpin {
    /// The socket, where bytes go to it as they are.
    fn plain(&self) -> Option<&TcpStream>;
}

impl Outlet for OwnedWriteHalf {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl Outlet for WriteHalf<TlsStream<TcpStream>> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

/// Writes all of it; who takes nothing of it for too long is stalled.
pub(crate) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: impl Buf,
    stalled: Duration,
) -> Result<(), End> {
    while bytes.has_remaining() {
        let written = timeout(stalled, to.write_buf(&mut bytes)).await;
        if written.map_err(|_| End::Stalled)?? == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
    }
    Ok(())
}

pub(crate) async fn flush(
    to: &mut (impl AsyncWrite + Unpin),
    stalled: Duration,
) -> Result<(), End> {
    let flushed = timeout(stalled, to.flush()).await;
    Ok(flushed.map_err(|_| End::Stalled)??)
}

/// Writes what lies in the log.
pub(crate) async fn send_stored(
    to: &mut impl Outlet,
    stored: Stored,
    stalled: Duration,
) -> Result<(), End> {
    #[cfg(target_os = "linux")]
    if let (Some(socket), Some(_)) = (to.plain(), stored.system_file()) {
        return plain::send(socket, stored, stalled).await;
    }
    send_pieces(to, stored, stalled).await
}

/// One piece is read while the one before is written.
async fn send_pieces(
    to: &mut (impl AsyncWrite + Unpin),
    stored: Stored,
    stalled: Duration,
) -> Result<(), End> {
    let stored = Arc::new(stored);
    let read = |at: usize, mut into: Vec<u8>| {
        let stored = Arc::clone(&stored);
        spawn_blocking(move || {
            into.resize(PIECE_BYTES.min(stored.bytes() - at), 0);
            stored.read(at, &mut into).map(|()| into)
        })
    };
    let (mut at, mut spare) = (0, Vec::new());
    let mut reading = read(at, Vec::new());
    loop {
        let piece = match reading.await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Err(unreadable(&error)),
            Err(_) => return Err(End::Crashed(Crashed)),
        };
        at += piece.len();
        if at == stored.bytes() {
            return send(to, &piece[..], stalled).await;
        }
        reading = read(at, spare);
        send(to, &piece[..], stalled).await?;
        spare = piece;
    }
}

/// The length that was announced cannot be kept: only the end of the connection says so.
fn unreadable(error: &dyn std::fmt::Display) -> End {
    error!(%error, "records could not be read while they were sent");
    End::Crashed(Crashed)
}

#[cfg(target_os = "linux")]
mod plain {
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Arc;
    use std::time::Duration;

    use falaj_log::Stored;
    use rustix::fs::sendfile;
    use rustix::io::{Errno, retry_on_intr};
    use tokio::io::Interest;
    use tokio::net::TcpStream;
    use tokio::task::spawn_blocking;
    use tokio::time::timeout;

    use super::unreadable;
    use crate::broker::Crashed;
    use crate::connection::End;

    /// So much shows whether the socket takes more; it was read from the disk already when the socket
    /// took no more.
    const PROBE_BYTES: usize = 4096;

    /// What is sent at most before others have their turn on the thread.
    const TURN_BYTES: usize = 4 << 20;

    /// Sends out of the file: on a thread that may wait for the disk, until the socket takes no more;
    /// then the waiting for the socket holds no thread.
    pub(super) async fn send(
        socket: &TcpStream,
        stored: Stored,
        stalled: Duration,
    ) -> Result<(), End> {
        let (stored, out) = (
            Arc::new(stored),
            Arc::new(socket.as_fd().try_clone_to_owned()?),
        );
        let mut at = 0;
        while at < stored.bytes() {
            let sent = spawn_blocking({
                let (stored, out) = (Arc::clone(&stored), Arc::clone(&out));
                move || until_full(&out, &stored, at)
            });
            at += match sent.await {
                Ok(sent) => sent?,
                Err(_) => return Err(End::Crashed(Crashed)),
            };
            if at == stored.bytes() {
                break;
            }
            let more = socket.async_io(Interest::WRITABLE, || {
                some(socket, &stored, at, PROBE_BYTES)
            });
            let more = timeout(stalled, more).await.map_err(|_| End::Stalled)?;
            at += more.map_err(end)?;
        }
        Ok(())
    }

    fn until_full(out: &OwnedFd, stored: &Stored, from: usize) -> Result<usize, End> {
        let mut sent = 0;
        while from + sent < stored.bytes() && sent < TURN_BYTES {
            match some(out, stored, from + sent, TURN_BYTES) {
                Ok(more) => sent += more,
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(end(error)),
            }
        }
        Ok(sent)
    }

    /// Whether it was the file or the socket.
    fn end(error: io::Error) -> End {
        let file = error.kind() == io::ErrorKind::UnexpectedEof
            || error.raw_os_error() == Some(Errno::IO.raw_os_error());
        if file {
            unreadable(&error)
        } else {
            error.into()
        }
    }

    /// At least a byte.
    fn some(out: &impl AsFd, stored: &Stored, at: usize, bytes_max: usize) -> io::Result<usize> {
        let (file, from) = stored.system_file().ok_or(Errno::BADF)?;
        let from = from + at as u64;
        let count = bytes_max.min(stored.bytes() - at);
        match retry_on_intr(|| sendfile(out, file, Some(&mut from.clone()), count))? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            sent => Ok(sent),
        }
    }
}
