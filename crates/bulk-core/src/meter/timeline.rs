use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{StageCounts, seconds};

/// What the stages did, from the begin of a run on, in stretches of time of even length.
///
/// It never has more samples than it was made for: when it is full, each two become one, and samples are as long as that
/// from then on. So it grows coarser with the run, and not larger.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<Sample>", into = "Vec<Sample>")]
pub struct Timeline {
    max: usize,
    /// How many calls of `push` make a sample, and how many the last one has.
    stride: u64,
    in_last: u64,
    samples: Vec<Sample>,
}

/// By the samples.
impl PartialEq for Timeline {
    fn eq(&self, other: &Self) -> bool {
        self.samples == other.samples
    }
}

/// A stretch of a run. Times are from its begin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sample {
    /// When it begins.
    #[serde(with = "seconds")]
    pub start: Duration,
    /// When it ends.
    #[serde(with = "seconds")]
    pub end: Duration,
    /// CPU time of the whole process, with what no stage meters; zero where the system does not tell.
    #[serde(default, with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub process_cpu: Duration,
    /// What each stage did, in the order in which stages were made; those that were made later may be missing.
    pub stages: Vec<StageSample>,
}

/// What a stage did in a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageSample {
    /// The most workers that it had at once.
    #[serde(default, skip_serializing_if = "is_none")]
    pub workers: u32,
    /// For how long the one worker was busy that was so for the longest. Over several samples it is their sum.
    #[serde(default, with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub busiest: Duration,
    /// What they did.
    #[serde(flatten)]
    pub counts: StageCounts,
}

fn is_none(number: &u32) -> bool {
    *number == 0
}

impl StageSample {
    /// Of a stage with so many workers, that did nothing.
    pub fn new(workers: u32) -> Self {
        Self { workers, ..Self::default() }
    }
}

impl Sample {
    /// A stretch without stages.
    pub fn new(start: Duration, end: Duration) -> Self {
        Self { start, end, ..Self::default() }
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }

    /// What a stage did, by its place.
    pub fn stage(&self, index: usize) -> StageSample {
        self.stages.get(index).copied().unwrap_or_default()
    }

    /// Makes this one reach to the end of the next.
    pub(crate) fn append(&mut self, next: &Self) {
        self.end = next.end;
        self.process_cpu += next.process_cpu;
        if self.stages.len() < next.stages.len() {
            self.stages.resize_with(next.stages.len(), StageSample::default);
        }
        for (to, from) in self.stages.iter_mut().zip(&next.stages) {
            to.workers = to.workers.max(from.workers);
            to.busiest = to.busiest.saturating_add(from.busiest);
            to.counts.add(&from.counts);
        }
    }
}

impl Timeline {
    /// How many samples [`Meters::new`](super::Meters::new) keeps.
    pub const SAMPLES: usize = 600;

    /// An empty timeline for so many samples, and at least two.
    pub fn new(max: usize) -> Self {
        Self { max: max.max(2), stride: 1, in_last: 0, samples: Vec::new() }
    }

    /// When the last sample ends.
    pub fn end(&self) -> Duration {
        self.samples.last().map_or(Duration::ZERO, |sample| sample.end)
    }

    /// The samples, each of which begins where the one before ends.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Adds what happened since the last sample.
    pub fn push(&mut self, sample: Sample) {
        if self.in_last == self.stride && self.samples.len() >= self.max {
            self.halve();
        }
        match self.samples.last_mut().filter(|_| self.in_last < self.stride) {
            Some(last) => {
                last.append(&sample);
                self.in_last += 1;
            }
            None => {
                self.samples.push(sample);
                self.in_last = 1;
            }
        }
    }

    /// The same in so many samples at most.
    pub fn coarser(&self, max: usize) -> Self {
        let mut coarser = self.clone();
        coarser.max = max.max(2);
        while coarser.samples.len() > coarser.max {
            coarser.halve();
        }
        coarser
    }

    fn halve(&mut self) {
        let is_last_alone = self.samples.len() % 2 == 1;
        let mut samples = std::mem::take(&mut self.samples).into_iter();
        while let Some(mut sample) = samples.next() {
            if let Some(second) = samples.next() {
                sample.append(&second);
            }
            self.samples.push(sample);
        }
        if !is_last_alone {
            self.in_last += self.stride;
        }
        self.stride *= 2;
    }
}

impl From<Vec<Sample>> for Timeline {
    fn from(samples: Vec<Sample>) -> Self {
        Self { max: samples.len().max(Self::SAMPLES), stride: 1, in_last: 1, samples }
    }
}

impl From<Timeline> for Vec<Sample> {
    fn from(timeline: Timeline) -> Self {
        timeline.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(from: u64, to: u64) -> Sample {
        let mut sample = Sample::new(Duration::from_secs(from), Duration::from_secs(to));
        let mut stage = StageSample::new(from as u32);
        stage.counts.items = to - from;
        sample.stages = vec![stage];
        sample
    }

    fn spans(timeline: &Timeline) -> Vec<(u64, u64, u64)> {
        let span = |sample: &Sample| (sample.start.as_secs(), sample.end.as_secs(), sample.stage(0).counts.items);
        timeline.samples().iter().map(span).collect()
    }

    #[test]
    fn a_full_timeline_becomes_coarser_and_stays_whole() {
        let mut timeline = Timeline::new(4);
        (0..4).for_each(|at| timeline.push(sample(at, at + 1)));
        assert_eq!(spans(&timeline), [(0, 1, 1), (1, 2, 1), (2, 3, 1), (3, 4, 1)]);
        timeline.push(sample(4, 5));
        assert_eq!(spans(&timeline), [(0, 2, 2), (2, 4, 2), (4, 5, 1)]);
        (5..9).for_each(|at| timeline.push(sample(at, at + 1)));
        assert_eq!(spans(&timeline), [(0, 4, 4), (4, 8, 4), (8, 9, 1)]);
        (9..1000).for_each(|at| timeline.push(sample(at, at + 1)));
        let spans = spans(&timeline);
        assert_eq!(spans, [(0, 256, 256), (256, 512, 256), (512, 768, 256), (768, 1000, 232)]);
        assert_eq!(timeline.samples()[0].stage(0).workers, 255);
    }

    #[test]
    fn an_odd_sample_at_the_end_is_filled_up() {
        let mut timeline = Timeline::new(3);
        (0..4).for_each(|at| timeline.push(sample(at, at + 1)));
        assert_eq!(spans(&timeline), [(0, 2, 2), (2, 4, 2)]);
        (4..7).for_each(|at| timeline.push(sample(at, at + 1)));
        assert_eq!(spans(&timeline), [(0, 4, 4), (4, 7, 3)]);
    }

    #[test]
    fn stages_that_come_later_count_from_then_on() {
        let mut timeline = Timeline::new(2);
        timeline.push(Sample::new(Duration::ZERO, Duration::from_secs(1)));
        timeline.push(sample(1, 2));
        timeline.push(sample(2, 3));
        assert_eq!(spans(&timeline), [(0, 2, 1), (2, 3, 1)]);
        assert_eq!(timeline.samples()[0].stage(7), StageSample::default());
    }

    #[test]
    fn coarser_is_the_same_sum() {
        let mut timeline = Timeline::new(100);
        (0..7).for_each(|at| timeline.push(sample(at, at + 1)));
        assert_eq!(spans(&timeline.coarser(3)), [(0, 4, 4), (4, 7, 3)]);
        assert_eq!(spans(&timeline.coarser(100)).len(), 7);
    }
}
