//! `extract`: what GNU tar and Python's tarfile write comes out as GNU tar extracts it, and what is hostile, damaged or
//! too large stops, with nothing outside the folder and nothing torn.
#![cfg(unix)]

mod damage;
mod honest;
mod hostile;
mod leftovers;
mod limits;
mod plain;
mod property;
mod support;
