use bulk_core::Reservation;

/// The disk space of files that stay, which counts until the run ends.
#[derive(Default)]
pub(crate) struct Kept(Option<Reservation>);

impl Kept {
    pub(crate) fn add(&mut self, space: Option<Reservation>) {
        match (&mut self.0, space) {
            (Some(kept), Some(space)) => kept.merge(space),
            (None, space) => self.0 = space,
            (Some(_), None) => {}
        }
    }
}
