use std::{collections::VecDeque, io, thread};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::Error;

/// Where jobs go.
pub(super) type Put<'a, J> = dyn FnMut(J) -> Result<(), Error> + 'a;

/// Does the jobs that `feed` gives in several threads, and hands what comes of them to `write`, in the order of the jobs.
/// Two jobs for each thread are held at a time. `file` is the name that errors give.
pub(super) fn in_order<J: Send, M: Send>(
    file: &str,
    threads: usize,
    work: impl Fn(J) -> io::Result<M> + Sync,
    mut write: impl FnMut(M) -> Result<(), Error>,
    feed: impl FnOnce(&mut Put<'_, J>) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |source| Error::Output { file: file.to_owned(), source };
    if threads <= 1 {
        return feed(&mut |job| write(work(job).map_err(failed)?));
    }
    let received = |receiver: &Receiver<io::Result<M>>| {
        let panicked = |_| Err(io::Error::other("a thread that compresses panicked"));
        receiver.recv().unwrap_or_else(panicked).map_err(failed)
    };
    thread::scope(|scope| {
        let (jobs, waiting) = bounded::<(J, Sender<io::Result<M>>)>(threads);
        let (mut workers, mut pieces) = (0, VecDeque::new());
        let fed = feed(&mut |job| {
            if workers < threads {
                let (waiting, work) = (waiting.clone(), &work);
                let worker = move || {
                    for (job, done) in waiting {
                        // Nobody wants it where something has failed.
                        let _ = done.send(work(job));
                    }
                };
                match thread::Builder::new().name("export-shape".to_owned()).spawn_scoped(scope, worker) {
                    Ok(_) => workers += 1,
                    // Fewer threads do the same work.
                    Err(_) if workers > 0 => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            // First, since a worker that panicked shows there: were there none left, nobody would take the job.
            if pieces.len() >= 2 * threads
                && let Some(first) = pieces.pop_front()
            {
                write(received(&first)?)?;
            }
            let (done, piece) = bounded(1);
            // They hold its other end, and so does this.
            let _ = jobs.send((job, done));
            pieces.push_back(piece);
            Ok(())
        });
        // Workers end with the last job.
        drop(jobs);
        fed?;
        pieces.iter().try_for_each(|piece| write(received(piece)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_of_jobs_is_in_their_order() {
        for threads in [1, 2, 5] {
            let mut written = Vec::new();
            let feed = |put: &mut Put<'_, u64>| (0..100).try_for_each(put);
            let work = |job: u64| Ok((0..(job * 7919) % 5000).fold(job, |sum, _| std::hint::black_box(sum)));
            let write = |made| {
                written.push(made);
                Ok(())
            };
            in_order("a", threads, work, write, feed).unwrap();
            assert_eq!(written, (0..100).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn the_first_failure_ends_it() {
        for threads in [1, 3] {
            let mut written = Vec::new();
            let work = |job: u64| if job == 40 { Err(io::Error::other("forty")) } else { Ok(job) };
            let write = |made| {
                written.push(made);
                Ok(())
            };
            let error = in_order("a", threads, work, write, |put| (0..).try_for_each(put)).unwrap_err();
            assert!(matches!(error, Error::Output { source, .. } if source.to_string() == "forty"));
            assert_eq!(written, (0..40).collect::<Vec<u64>>());
        }
    }
}
