use crate::KeyRange;

/// Up to `parts - 1` of these keys, which are in the order of keys, that cut them into stretches of the same length. Each of
/// them has keys behind it in `range`, as far as its border tells.
pub(super) fn quantiles(keys: &[String], range: &KeyRange, parts: usize) -> Vec<String> {
    let parts = parts.min(keys.len());
    let mut points: Vec<String> = Vec::new();
    for part in 1..parts {
        // Without overflow: both are far below 2^64, and so is what memory can hold of keys.
        let place = (part as u128 * keys.len() as u128 / parts as u128) as usize;
        let Some(key) = place.checked_sub(1).and_then(|place| keys.get(place)) else { continue };
        let is_behind = points.last().is_none_or(|last| key > last);
        if is_behind && range.contains(key) && range.until.as_ref() != Some(key) {
            points.push(key.clone());
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::quantiles;
    use crate::KeyRange;

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[test]
    fn stretches_are_of_the_same_length() {
        let of = keys(&["a", "b", "c", "d", "e", "f"]);
        let cut = |parts| quantiles(&of, &KeyRange::all(), parts);
        assert_eq!(cut(0), keys(&[]));
        assert_eq!(cut(1), keys(&[]));
        assert_eq!(cut(2), keys(&["c"]));
        assert_eq!(cut(3), keys(&["b", "d"]));
        assert_eq!(cut(4), keys(&["a", "c", "d"]));
        assert_eq!(cut(6), keys(&["a", "b", "c", "d", "e"]));
        assert_eq!(cut(1000), cut(6));
        assert_eq!(quantiles(&[], &KeyRange::all(), 5), keys(&[]));
    }

    #[test]
    fn borders_and_what_is_outside_are_left_out() {
        let range = KeyRange::new(Some("b".to_owned()), Some("d".to_owned()));
        assert_eq!(quantiles(&keys(&["b", "c", "c", "d"]), &range, 4), keys(&["c"]));
    }
}
