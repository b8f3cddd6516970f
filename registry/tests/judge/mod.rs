//! The verdict on a backend: asserted, and left for the report of `make test`.

use std::path::Path;

use bellows_registry::testkit::conformance::Report;

/// Fails unless every check held.
pub(crate) fn judge(report: &Report) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bellows/conformance");
    let counts = format!("{{\"passed\": {}, \"failed\": {}}}\n", report.passed, report.failed.len());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(&report.backend), counts).unwrap();
    assert!(report.failed.is_empty(), "{report}");
}
