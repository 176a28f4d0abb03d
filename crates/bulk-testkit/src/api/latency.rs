use std::time::Duration;

/// How long answers take, from the request's arrival on.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    least: Duration,
    most: Duration,
}

impl Latency {
    /// All of them the same.
    pub fn fixed(time: Duration) -> Self {
        Self { least: time, most: time }
    }

    /// Most little more than `least`, and some up to `most`: a Pareto distribution with the exponent 1.2, cut off. From 5 ms
    /// to 2 s, the half takes 9 ms, one of ten 34 ms and one of a hundred 230 ms.
    pub fn heavy_tail(least: Duration, most: Duration) -> Self {
        Self { least, most }
    }

    pub(super) fn draw(&self, random: &mut fastrand::Rng) -> Duration {
        if self.least == self.most {
            return self.least;
        }
        let factor = (1.0 - random.f64()).powf(-1.0 / 1.2).min(1e9);
        self.least.mul_f64(factor).min(self.most)
    }
}

impl Default for Latency {
    /// None.
    fn default() -> Self {
        Self::fixed(Duration::ZERO)
    }
}
