use std::path::Path;
use std::time::Duration;

use bulk_core::{DiskBudget, DownloadOptions};
use clap::Args;

use super::{DISK, segment, size, time};

/// How much disk a run may take.
#[derive(Clone, Debug, Args)]
pub(crate) struct DiskArguments {
    /// Leave this much of the file system free, such as 20GiB. Default: a twentieth of it, at most 1GiB.
    #[arg(long, value_name = "SIZE", value_parser = size, env = "BULK_RESERVE", help_heading = DISK)]
    reserve: Option<u64>,
    /// Take no more disk than this for all files of the run together, such as 500GB. Default: all that is free.
    #[arg(long, value_name = "SIZE", value_parser = size, env = "BULK_MAX_DISK", help_heading = DISK)]
    max_disk: Option<u64>,
    /// When the disk is full, wait so long for room, such as 90s or 2h, before it counts as failed. 0s: not at all.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = time,
        default_value = "5m",
        env = "BULK_DISK_WAIT",
        help_heading = DISK
    )]
    pub(crate) disk_wait: Duration,
    /// Ask for so many bytes in one request, such as 16MiB. Default: what a connection brings in some seconds, from 1 to 64
    /// MiB.
    #[arg(long, value_name = "SIZE", value_parser = segment, env = "BULK_SEGMENT", help_heading = DISK)]
    segment: Option<u64>,
    /// Fetch so far ahead of what is being loaded or extracted, and no further. Default: 64GiB with --extract, an eighth of
    /// the disk's room in a mirror, and at least 4GiB; 4GiB in a load with --dir, 256MiB in one without, and else without
    /// end.
    #[arg(long, value_name = "SIZE", value_parser = size, env = "BULK_WINDOW", help_heading = DISK)]
    pub(crate) window: Option<u64>,
}

impl DiskArguments {
    /// The most that is left free where nobody said how much.
    const RESERVE: u64 = 1 << 30;

    /// The budget of a run whose files go to `folder`.
    pub(crate) fn budget(&self, folder: &Path) -> DiskBudget {
        let budget = DiskBudget::new(folder);
        // More than any disk has is what tells how much it has.
        let total = budget.can_ever_fit(u64::MAX).err().and_then(|shortage| shortage.total);
        budget.set_reserve(self.reserve.unwrap_or_else(|| (total.unwrap_or(0) / 20).min(Self::RESERVE)));
        budget.set_limit(self.max_disk);
        budget
    }

    /// Sets what these flags say of a download under that budget.
    pub(crate) fn apply(&self, budget: &DiskBudget, options: &mut DownloadOptions) {
        options.budget = Some(budget.clone());
        options.disk_patience = self.disk_wait;
        options.segment = self.segment;
        options.window = self.window.unwrap_or(options.window);
    }
}
