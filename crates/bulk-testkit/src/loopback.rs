//! A port on loopback with threads and a runtime of its own.

use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// Serves connections until it is dropped, which closes all of them at once, in whatever state they are, and waits until
/// the port is free.
#[derive(Debug)]
pub(crate) struct Loopback {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Loopback {
    /// Calls `serve` with each connection and its number, from 1.
    pub(crate) fn start<S, F>(name: &'static str, serve: S) -> io::Result<Self>
    where
        S: Fn(TcpStream, u64) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        let thread =
            thread::Builder::new().name(name.to_owned()).spawn(move || run(runtime, serve, &bound, stopped))?;
        let address = address.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends by itself; a panic in it has been reported on its own.
            let _ = thread.join();
        }
    }
}

/// Says on `bound` where it listens, then serves until `stopped`.
fn run<S, F>(
    runtime: Runtime,
    serve: S,
    bound: &std::sync::mpsc::Sender<io::Result<SocketAddr>>,
    stopped: oneshot::Receiver<()>,
) where
    S: Fn(TcpStream, u64) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    runtime.block_on(async {
        let listener = match listen() {
            Ok((listener, address)) => {
                let _ = bound.send(Ok(address));
                listener
            }
            Err(error) => {
                let _ = bound.send(Err(error));
                return;
            }
        };
        tokio::select! {
            _ = stopped => {}
            () = accept(listener, serve) => {}
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
}

fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listener = socket.listen(1024)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn accept<S, F>(listener: TcpListener, serve: S)
where
    S: Fn(TcpStream, u64) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut number = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: other connections must end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        number += 1;
        // Only latency is lost if this fails.
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve(stream, number));
    }
}
