//! The connection of one client, which can be cut at an exact byte.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// How a connection ends before its answer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// With a FIN: what was written arrives, then the stream ends.
    Close,
    /// With a RST: the client sees "connection reset by peer", and what the kernel still held is lost.
    Reset,
}

/// Set by a body, obeyed by the [`Wire`] below it as soon as all that was written before has left for the kernel.
#[derive(Debug, Default)]
pub(crate) struct CutSwitch(AtomicU8);

impl CutSwitch {
    pub(crate) fn set(&self, cut: Cut) {
        let code = match cut {
            Cut::Close => 1,
            Cut::Reset => 2,
        };
        self.0.store(code, Ordering::Release);
    }

    fn get(&self) -> Option<Cut> {
        match self.0.load(Ordering::Acquire) {
            1 => Some(Cut::Close),
            2 => Some(Cut::Reset),
            _ => None,
        }
    }
}

pub(crate) struct Wire {
    stream: TcpStream,
    switch: Arc<CutSwitch>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, switch: Arc<CutSwitch>) -> Self {
        Self { stream, switch }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes the transport once its own buffer is empty, so a cut here falls exactly behind the last byte that
    /// the body gave. The error makes hyper drop the stream.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.switch.get() {
            None => Pin::new(&mut self.stream).poll_flush(cx),
            Some(cut) => {
                if cut == Cut::Reset {
                    self.stream.set_zero_linger()?;
                }
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
