//! The last step of `make test`: one report of what a task can do, on every backend. A
//! program rather than tests, built as they are: `make test-report`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use bellows_tests::behaviours::Report;

fn main() -> ExitCode {
    match report() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("target/bellows/behaviours.json: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn report() -> Result<bool> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bellows");
    let report = Report::gather(&folder)?;
    let json = serde_json::to_string(&report)?;
    std::fs::write(folder.join("behaviours.json"), format!("{json}\n"))?;
    println!("target/bellows/behaviours.json: {json}");
    Ok(report.is_good())
}
