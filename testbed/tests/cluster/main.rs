//! The testbed with real clusters. Needs root, Go and Debian's container packages; a test that lacks them fails and
//! says which.

mod fixture;
mod leftovers;
mod machine;
mod two_nodes;
