//! What a server's processes have worked.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use bulk_benches::Failed;

/// The processes of one server, as Linux lists them.
pub(crate) struct ServerCpu {
    postmaster: u32,
    /// The children that are there when nobody is connected.
    own: Vec<u32>,
}

/// A process, by proc(5).
struct Process {
    pid: u32,
    parent: u32,
    /// Hundredths of a second on a core: its own, and those of its children that it has waited for.
    own: u64,
    waited_for: u64,
}

impl ServerCpu {
    /// Of a server to which nobody is connected, by its postmaster.
    pub(crate) fn new(postmaster: u32) -> Result<Self, Failed> {
        let mut server = Self { postmaster, own: Vec::new() };
        // Its last client may not be gone yet.
        let mut before = server.children()?;
        loop {
            thread::sleep(Duration::from_millis(300));
            let now = server.children()?;
            if now == before {
                break;
            }
            before = now;
        }
        server.own = before;
        Ok(server)
    }

    /// Seconds on a core of all its processes, those that have ended included, once nobody is connected to it.
    pub(crate) fn seconds(&self) -> Result<f64, Failed> {
        let patience = Instant::now() + Duration::from_secs(60);
        while self.children()? != self.own {
            if Instant::now() > patience {
                return Err("somebody is still connected to the server".into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        let ticks = processes()?.into_iter().map(|process| match process {
            Process { pid, own, waited_for, .. } if pid == self.postmaster => own + waited_for,
            Process { parent, own, .. } if parent == self.postmaster => own,
            _ => 0,
        });
        Ok(ticks.sum::<u64>() as f64 / 100.0)
    }

    fn children(&self) -> Result<Vec<u32>, Failed> {
        let children = processes()?.into_iter().filter(|process| process.parent == self.postmaster);
        let mut children: Vec<u32> = children.map(|process| process.pid).collect();
        children.sort_unstable();
        Ok(children)
    }
}

fn processes() -> Result<Vec<Process>, Failed> {
    let process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name before the last parenthesis may hold anything; the state is the third field.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let parent = fields.get(1)?.parse().ok()?;
        Some(Process { pid, parent, own: ticks(14)? + ticks(15)?, waited_for: ticks(16)? + ticks(17)? })
    };
    Ok(fs::read_dir("/proc")?.flatten().filter_map(process).collect())
}
