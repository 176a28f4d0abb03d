//! COPY binary against the server: of the same values it stores the same as by COPY text, what the encoder refuses it
//! refuses, too, and the rows are the ones that it would have written itself.

mod arrays;
mod edges;
mod numbers;
mod reference;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod texts;
mod times;
