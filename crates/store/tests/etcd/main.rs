//! The store in a real etcd: what it promises, and what it does while members die.

mod basics;
mod cluster;
mod faults;
mod model;
mod sharing;
