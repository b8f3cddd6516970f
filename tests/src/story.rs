//! The story, a chapter a file. Each chapter takes the scene, does one thing a user
//! would see, and checks it.

pub mod asking;
pub mod drain;
pub mod faults;
pub mod install;
pub mod lifecycle;
pub mod quiet;
pub mod results;
pub mod work;
