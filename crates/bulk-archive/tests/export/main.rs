//! Sets of archives: staged, published, and found again as they were left.

mod history;
mod repair;
mod shapes;
mod stage;
mod support;
