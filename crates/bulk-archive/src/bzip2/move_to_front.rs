/// The byte values, the one last taken first.
///
/// They stand in rows of 16, the first in the lowest bits, so that moving some on by one place is a shift.
pub(super) struct MoveToFront {
    rows: [u128; 16],
}

/// For each place of a row, the places up to it.
const UP_TO: [u128; 16] = {
    let mut masks = [u128::MAX; 16];
    let mut place = 0;
    while place < 15 {
        masks[place] = (1 << (8 * (place + 1))) - 1;
        place += 1;
    }
    masks
};

impl MoveToFront {
    /// The list that begins with `values`; what follows them is not to be taken.
    pub(super) fn new(values: &[u8]) -> MoveToFront {
        let mut rows = [0; 16];
        for (row, values) in rows.iter_mut().zip(values.chunks(16)) {
            *row = values.iter().rev().fold(0, |row, &value| row << 8 | u128::from(value));
        }
        MoveToFront { rows }
    }

    /// The value that was last taken.
    pub(super) fn first(&self) -> u8 {
        self.rows[0] as u8
    }

    /// Takes the value at place `at`, which moves to the front.
    #[inline(always)]
    pub(super) fn take(&mut self, at: u8) -> u8 {
        let (row, place) = (usize::from(at / 16), usize::from(at % 16));
        let value = (self.rows[row] >> (8 * place)) as u8;
        let mut moved = u128::from(value);
        for full in &mut self.rows[..row] {
            let last = *full >> 120;
            *full = *full << 8 | moved;
            moved = last;
        }
        let (old, up_to) = (self.rows[row], UP_TO[place]);
        self.rows[row] = old & !up_to | (old << 8 | moved) & up_to;
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_taken_moves_to_the_front(places in prop::collection::vec(any::<u8>(), 1..300)) {
            let mut values: Vec<u8> = (0..=255).map(|value: u8| value.wrapping_mul(7)).collect();
            let mut list = MoveToFront::new(&values);
            for place in places {
                let value = values.remove(usize::from(place));
                values.insert(0, value);
                prop_assert_eq!(list.take(place), value);
                prop_assert_eq!(list.first(), value);
            }
        }
    }
}
