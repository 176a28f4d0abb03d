use std::fmt;

/// A PostgreSQL version, as `SHOW server_version` gives it since version 10: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The yearly release: 15 of 15.18.
    pub major: u32,
    /// The fix release: 18 of 15.18; 0 of a beta or a development build.
    pub minor: u32,
}

impl Version {
    /// The oldest version that a [`Server`](super::Server) runs.
    pub(super) const OLDEST: Self = Self { major: 13, minor: 0 };

    /// Reads what `postgres --version` prints, such as `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    pub(super) fn of_program(output: &str) -> Option<Self> {
        let (_, version) = output.split_once("(PostgreSQL) ")?;
        let (major, rest) = leading_number(version)?;
        let minor = rest.strip_prefix('.').and_then(leading_number).map_or(0, |(minor, _)| minor);
        Some(Self { major, minor })
    }

    /// Reads `server_version_num`, such as 150018.
    pub(super) fn of_number(number: u32) -> Self {
        Self { major: number / 10_000, minor: number % 10_000 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_of_programs() {
        let of = |output| Version::of_program(output).map(|version| version.to_string());
        assert_eq!(of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(), Some("15.18"));
        assert_eq!(of("postgres (PostgreSQL) 17.5\n").as_deref(), Some("17.5"));
        assert_eq!(of("postgres (PostgreSQL) 18beta1\n").as_deref(), Some("18.0"));
        assert_eq!(of("postgres (PostgreSQL) 19devel\n").as_deref(), Some("19.0"));
        assert_eq!(of("postgres (PostgreSQL) \n"), None);
        assert_eq!(of("mysqld 8.0\n"), None);
    }

    #[test]
    fn versions_of_servers() {
        assert_eq!(Version::of_number(150_018), Version { major: 15, minor: 18 });
        assert!(Version::of_number(120_022) < Version::OLDEST);
    }
}
