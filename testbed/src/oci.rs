//! Writes an OCI image archive of one layer from files, the same bytes for the same input. Needs no container tools.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Result};

/// What an image consists of.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    name: String,
    files: BTreeMap<String, PathBuf>,
    entrypoint: Vec<String>,
    env: Vec<String>,
}

impl ImageSpec {
    /// An image by its name, for example `localhost/pause:v1`. A name without a registry is
    /// one of Docker Hub's, as for Docker and for the kubelet: `hello:1` in a pod means it.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: qualified(name.into()), files: BTreeMap::new(), entrypoint: Vec::new(), env: Vec::new() }
    }

    /// Adds a file of this machine under an absolute path of the image. It can be read and, if it can be here,
    /// executed by everybody.
    #[must_use]
    pub fn file(mut self, source: impl Into<PathBuf>, path: impl Into<String>) -> Self {
        self.files.insert(path.into(), source.into());
        self
    }

    /// The command line that a container runs.
    #[must_use]
    pub fn entrypoint<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Writes the archive. It appears under its name only when it is whole.
    ///
    /// # Errors
    /// When the name has no tag, a path is not absolute, or a file cannot be read or written.
    pub fn write(&self, archive: impl AsRef<Path>) -> Result<()> {
        let archive = archive.as_ref();
        let tag = self.tag()?;
        let layer = self.layer()?;
        let layer_digest = digest(&layer);
        let config = self.config(&layer_digest).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{layer_digest}"),
                "size": layer.len(),
            }],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        entry["annotations"] =
            json!({ "io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });

        let mut tar = tar::Builder::new(Vec::new());
        let mut put = |path: &str, bytes: &[u8]| append(&mut tar, path, 0o644, bytes);
        put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        put("index.json", index.to_string().as_bytes())?;
        for blob in [&manifest, &config, &layer] {
            put(&format!("blobs/sha256/{}", digest(blob)), blob)?;
        }
        let bytes = tar.into_inner().context(|| "finish the archive".to_owned())?;
        write_whole(archive, &bytes)
    }

    fn tag(&self) -> Result<&str> {
        let tag = self.name.rsplit_once(':').map(|(_, tag)| tag);
        tag.filter(|tag| !tag.is_empty() && !tag.contains('/')).ok_or_else(|| {
            Error::Invalid(format!(
                "an image is named like localhost/app:v1, with a tag: {} has none",
                self.name
            ))
        })
    }

    fn config(&self, layer_digest: &str) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": "65532:65532",
                "WorkingDir": "/",
                "Entrypoint": self.entrypoint,
                "Env": self.env,
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut folders: Vec<String> = Vec::new();
        for (path, source) in &self.files {
            let inside = path
                .strip_prefix('/')
                .filter(|rest| {
                    !rest.is_empty() && !rest.split('/').any(|part| part.is_empty() || part == "..")
                })
                .ok_or_else(|| {
                    Error::Invalid(format!("{path} is not an absolute path of a file in an image"))
                })?;
            for (end, _) in inside.match_indices('/') {
                let folder = format!("{}/", &inside[..end]);
                if !folders.contains(&folder) {
                    append_folder(&mut tar, &folder)?;
                    folders.push(folder);
                }
            }
            let bytes = fs::read(source).context(|| format!("read {}", source.display()))?;
            append(&mut tar, inside, mode(source)?, &bytes)?;
        }
        tar.into_inner().context(|| "finish a layer".to_owned())
    }
}

fn mode(source: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(source).context(|| format!("look at {}", source.display()))?;
    Ok(if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 })
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = plain_header(tar::EntryType::Regular, mode);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).context(|| format!("pack {path}"))
}

fn append_folder(tar: &mut tar::Builder<Vec<u8>>, path: &str) -> Result<()> {
    let mut header = plain_header(tar::EntryType::Directory, 0o755);
    tar.append_data(&mut header, path, std::io::empty()).context(|| format!("pack {path}"))
}

/// No time and no owner, so that the same files give the same image.
fn plain_header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len() })
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The machine's architecture in the words of container images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    // On the disk before it has its name: a machine that loses power must not keep half of it.
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.context(|| format!("write {}", part.display()))?;
    fs::rename(&part, path).context(|| format!("rename to {}", path.display()))
}

/// The name with its registry.
fn qualified(name: String) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => name,
        Some(_) => format!("docker.io/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_archive() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("bellows-oci-{}", std::process::id()));
        fs::create_dir_all(&folder).context(|| "make a folder".to_owned())?;
        fs::write(folder.join("program"), "text").context(|| "write a file".to_owned())?;
        let image = ImageSpec::new("localhost/x:v1")
            .file(folder.join("program"), "/bin/a/x")
            .entrypoint(["/bin/a/x"]);
        image.write(folder.join("one.tar"))?;
        image.write(folder.join("two.tar"))?;
        let read = |name: &str| fs::read(folder.join(name)).context(|| "read".to_owned());
        assert_eq!(read("one.tar")?, read("two.tar")?);
        fs::remove_dir_all(&folder).context(|| "remove".to_owned())
    }

    #[test]
    fn a_name_without_a_tag_is_refused() {
        assert!(ImageSpec::new("localhost:5000/x").tag().is_err());
        assert!(matches!(ImageSpec::new("localhost/x:v1").tag(), Ok("v1")));
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        for path in ["relative", "/../up", "/"] {
            assert!(ImageSpec::new("localhost/x:v1").file("/bin/sh", path).layer().is_err(), "{path}");
        }
    }

    #[test]
    fn a_short_name_means_what_the_kubelet_takes_it_for() {
        for (short, full) in [
            ("hello:1", "docker.io/library/hello:1"),
            ("me/hello:1", "docker.io/me/hello:1"),
            ("localhost/hello:1", "localhost/hello:1"),
            ("ghcr.io/me/hello:1", "ghcr.io/me/hello:1"),
            ("here:5000/hello:1", "here:5000/hello:1"),
        ] {
            assert_eq!(qualified(short.to_owned()), full);
        }
    }
}
