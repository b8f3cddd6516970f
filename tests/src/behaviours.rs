//! The report of `make test` on what a task and a backend can do: `target/bellows/behaviours.json`,
//! put together from what the tests left behind. A part that is missing fails by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Every behaviour runs on each of these.
pub const BACKENDS: [&str; 3] = ["memory", "embedded", "etcd"];

/// What became of the behaviours, or of the checks, on one backend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many held.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The behaviours, by backend.
    pub backends: BTreeMap<String, Tally>,
    /// The checks of what a backend promises, by backend.
    pub conformance: BTreeMap<String, Tally>,
    /// Steps of the property tests.
    pub property_steps: u64,
    /// Processes killed over a file.
    pub embedded_kills: u64,
    /// What those had acknowledged, and is lost or settled twice.
    pub embedded_lost: u64,
}

#[derive(Deserialize)]
struct Properties {
    property_steps: u64,
}

#[derive(Deserialize)]
struct Kills {
    kills: u64,
    lost: u64,
    settled_twice: u64,
}

impl Report {
    /// Reads the parts in `folder`.
    ///
    /// # Errors
    /// Names the part that is missing, empty or not what it should be, and a behaviour that
    /// did not run on every backend.
    pub fn gather(folder: &Path) -> Result<Self> {
        let mut backends = BTreeMap::new();
        let mut everywhere: Option<BTreeSet<String>> = None;
        for backend in BACKENDS {
            let (tally, names) = behaviours(&folder.join("behaviours").join(backend))?;
            let all = everywhere.get_or_insert_with(|| names.clone());
            let differ: Vec<_> = all.symmetric_difference(&names).collect();
            ensure!(differ.is_empty(), "not on every backend, but on {backend} or another: {differ:?}");
            backends.insert(backend.to_owned(), tally);
        }
        let mut conformance = BTreeMap::<_, Tally>::new();
        for backend in BACKENDS {
            let tally: Tally = part(&folder.join("conformance").join(backend))?;
            let checks = |tally: &Tally| tally.passed + tally.failed;
            let all = conformance.values().next().map_or(checks(&tally), checks);
            ensure!(checks(&tally) == all, "not as many checks on {backend} as elsewhere: {tally:?}");
            conformance.insert(backend.to_owned(), tally);
        }
        let properties: Properties = part(&folder.join("property.json"))?;
        let kills: Kills = part(&folder.join("embedded.json"))?;
        Ok(Self {
            backends,
            conformance,
            property_steps: properties.property_steps,
            embedded_kills: kills.kills,
            embedded_lost: kills.lost + kills.settled_twice,
        })
    }

    /// Whether nothing failed and nothing was lost.
    pub fn is_good(&self) -> bool {
        let mut tallies = self.backends.values().chain(self.conformance.values());
        self.embedded_lost == 0 && tallies.all(|tally| tally.failed == 0)
    }
}

/// One small file a behaviour, with what became of it.
fn behaviours(folder: &Path) -> Result<(Tally, BTreeSet<String>)> {
    let missing = || format!("{} is missing: run the behaviours of worker-sdk first", folder.display());
    let (mut tally, mut names) = (Tally::default(), BTreeSet::new());
    for entry in std::fs::read_dir(folder).with_context(missing)? {
        let entry = entry?;
        match std::fs::read_to_string(entry.path())?.trim() {
            "passed" => tally.passed += 1,
            _ => tally.failed += 1,
        }
        names.insert(entry.file_name().to_string_lossy().into_owned());
    }
    ensure!(!names.is_empty(), missing());
    Ok((tally, names))
}

fn part<T: for<'de> Deserialize<'de>>(file: &Path) -> Result<T> {
    let name = file.display();
    let text = std::fs::read(file).with_context(|| format!("{name} is missing: its test did not run"))?;
    serde_json::from_slice(&text).with_context(|| format!("{name} is not what its test writes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for backend in BACKENDS {
            let place = folder.path().join("behaviours").join(backend);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("one"), "passed\n").unwrap();
            std::fs::write(place.join("two"), if backend == "etcd" { "failed\n" } else { "passed\n" })
                .unwrap();
            let checks = folder.path().join("conformance");
            std::fs::create_dir_all(&checks).unwrap();
            std::fs::write(checks.join(backend), r#"{"passed":7,"failed":0}"#).unwrap();
        }
        std::fs::write(
            folder.path().join("property.json"),
            r#"{"property_steps":2000000,"property_disturbances":9}"#,
        )
        .unwrap();
        let kills = r#"{"kills":210,"lost":0,"settled_twice":0,"published":3000}"#;
        std::fs::write(folder.path().join("embedded.json"), kills).unwrap();
        folder
    }

    #[test]
    fn the_parts_make_one_report() {
        let folder = whole();
        let report = Report::gather(folder.path()).unwrap();
        assert!(!report.is_good(), "a behaviour failed on etcd");
        let json = serde_json::to_string(&report).unwrap();
        let expected = concat!(
            r#"{"backends":{"embedded":{"passed":2,"failed":0},"etcd":{"passed":1,"failed":1},"#,
            r#""memory":{"passed":2,"failed":0}},"#,
            r#""conformance":{"embedded":{"passed":7,"failed":0},"etcd":{"passed":7,"failed":0},"#,
            r#""memory":{"passed":7,"failed":0}},"property_steps":2000000,"embedded_kills":210,"embedded_lost":0}"#
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn each_part_that_is_missing_is_named() {
        let behaviours = BACKENDS.map(|backend| format!("behaviours/{backend}"));
        let checks = BACKENDS.map(|backend| format!("conformance/{backend}"));
        let files = ["property.json", "embedded.json"].map(str::to_owned);
        for part in behaviours.iter().chain(&checks).chain(&files) {
            let folder = whole();
            let path = folder.path().join(part);
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.unwrap();
            let error = Report::gather(folder.path()).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("is missing"), "{error}");
        }
    }

    #[test]
    fn a_behaviour_that_did_not_run_everywhere_is_named() {
        let folder = whole();
        std::fs::remove_file(folder.path().join("behaviours/embedded/two")).unwrap();
        let error = Report::gather(folder.path()).unwrap_err().to_string();
        assert!(error.contains(r#"["two"]"#), "{error}");
    }

    #[test]
    fn a_check_that_was_left_out_on_one_backend_is_named() {
        let folder = whole();
        std::fs::write(folder.path().join("conformance/etcd"), r#"{"passed":6,"failed":0}"#).unwrap();
        let error = Report::gather(folder.path()).unwrap_err().to_string();
        assert!(error.contains("on etcd"), "{error}");
    }

    #[test]
    fn a_check_that_did_not_hold_counts() {
        let folder = whole();
        std::fs::write(folder.path().join("conformance/etcd"), r#"{"passed":6,"failed":1}"#).unwrap();
        std::fs::write(folder.path().join("behaviours/etcd/two"), "passed\n").unwrap();
        assert!(!Report::gather(folder.path()).unwrap().is_good());
    }

    #[test]
    fn what_is_lost_or_settled_twice_counts() {
        let folder = whole();
        let kills = r#"{"kills":210,"lost":1,"settled_twice":2}"#;
        std::fs::write(folder.path().join("embedded.json"), kills).unwrap();
        assert_eq!(Report::gather(folder.path()).unwrap().embedded_lost, 3);
    }
}
