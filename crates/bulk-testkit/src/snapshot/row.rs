//! One row: the values of its cells before any dialect.

/// A row in the published column order, its values as the text that PostgreSQL prints for them.
#[derive(Clone, Debug, Default)]
pub struct Row {
    data: Vec<u8>,
    /// Where each cell ends in `data`, and whether it is NULL.
    ends: Vec<(usize, bool)>,
}

impl Row {
    /// How many cells it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has no cells; no row of a snapshot is so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The value of the cell at `index`, `None` for NULL.
    ///
    /// # Panics
    /// Where there is no such cell.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        self.bytes(index).map(|bytes| std::str::from_utf8(bytes).expect("cells are made of whole strings"))
    }

    /// All cells in order, `None` for NULL.
    pub fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        (0..self.len()).map(|index| self.get(index))
    }

    pub(super) fn bytes(&self, index: usize) -> Option<&[u8]> {
        let start = if index == 0 { 0 } else { self.ends[index - 1].0 };
        let (end, null) = self.ends[index];
        (!null).then(|| &self.data[start..end])
    }

    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
    }

    /// Adds to the cell that is open.
    pub(super) fn put(&mut self, text: &str) -> &mut Self {
        self.data.extend_from_slice(text.as_bytes());
        self
    }

    /// Adds a number to the cell that is open, with at least `width` digits.
    pub(super) fn put_digits(&mut self, mut number: u64, width: usize) -> &mut Self {
        let mut digits = [b'0'; 20];
        let mut at = digits.len();
        while number > 0 || digits.len() - at < width.max(1) {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.data.extend_from_slice(&digits[at..]);
        self
    }

    /// Closes the open cell.
    pub(super) fn end(&mut self) -> &mut Self {
        self.ends.push((self.data.len(), false));
        self
    }

    pub(super) fn null(&mut self) -> &mut Self {
        self.ends.push((self.data.len(), true));
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.put(text).end()
    }

    pub(super) fn int(&mut self, number: u64) -> &mut Self {
        self.put_digits(number, 1).end()
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.text(if value { "t" } else { "f" })
    }

    pub(super) fn maybe(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    pub(super) fn maybe_int(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            Some(number) => self.int(number),
            None => self.null(),
        }
    }

    pub(super) fn maybe_bool(&mut self, value: Option<bool>) -> &mut Self {
        match value {
            Some(value) => self.bool(value),
            None => self.null(),
        }
    }

    /// `number` / 10^`places` as PostgreSQL prints a double precision: no zeros at the end. Below 10^-4 it would print
    /// an exponent, so anything but 0 must not be as small.
    pub(super) fn decimal(&mut self, number: u64, places: u32) -> &mut Self {
        let unit = 10_u64.pow(places);
        self.put_digits(number / unit, 1);
        self.put_fraction(number % unit, places as usize).end()
    }

    /// A point and `digits` digits of a fraction, without the zeros at its end; nothing for 0.
    fn put_fraction(&mut self, fraction: u64, digits: usize) -> &mut Self {
        if fraction > 0 {
            self.put(".").put_digits(fraction, digits);
            while self.data.last() == Some(&b'0') {
                self.data.pop();
            }
        }
        self
    }

    /// A day counted from 1970-01-01, of the years 1 to 9999.
    pub(super) fn put_day(&mut self, day: i64) -> &mut Self {
        let (year, month, day) = civil(day);
        self.put_digits(year, 4).put("-").put_digits(month, 2).put("-").put_digits(day, 2)
    }

    pub(super) fn maybe_day(&mut self, day: Option<i64>) -> &mut Self {
        match day {
            Some(day) => self.put_day(day).end(),
            None => self.null(),
        }
    }

    /// A timestamp with time zone in UTC: a day, and microseconds since its start.
    pub(super) fn time(&mut self, day: i64, micros: u64) -> &mut Self {
        let seconds = micros / 1_000_000;
        self.put_day(day).put(" ").put_digits(seconds / 3600, 2).put(":").put_digits(seconds / 60 % 60, 2).put(":");
        self.put_digits(seconds % 60, 2).put_fraction(micros % 1_000_000, 6).put("+00").end()
    }

    /// Sets a cell to another value, for the few rows that hold what careless parsers get wrong.
    pub(super) fn replace(&mut self, index: usize, value: Option<&str>) {
        let mut row = Self::default();
        for at in 0..self.len() {
            row.maybe(if at == index { value } else { self.get(at) });
        }
        *self = row;
    }
}

/// Days since 1970-01-01 of the first of January of `year`, in the Gregorian calendar.
pub(super) const fn new_year(year: i64) -> i64 {
    let y = year - 1;
    y * 365 + y / 4 - y / 100 + y / 400 - 719_162
}

/// Year, month and day of a day since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(day: i64) -> (u64, u64, u64) {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year as u64, month as u64, (doy - (153 * mp + 2) / 5 + 1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_printed_as_postgresql_prints_them() {
        let mut row = Row::default();
        row.null().text("").int(0).int(120).bool(true).decimal(1000, 4).decimal(12_340, 4).decimal(25, 2);
        row.put_day(0).end().put_day(-719_162).end().time(18_438, 62_033_973_300).time(1, 0).maybe_day(None);
        let cells: Vec<_> = row.iter().collect();
        assert_eq!(
            cells,
            [
                None,
                Some(""),
                Some("0"),
                Some("120"),
                Some("t"),
                Some("0.1"),
                Some("1.234"),
                Some("0.25"),
                Some("1970-01-01"),
                Some("0001-01-01"),
                Some("2020-06-25 17:13:53.9733+00"),
                Some("1970-01-02 00:00:00+00"),
                None,
            ]
        );
    }

    #[test]
    fn days_agree_with_a_calendar() {
        for year in [1700, 1899, 1900, 2000, 2023, 2024] {
            let day = jiff::civil::date(1970, 1, 1).until(jiff::civil::date(year, 1, 1));
            assert_eq!(new_year(year.into()), i64::from(day.expect("both are dates").get_days()));
        }
        let mut date = jiff::civil::date(1895, 12, 25);
        for day in -27_035.. {
            let (y, m, d) = civil(day);
            assert_eq!((y, m, d), (date.year() as u64, date.month() as u64, date.day() as u64));
            if date.year() == 2030 {
                break;
            }
            date = date.tomorrow().expect("2030 has a tomorrow");
        }
    }
}
