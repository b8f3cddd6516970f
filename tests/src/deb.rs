//! Taking files out of a Debian package without installing it.
//!
//! `apt-get download` where apt knows the package (the pinned version first, then
//! whatever there is), else `curl` from the archive, checked by its SHA-256.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

/// A package and where it can be had.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// The version that was looked at.
    pub version: &'static str,
    /// The SHA-256 of that version's file.
    pub sha256: &'static str,
    /// That file in the archive.
    pub url: &'static str,
}

/// Downloads the package and unpacks it into `folder`.
pub fn fetch(package: &Package, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let file = by_apt(package, folder).or_else(|apt| {
        by_curl(package, folder).with_context(|| format!("and apt could not fetch {}: {apt:#}", package.name))
    })?;
    unpack(&file, folder)?;
    std::fs::remove_file(&file)?;
    Ok(())
}

fn by_apt(package: &Package, folder: &Path) -> Result<PathBuf> {
    let pinned = format!("{}={}", package.name, package.version);
    let download =
        |what: &str| run(Command::new("apt-get").args(["-q", "download", what]).current_dir(folder));
    download(&pinned).or_else(|_| download(package.name)).or_else(|_| {
        run(Command::new("apt-get").args(["-q", "update"])).and_then(|()| download(package.name))
    })?;
    let mut files = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| path.extension().is_some_and(|e| e == "deb")).context("apt-get download left no file")
}

fn by_curl(package: &Package, folder: &Path) -> Result<PathBuf> {
    let file = folder.join("package.deb");
    let mut curl = Command::new("curl");
    run(curl.args(["-fsSL", "--retry", "3", "--max-time", "300", "-o"]).arg(&file).arg(package.url))?;
    let digest: String = Sha256::digest(std::fs::read(&file)?).iter().map(|b| format!("{b:02x}")).collect();
    ensure!(digest == package.sha256, "{} has the SHA-256 {digest}, not {}", package.url, package.sha256);
    Ok(file)
}

fn unpack(file: &Path, folder: &Path) -> Result<()> {
    if run(Command::new("dpkg-deb").arg("-x").arg(file).arg(folder)).is_ok() {
        return Ok(());
    }
    run(Command::new("ar").arg("x").arg(file).arg("data.tar.xz").current_dir(folder))?;
    run(Command::new("tar").args(["xf", "data.tar.xz"]).current_dir(folder))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
}
