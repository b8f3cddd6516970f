//! The cache of programs: what is broken in it is noticed and built again. Needs Go, no root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs `testbed tools pause` with a cache of its own; the smallest of the tools.
fn pause(cache: &Path) -> Result<(PathBuf, String)> {
    let mut testbed = Command::new(env!("CARGO_BIN_EXE_testbed"));
    let output = testbed.args(["tools", "pause"]).env("BELLOWS_CACHE", cache).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "testbed tools failed: {said}");
    Ok((PathBuf::from(String::from_utf8(output.stdout)?.trim()), said))
}

#[test]
fn a_whole_entry_is_used_and_a_broken_one_is_built_again() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let (entry, said) = pause(cache.path())?;
    assert!(said.contains("building pause"), "{said}");
    let program = entry.join("pause");
    let whole = fs::read(&program)?;

    let (_, said) = pause(cache.path())?;
    assert!(!said.contains("building"), "{said}");

    let mut broken = whole.clone();
    *broken.last_mut().context("the program is empty")? ^= 1;
    fs::write(&program, broken)?;
    let (_, said) = pause(cache.path())?;
    assert!(said.contains("is broken"), "{said}");
    assert_eq!(fs::read(&program)?, whole);

    // As a build that was killed leaves it.
    fs::remove_file(entry.join("B2SUMS"))?;
    fs::create_dir_all(format!("{}.building/junk", entry.display()))?;
    let (_, said) = pause(cache.path())?;
    assert!(said.contains("is broken"), "{said}");
    let names: Vec<_> =
        fs::read_dir(cache.path().join("tools"))?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    Ok(())
}

#[test]
fn without_go_one_sentence_says_what_to_install() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let mut testbed = Command::new(env!("CARGO_BIN_EXE_testbed"));
    let output = testbed
        .args(["tools", "pause"])
        .env("BELLOWS_CACHE", cache.path())
        .env("PATH", "/nowhere")
        .output()?;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("go is missing: install Go 1.26"), "{said}");
    Ok(())
}

#[test]
fn kind_accepts_a_good_configuration_and_refuses_an_unknown_field() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = bellows_testbed::Tool::KindCheck.program("kind-check")?;
    let file = folder.path().join("kind.yaml");
    let good = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n";
    fs::write(&file, good)?;
    assert!(Command::new(&program).arg(&file).status()?.success());
    fs::write(&file, format!("{good}  colour: blue\n"))?;
    let output = Command::new(&program).arg(&file).output()?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("colour"));
    Ok(())
}
