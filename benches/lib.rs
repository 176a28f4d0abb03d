//! Benchmarks and comparisons with peers. Each is a program or script of its own; see the `compare` folder.
