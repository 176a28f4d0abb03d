use crate::exit::{Exit, Failure};

/// Runs what blocks in a thread of its own.
pub(crate) async fn blocking<T, W>(work: W) -> Result<T, Failure>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T, Failure> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(Exit::Failed, error))?
}
