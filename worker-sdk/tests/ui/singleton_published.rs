//! A singleton that somebody tries to publish.

use bellows_sdk::prelude::*;

struct Sweep;
impl TaskDefinition for Sweep {
    const NAME: &'static str = "sweep";
    type Callback = ();
    type Trigger = SingletonTrigger;
}

fn example(bellows: &Bellows) {
    let _ = bellows.publish::<Sweep>(());
}

fn main() {}
