//! Sets of archives: staged, published, and found again as they were left.

mod columns;
mod history;
mod others;
mod reflink;
mod repair;
mod shaped;
mod shapes;
mod stage;
mod support;
mod versions;
mod whole_shapes;
