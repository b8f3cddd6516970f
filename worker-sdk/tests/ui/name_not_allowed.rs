//! Names that cannot be the name of a TaskDefinition.

use bellows_sdk::prelude::*;

#[task(name = "send_mail")]
async fn send_mail(to: String) -> Result<(), TaskError> {
    drop(to);
    Ok(())
}

#[task(name = "")]
async fn nameless(to: String) -> Result<(), TaskError> {
    drop(to);
    Ok(())
}

#[task(name = greet)]
async fn greet(to: String) -> Result<(), TaskError> {
    drop(to);
    Ok(())
}

fn main() {}
