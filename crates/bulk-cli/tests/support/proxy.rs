//! A way to a server that can be cut at any byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// A place in the bytes of all connections together. What comes behind it is held until it is
/// [released](Proxy::release).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) direction: Direction,
    pub(crate) bytes: u64,
}

/// Takes connections on loopback and carries their bytes to a server and back.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// To the server, and to the client.
    passed: [u64; 2],
    moment: Option<Moment>,
    is_reached: bool,
    /// Client's side and server's.
    links: Vec<[TcpStream; 2]>,
    /// Servers' sides of connections of which the client's is cut.
    lingering: Vec<TcpStream>,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { server, state: Mutex::default(), changed: Condvar::new() });
        let taken = shared.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                taken.take(client);
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts from 0 again, and holds what comes behind this moment.
    pub(crate) fn arm(&self, moment: Option<Moment>) {
        let mut state = self.shared.lock();
        (state.passed, state.moment, state.is_reached) = ([0, 0], moment, false);
        state.links.clear();
    }

    /// Bytes that went to the server and to clients.
    pub(crate) fn passed(&self) -> [u64; 2] {
        self.shared.lock().passed
    }

    /// Waits until the moment is reached, or until `is_over`, which is asked now and then; whether it is reached.
    pub(crate) fn wait(&self, mut is_over: impl FnMut() -> bool) -> bool {
        let mut state = self.shared.lock();
        while !state.is_reached {
            let looked_at = Duration::from_millis(5);
            state = self.shared.changed.wait_timeout(state, looked_at).unwrap().0;
            if !state.is_reached && is_over() {
                return false;
            }
        }
        true
    }

    /// Cuts all connections. With `lingers`, the server learns of it at the next connection.
    pub(crate) fn cut(&self, lingers: bool) {
        let mut state = self.shared.lock();
        for [client, server] in std::mem::take(&mut state.links) {
            // One that has ended already cannot be shut down.
            let _ = client.shutdown(Shutdown::Both);
            if lingers {
                state.lingering.push(server);
            } else {
                let _ = server.shutdown(Shutdown::Both);
            }
        }
    }

    /// Lets all go on that is held.
    pub(crate) fn release(&self) {
        self.shared.lock().moment = None;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn take(self: &Arc<Self>, client: TcpStream) {
        for server in std::mem::take(&mut self.lock().lingering) {
            let _ = server.shutdown(Shutdown::Both);
        }
        // Without a server the client's connection is closed.
        let Ok(server) = TcpStream::connect(self.server) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let copies = || io::Result::Ok([client.try_clone()?, server.try_clone()?]);
        self.lock().links.push(copies().unwrap());
        for (direction, [from, to]) in
            [(Direction::ToServer, copies().unwrap()), (Direction::ToClient, [server, client])]
        {
            let shared = self.clone();
            thread::spawn(move || shared.carry(direction, &from, &to));
        }
    }

    fn carry(&self, direction: Direction, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let (before, behind) = buffer[..read].split_at(self.count(direction, read));
            if to.write_all(before).is_err() || !behind.is_empty() && self.hold(|| to.write_all(behind)).is_err() {
                break;
            }
        }
        // The server is not to miss a client that lingers.
        let is_lingering = |state: &State| {
            let server = if direction == Direction::ToServer { to } else { from };
            state.lingering.iter().any(|other| other.local_addr().ok() == server.local_addr().ok())
        };
        if !is_lingering(&self.lock()) {
            let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
        }
    }

    /// Counts bytes that are about to pass; how many of them may before the moment.
    fn count(&self, direction: Direction, bytes: usize) -> usize {
        let mut state = self.lock();
        let passed = &mut state.passed[direction as usize];
        let before = *passed;
        *passed += bytes as u64;
        match state.moment {
            Some(moment) if moment.direction == direction && before + bytes as u64 > moment.bytes => {
                usize::try_from(moment.bytes.saturating_sub(before)).unwrap()
            }
            _ => bytes,
        }
    }

    /// Says that the moment is reached, and does what is held back once it is released.
    fn hold<T>(&self, go_on: impl FnOnce() -> T) -> T {
        let mut state = self.lock();
        if state.moment.is_some() {
            state.is_reached = true;
            self.changed.notify_all();
        }
        while state.moment.is_some() {
            state = self.changed.wait(state).unwrap();
        }
        drop(state);
        go_on()
    }
}
