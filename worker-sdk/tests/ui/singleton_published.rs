use bellows_sdk::prelude::*;

struct Sweep;
impl TaskDefinition for Sweep {
    const NAME: &'static str = "sweep";
    type Callback = ();
    type Trigger = SingletonTrigger;
}

async fn example(bellows: Bellows) {
    let _ = bellows.publish::<Sweep>(()).await;
}

fn main() {}
