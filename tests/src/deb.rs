//! Taking files out of a Debian package without installing it.
//!
//! By `apt-get download`, which checks what it fetches: the pinned version first, then
//! whatever there is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A package and where it can be had.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// The version that was looked at.
    pub version: &'static str,
}

/// Downloads the package and unpacks it into `folder`.
pub fn fetch(package: &Package, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let file = by_apt(package, folder).with_context(|| {
        format!("the photographs come from Debian's package {}, which needs apt-get", package.name)
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
