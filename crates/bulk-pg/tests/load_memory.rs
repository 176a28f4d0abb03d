//! How much memory a load takes whose chunks are kept until it is their turn. By itself, as the figures are the process's.
#![cfg(target_os = "linux")]

mod support;

use std::io::{self, Read};
use std::pin::pin;

use bulk_pg::{FileIdentity, LoadOptions, Plain, load};
use support::{Bench, Input, table};

const SESSIONS: usize = 8;
const RECORDS: u64 = 4096;
const LINE: usize = 64 << 10;
const MIB: u64 = 1 << 20;

/// The most memory that this process has had so far, in bytes (proc_pid_status(5)).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// A file that is made while it is read.
struct Made {
    next: u64,
    line: io::Cursor<Vec<u8>>,
}

impl Read for Made {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.line.read(buffer)? {
            0 if self.next < RECORDS && !buffer.is_empty() => {
                self.next += 1;
                self.line = io::Cursor::new(format!("{},{}\n", self.next, "x".repeat(LINE)).into_bytes());
                self.line.read(buffer)
            }
            read => Ok(read),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_wait_for_their_turn_take_no_more_than_their_share() {
    // The first record waits for the advisory lock 7, and so does the turn of all chunks behind it.
    let bench = Bench::new(
        "memory",
        "CREATE TABLE t (id integer, text text);
         CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END $$;
         CREATE TRIGGER hold BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION hold()",
    );
    let holder = bench.session().await;
    holder.client().batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let mut sessions = bench.sessions(SESSIONS).await;
    let before = peak();
    let mut options = LoadOptions::default();
    options.max_rejects = 1;
    let file = FileIdentity::new("made.csv", None, RECORDS);
    let open = || {
        let header = io::Cursor::new(b"id,text\n".to_vec());
        Ok(Box::new(Plain(header.chain(Made { next: 0, line: io::Cursor::default() }))) as Input)
    };
    let target = table("t");
    let mut loading = pin!(load(&mut sessions, &target, &file, open, &options));
    let all_wait = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND state = 'idle in transaction'";
        while bench.psql(waiting) != (SESSIONS - 1).to_string() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = &mut loading => panic!("{ended:?}"),
        () = all_wait => {}
    }
    holder.client().batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    let loaded = loading.await.unwrap();
    assert_eq!((loaded.records, loaded.rejected), (RECORDS, 0));
    let lengths = bench.psql("SELECT count(*), min(length(text)), max(length(text)) FROM t");
    assert_eq!(lengths, format!("{RECORDS}|{LINE}|{LINE}"));
    // What waits to be sent, what is kept, and what it takes besides. Of chunks of 16 MiB each it would be 80 MiB more.
    let taken = peak() - before;
    assert!(taken < (80 + 32 + 40) * MIB, "{} MiB", taken / MIB);
}
