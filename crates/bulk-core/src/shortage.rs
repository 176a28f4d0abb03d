use std::fmt;

/// Why a [`DiskBudget`](crate::DiskBudget) grants no more. All sizes are in bytes, as they were when it was asked.
///
/// `Display` names the bound that leaves less.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortage {
    /// What was asked for.
    pub needed: u64,
    /// What would have been granted at most.
    pub available: u64,
    /// What is free on the file system. `None` where the system does not tell, or where it does not matter.
    pub free: Option<u64>,
    /// The size of the file system. `None` as for `free`.
    pub total: Option<u64>,
    /// What is to stay free on the file system.
    pub reserve: u64,
    /// What all reservations together may hold. `None` if there is no such limit.
    pub limit: Option<u64>,
    /// What they hold.
    pub held: u64,
    /// What of it is not on disk yet, and so is promised from the free space; with it some KiB for the record of each file
    /// under way.
    pub unwritten: u64,
    /// What claims with priority wait for.
    pub claimed: u64,
    /// Whether it would be short even if nothing was held and the file system was empty.
    pub is_lasting: bool,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (needed, available) = (Size(self.needed), Size(self.available));
        let (taken, on_disk) = match self.is_lasting {
            true => (0, self.total.map(|total| total.saturating_sub(self.reserve))),
            false => {
                let promised = self.reserve.saturating_add(self.unwritten).saturating_add(self.claimed);
                (self.held.saturating_add(self.claimed), self.free.map(|free| free.saturating_sub(promised)))
            }
        };
        write!(f, "{needed} are needed, ")?;
        if let Some(limit) = self.limit
            && on_disk.is_none_or(|on_disk| limit.saturating_sub(taken) <= on_disk)
        {
            return match self.is_lasting {
                true => {
                    write!(f, "the limit is {}", Size(limit))?;
                    match self.free {
                        Some(free) => write!(f, " ({} free, {} in reserve)", Size(free), Size(self.reserve)),
                        None => Ok(()),
                    }
                }
                false => write!(f, "{available} of the limit are left ({} in all, {} taken)", Size(limit), Size(taken)),
            };
        }
        let reserve = Size(self.reserve);
        match (self.is_lasting, self.free, self.total) {
            (true, free, Some(total)) => {
                write!(f, "the disk has {available} at most ({} in all", Size(total))?;
                if let Some(free) = free {
                    write!(f, ", {} free", Size(free))?;
                }
                write!(f, ", {reserve} in reserve)")
            }
            (false, Some(free), _) => {
                write!(f, "{available} of the disk may be used ({} free, {reserve} in reserve", Size(free))?;
                match self.unwritten.saturating_add(self.claimed) {
                    0 => f.write_str(")"),
                    promised => write!(f, ", {} promised)", Size(promised)),
                }
            }
            _ => write!(f, "{available} are left"),
        }
    }
}

impl std::error::Error for Shortage {}

/// Bytes as people read them.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut size = self.0 as f64;
        let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
        let mut unit = None;
        // What would be shown as 1024.0 is 1.0 of the next unit.
        while size >= 1023.95 {
            let Some(next) = units.next() else { break };
            unit = Some(next);
            size /= 1024.0;
        }
        match unit {
            None => write!(f, "{size} B"),
            Some(unit) => write!(f, "{size:.1} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn sizes_read_well() {
        let shown = [0, 1, 1023, 1024, 1536, 1 << 20, (1 << 20) - 1, 12_897_485, u64::MAX].map(|n| Size(n).to_string());
        let expected = ["0 B", "1 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "12.3 MiB", "16.0 EiB"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_shortage_names_the_bound_that_leaves_less() {
        let shortage = Shortage {
            needed: 48 * MIB,
            available: 12 * MIB,
            free: Some(64 * MIB),
            total: Some(100 * MIB),
            reserve: 10 * MIB,
            limit: None,
            held: 42 * MIB,
            unwritten: 42 * MIB,
            claimed: 0,
            is_lasting: false,
        };
        let of = |change: &dyn Fn(&mut Shortage)| {
            let mut shortage = shortage.clone();
            change(&mut shortage);
            shortage.to_string()
        };
        let disk = "48.0 MiB are needed, 12.0 MiB of the disk may be used (64.0 MiB free, 10.0 MiB in reserve";
        assert_eq!(of(&|_| {}), format!("{disk}, 42.0 MiB promised)"));
        assert_eq!(of(&|s| s.limit = Some(55 * MIB)), format!("{disk}, 42.0 MiB promised)"));
        assert_eq!(of(&|s| (s.unwritten, s.available) = (0, 54 * MIB)), format!("{})", disk.replace("12.0", "54.0")));
        assert_eq!(
            of(&|s| (s.limit, s.claimed, s.available) = (Some(50 * MIB), MIB, 7 * MIB)),
            "48.0 MiB are needed, 7.0 MiB of the limit are left (50.0 MiB in all, 43.0 MiB taken)"
        );
        assert_eq!(
            of(&|s| (s.is_lasting, s.needed, s.available) = (true, 95 * MIB, 90 * MIB)),
            "95.0 MiB are needed, the disk has 90.0 MiB at most (100.0 MiB in all, 64.0 MiB free, 10.0 MiB in reserve)"
        );
        assert_eq!(
            of(&|s| (s.is_lasting, s.limit, s.available) = (true, Some(20 * MIB), 20 * MIB)),
            "48.0 MiB are needed, the limit is 20.0 MiB (64.0 MiB free, 10.0 MiB in reserve)"
        );
    }
}
