use crate::stretch_diff::before;
use crate::{Error, KeyRange, KnownObjects};

/// A range has so many known objects at least, but for the last one: to list it takes a request or more.
const WORTH: usize = 1000;

/// Cuts stretches of the key space where the known objects with `prefix` have their quantiles, into about `parts` in all, so
/// that a [listing](crate::ListOptions::ranges) over as many connections has work for each of them with its first requests.
/// What is given comes back as it is where nothing is known, where that is less than a page or two, or where there are
/// stretches enough: those that an earlier run has left.
///
/// A listing costs a request more at most for each of the cuts.
///
/// # Errors
///
/// [`Error::Known`] if the store cannot be read.
///
/// ```
/// use bulk_s3::{KeyRange, KnownChange, KnownObjects, MemoryKnown, ObjectRef, split_ranges};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let known = MemoryKnown::new();
/// let keys: Vec<String> = (0..4000).map(|number| format!("{number:04}")).collect();
/// let changes: Vec<_> = keys.iter().map(|key| KnownChange::Set(ObjectRef::new(key))).collect();
/// known.apply(&changes).await?;
/// let ranges = split_ranges(&known, vec![KeyRange::all()], "", 2).await?;
/// assert_eq!(ranges, <[KeyRange; 2]>::from(KeyRange::all().split_behind("1999")));
/// // Each of 64 would have some 60 known objects.
/// assert_eq!(split_ranges(&known, vec![KeyRange::all()], "", 64).await?.len(), 4);
/// # Ok::<(), bulk_s3::Error>(())
/// # }).unwrap();
/// ```
pub async fn split_ranges(
    known: &dyn KnownObjects,
    ranges: Vec<KeyRange>,
    prefix: &str,
    parts: usize,
) -> Result<Vec<KeyRange>, Error> {
    let parts = parts / ranges.len().max(1);
    if parts < 2 {
        return Ok(ranges);
    }
    let mut cut = Vec::new();
    for range in ranges {
        let mut rest = range;
        for point in points(known, &rest, prefix, parts).await? {
            let (front, back) = rest.split_behind(&point);
            cut.push(front);
            rest = back;
        }
        cut.push(rest);
    }
    cut.retain(|range| !range.is_empty());
    Ok(cut)
}

/// Where a stretch is to be cut.
async fn points(known: &dyn KnownObjects, range: &KeyRange, prefix: &str, parts: usize) -> Result<Vec<String>, Error> {
    let after = range.after.clone().max(before(prefix));
    let ceiling = (!prefix.is_empty()).then(|| format!("{prefix}{}", char::MAX));
    let until = match (range.until.clone(), ceiling) {
        (Some(until), Some(ceiling)) => Some(until.min(ceiling)),
        (until, ceiling) => until.or(ceiling),
    };
    let within = KeyRange::new(after, until);
    if within.is_empty() {
        return Ok(Vec::new());
    }
    let points = known.split_points(&within, parts).await?;
    let Some(first) = points.first() else { return Ok(points) };
    // All stretches are about as long as the first one.
    let first = KeyRange::new(within.after, Some(first.clone()));
    let length = known.scan(&first, WORTH).await?.len();
    let step = WORTH.div_ceil(length.max(1));
    Ok(points.into_iter().skip(step - 1).step_by(step).collect())
}
