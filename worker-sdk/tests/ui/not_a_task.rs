//! A definition without a handler among the tasks.

use bellows_sdk::prelude::*;

struct Greet;

impl TaskDefinition for Greet {
    const NAME: &'static str = "greet";
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

fn all() -> Tasks {
    tasks![Greet]
}

fn main() {}
