//! The folder the pods share: photographs in, thumbnails and saved refs out.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::photos;

/// How many photographs the second wave has.
const SECOND: usize = 50;
/// How many each small wave has.
const SMALL: usize = 4;

/// The volume as this process sees it.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its root.
    pub root: PathBuf,
}

/// One line of the report that the example's `wait` writes.
#[derive(Debug, Clone, Deserialize)]
pub struct Ending {
    /// The photograph.
    pub path: String,
    /// What was made of it, if it succeeded.
    pub thumbnail: Option<Made>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// The part of a result that the story looks at.
#[derive(Debug, Clone, Deserialize)]
pub struct Made {
    /// The thumbnail, relative to the volume.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A photograph that arrives when we say so: a named pipe.
#[derive(Debug)]
pub struct Late {
    pipe: PathBuf,
    photo: PathBuf,
}

impl Late {
    /// The writing end, if somebody reads; nothing arrives before [`Late::arrive`].
    pub fn held(&self) -> Result<Option<File>> {
        const O_NONBLOCK: i32 = 0o4000; // else opening waits for a reader
        const ENXIO: i32 = 6; // there is none
        match OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&self.pipe) {
            Ok(end) => Ok(Some(end)),
            Err(error) if error.raw_os_error() == Some(ENXIO) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening {}", self.pipe.display())),
        }
    }

    /// Writes the whole photograph to whoever reads, and lets go of the end that was held.
    pub async fn arrive(self, held: File) -> Result<()> {
        let written = tokio::task::spawn_blocking(move || -> Result<()> {
            let bytes = std::fs::read(&self.photo)?;
            OpenOptions::new().write(true).open(&self.pipe)?.write_all(&bytes)?;
            drop(held);
            Ok(())
        });
        written.await?
    }
}

/// A photograph whose end is missing, until it is mended.
#[derive(Debug)]
pub struct Broken {
    place: PathBuf,
    whole: PathBuf,
}

impl Broken {
    /// Puts the whole photograph in its place.
    pub fn mend(self) -> Result<()> {
        std::fs::copy(&self.whole, &self.place)
            .with_context(|| format!("copying {}", self.whole.display()))
            .map(drop)
    }
}

impl Volume {
    /// An empty volume with photographs laid out in waves: `first` (the broken one is
    /// among them), `second`, and the small ones `third` to `fifth`.
    pub fn lay_out(root: &Path, inputs: &Path) -> Result<Self> {
        let volume = Self { root: root.to_owned() };
        for folder in ["", "photos", "refs", "thumbnails"] {
            if !folder.is_empty() {
                let _ = std::fs::remove_dir_all(root.join(folder)); // the root may be mounted somewhere: it stays
            }
            volume.open_folder(folder)?;
        }
        let all = photos::list(inputs)?;
        let (broken, good): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| p.ends_with(photos::BROKEN));
        let (second, first) = good.split_at(SECOND.min(good.len() / 2));
        volume.copy("first", &[first, &broken].concat())?;
        volume.copy("second", second)?;
        for (n, wave) in ["third", "fourth", "fifth"].into_iter().enumerate() {
            volume.copy(wave, &good[n * SMALL..(n + 1) * SMALL])?;
        }
        Ok(volume)
    }

    /// Workers and publishers are not root and must write here.
    fn open_folder(&self, name: &str) -> Result<()> {
        let folder = self.root.join(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
        Ok(())
    }

    fn copy(&self, wave: &str, files: &[PathBuf]) -> Result<()> {
        let folder = self.root.join("photos").join(wave);
        std::fs::create_dir_all(&folder)?;
        for file in files {
            let target = folder.join(file.file_name().context("a name")?);
            std::fs::copy(file, &target).with_context(|| format!("copying {}", file.display()))?;
        }
        Ok(())
    }

    /// A wave of one photograph that is not there yet: whoever opens it waits for it.
    pub fn lay_out_late(&self, wave: &str) -> Result<Late> {
        let folder = self.root.join("photos").join(wave);
        std::fs::create_dir_all(&folder)?;
        let pipe = folder.join("late.jpg");
        let made = std::process::Command::new("mkfifo").args(["-m", "666"]).arg(&pipe).status();
        anyhow::ensure!(made.context("mkfifo")?.success(), "mkfifo did not make {}", pipe.display());
        Ok(Late { pipe, photo: self.any_photo()? })
    }

    /// A wave of one photograph that is cut off.
    pub fn lay_out_broken(&self, wave: &str) -> Result<Broken> {
        let folder = self.root.join("photos").join(wave);
        std::fs::create_dir_all(&folder)?;
        let broken = self.root.join("photos/first").join(photos::BROKEN);
        let place = folder.join("cut-off.jpg");
        std::fs::copy(&broken, &place).with_context(|| format!("copying {}", broken.display()))?;
        Ok(Broken { place, whole: self.any_photo()? })
    }

    fn any_photo(&self) -> Result<PathBuf> {
        photos::list(&self.root.join("photos/third"))?.into_iter().next().context("a photograph")
    }

    /// How many photographs a wave has.
    pub fn size(&self, wave: &str) -> Result<usize> {
        Ok(photos::list(&self.root.join("photos").join(wave))?.len())
    }

    /// How many refs a publisher saved.
    pub fn saved_refs(&self, wave: &str) -> Result<usize> {
        let file = self.root.join("refs").join(format!("{wave}.jsonl"));
        Ok(std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?
            .lines()
            .count())
    }

    /// What the process that awaited a wave wrote down.
    pub fn endings(&self, wave: &str) -> Result<Vec<Ending>> {
        let file = self.root.join("refs").join(format!("{wave}-results.json"));
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("parsing {}", file.display()))
    }
}
