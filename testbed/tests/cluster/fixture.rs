//! What the tests share: one cluster at a time, always taken down, and an image that answers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use bellows_testbed::{ImageSpec, Testbed};

pub(crate) const IMAGE: &str = "localhost/answer:v1";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Takes the named clusters away before and after a test, however it ends. `BELLOWS_KEEP=1` leaves the cluster of a
/// failed test for a look at its logs.
pub(crate) struct Clean {
    names: Vec<&'static str>,
    _turn: MutexGuard<'static, ()>,
}

impl Clean {
    pub(crate) fn new(names: &[&'static str]) -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            Testbed::remove(name)?;
        }
        Ok(Self { names: names.to_vec(), _turn: turn })
    }
}

impl Drop for Clean {
    fn drop(&mut self) {
        if std::env::var_os("BELLOWS_KEEP").is_some() {
            return;
        }
        for name in &self.names {
            if let Err(error) = Testbed::remove(name) {
                eprintln!("could not remove testbed {name}: {error}");
            }
        }
    }
}

/// The program `answer`, static, and its image.
pub(crate) struct Answer {
    pub(crate) program: PathBuf,
    pub(crate) archive: PathBuf,
    _folder: tempfile::TempDir,
}

impl Answer {
    pub(crate) fn build() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (program, archive) = (folder.path().join("answer"), folder.path().join("answer.tar"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/answer.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc)
            .args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "-o"])
            .arg(&program)
            .arg(source)
            .output()
            .context("rustc, which builds the program of the tests' image, is missing")?;
        ensure!(output.status.success(), "rustc failed: {}", String::from_utf8_lossy(&output.stderr));
        ImageSpec::new(IMAGE).file(&program, "/answer").entrypoint(["/answer"]).write(&archive)?;
        Ok(Self { program, archive, _folder: folder })
    }

    /// Asks from inside the cluster's network.
    pub(crate) fn ask(&self, testbed: &Testbed, address: &str) -> Option<String> {
        let output = testbed.command(&self.program).args(["ask", address]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
