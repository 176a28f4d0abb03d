//! The order in which the chunks of several sessions are committed.

use tokio::sync::watch;

/// Lets chunks be committed in the order of the file, so that of two rows which exclude each other the later one is
/// refused, whatever the sessions do.
///
/// A chunk that is sent before its turn may have a row which one before it waits for. That one [asks](Self::ask) all that
/// are behind it to give back what they have, and to begin again when it is their turn.
#[derive(Debug)]
pub(crate) struct Turns(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    /// The chunk whose turn it is.
    next: u64,
    /// Whether it needs what others have.
    asked: bool,
    /// The first chunk that will never be done.
    broken: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is the chunk's turn.
    Now,
    /// What the chunk has is to be given back.
    Yield,
    /// A chunk before it is never done.
    Never,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// Waits until it is a chunk's turn, or for what comes before that.
    pub(crate) async fn wait(&self, chunk: u64) -> Turn {
        self.wait_for(chunk, |state| state.asked).await
    }

    /// Waits until it is the turn of a chunk that has nothing to give back.
    pub(crate) async fn wait_empty(&self, chunk: u64) -> Turn {
        self.wait_for(chunk, |_| false).await
    }

    async fn wait_for(&self, chunk: u64, is_asked: impl Fn(&State) -> bool) -> Turn {
        let turn = |state: &State| match state {
            State { next, .. } if *next == chunk => Some(Turn::Now),
            State { broken: Some(broken), .. } if *broken < chunk => Some(Turn::Never),
            state if is_asked(state) => Some(Turn::Yield),
            _ => None,
        };
        let mut states = self.0.subscribe();
        let state = states.wait_for(|state| turn(state).is_some()).await;
        state.ok().and_then(|state| turn(&state)).unwrap_or(Turn::Never)
    }

    /// Asks the chunks behind the one whose turn it is to give back what they have.
    pub(crate) fn ask(&self) {
        self.0.send_modify(|state| state.asked = true);
    }

    /// The chunk whose turn it was is committed.
    pub(crate) fn done(&self) {
        self.0.send_modify(|state| (state.next, state.asked) = (state.next + 1, false));
    }

    /// A chunk is not going to be committed.
    pub(crate) fn break_off(&self, chunk: u64) {
        self.0.send_modify(|state| state.broken = Some(state.broken.map_or(chunk, |broken| broken.min(chunk))));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn chunks_take_turns() {
        let turns = Turns::new();
        assert_eq!(turns.wait(0).now_or_never(), Some(Turn::Now));
        assert_eq!(turns.wait(1).now_or_never(), None);
        turns.ask();
        assert_eq!(turns.wait(0).now_or_never(), Some(Turn::Now));
        assert_eq!(turns.wait(1).now_or_never(), Some(Turn::Yield));
        assert_eq!(turns.wait_empty(1).now_or_never(), None);
        turns.done();
        assert_eq!(turns.wait(1).now_or_never(), Some(Turn::Now));
        assert_eq!(turns.wait(2).now_or_never(), None);
        turns.break_off(2);
        assert_eq!(turns.wait(3).now_or_never(), Some(Turn::Never));
        assert_eq!(turns.wait(2).now_or_never(), None);
        turns.done();
        assert_eq!(turns.wait(2).now_or_never(), Some(Turn::Now));
        assert_eq!(turns.wait(3).now_or_never(), Some(Turn::Never));
    }
}
