use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Resource, StageCounts, Timeline};

/// All that the [meters](super::Meters) of a run say, as plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MeterReading {
    /// Processors that the process may use; `None` where the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<f64>,
    /// The stages, in the order in which they were made.
    pub stages: Vec<StageReading>,
    /// What they did over time.
    pub timeline: Timeline,
}

/// What a stage is, and all that it did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageReading {
    /// Its name.
    pub name: String,
    /// What its work depends on, what matters most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// The names of the stages that it gets its input from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// How many workers there may be, if that is [stated](super::StageMeter::set_workers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_workers: Option<u32>,
    /// The stage whose workers are its own, too, if that is [stated](super::StageMeter::set_workers_of).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers_of: Option<String>,
    /// Items a second that it may pass, if that is [stated](super::StageMeter::set_capacity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// What the server was seen to do for it, and how often.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub server_events: BTreeMap<String, u64>,
    /// The sum over its workers.
    pub total: StageCounts,
    /// Each worker's. Who begins takes the place of one that ended, so there are as many as ever worked at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<StageCounts>,
}

impl MeterReading {
    /// A reading of these stages, on a machine of which nothing is known.
    pub fn new(stages: Vec<StageReading>, timeline: Timeline) -> Self {
        Self { cores: None, stages, timeline }
    }
}

impl StageReading {
    /// A stage that did nothing.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}
