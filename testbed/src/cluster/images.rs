//! Container images: the ones the cluster itself needs, and loading archives into nodes. There is no registry.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::layout::NodeLayout;
use super::node;
use crate::command::run_with_file;
use crate::error::{Error, IoContext, Result};
use crate::oci::ImageSpec;
use crate::tools::Tool;

/// The image that holds a pod's namespaces.
pub(super) const PAUSE_IMAGE: &str = "localhost/pause:v1";
/// The name server's image.
pub(super) const COREDNS_IMAGE: &str = "localhost/coredns:v1.13.1";

/// The archives that every node gets; made once and kept beside the tools.
pub(super) fn system() -> Result<Vec<PathBuf>> {
    let images = [(Tool::Pause, "pause", PAUSE_IMAGE), (Tool::CoreDns, "coredns", COREDNS_IMAGE)];
    images.into_iter().map(|(tool, program, image)| archive(tool, program, image)).collect()
}

fn archive(tool: Tool, program: &str, image: &str) -> Result<PathBuf> {
    // The folder's name changes with its content, so an archive beside it never is out of date.
    let folder = tool.ensure()?;
    let mut archive = folder.clone().into_os_string();
    archive.push(".image.tar");
    let archive = PathBuf::from(archive);
    if !archive.exists() {
        let inside = format!("/{program}");
        ImageSpec::new(image).file(folder.join(program), &inside).entrypoint([inside]).write(&archive)?;
    }
    Ok(archive)
}

/// Gives an archive to a node. Through standard input, since a node does not see all of the machine's folders.
pub(super) fn load(node: &NodeLayout, archive: &Path) -> Result<()> {
    let file = File::open(archive).context(|| format!("open {}", archive.display()))?;
    let mut import = node::ctr_command(node)?;
    run_with_file(import.args(["images", "import", "-"]), file).map(drop)
}

/// Fails early, and with the path, when an archive is not there.
pub(super) fn require(archives: &[PathBuf]) -> Result<()> {
    for archive in archives {
        if !fs::metadata(archive).is_ok_and(|metadata| metadata.is_file()) {
            return Err(Error::Invalid(format!("there is no image archive {}", archive.display())));
        }
    }
    Ok(())
}
