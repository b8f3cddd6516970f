//! A task without a name.

use bellows_sdk::prelude::*;

#[task(timeout = "30s")]
async fn send_mail(to: String) -> Result<(), TaskError> {
    drop(to);
    Ok(())
}

fn main() {}
