//! One photograph in, one thumbnail out: the work itself, without Bellows.
//!
//! Synchronous and CPU-bound; the worker runs it on a thread of its own. It reads
//! and writes below one folder and refuses every path that leads out of it.

use std::fs::File;
use std::io::{BufReader, Cursor, Write};
use std::path::{Component, Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};
use sha2::{Digest, Sha256};

use crate::task::{Request, Step, Thumbnail};

/// The folder, below the volume's root, that thumbnails are written to.
pub const OUTPUT: &str = "thumbnails";

/// The widest thumbnail, in pixels.
pub const MAX_WIDTH: u32 = 4096;

/// Quality of the JPEG that is written, of 100.
const QUALITY: u8 = 85;

/// Why there is no thumbnail.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    /// The path is absolute, empty, or leads out of the volume.
    #[error("{0:?} is not a path inside the volume")]
    Outside(String),
    /// The width is 0 or more than [`MAX_WIDTH`].
    #[error("a thumbnail must be 1 to {MAX_WIDTH} pixels wide, not {0}")]
    Width(u32),
    /// The file is not a photograph that can be read.
    #[error("{path} is not a JPEG or PNG photograph that can be read")]
    Decode {
        /// The path as it was asked for.
        path: String,
        /// What the decoder says.
        #[source]
        source: ImageError,
    },
    /// The file ends before the picture does.
    #[error("{0} is cut off: the picture's end is missing")]
    Truncated(String),
    /// Reading or writing failed, which may be better the next time.
    #[error("could not {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

impl ThumbnailError {
    /// Whether another attempt can help: the volume may come back, a broken picture
    /// does not mend.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound)
    }
}

/// Makes one thumbnail and answers what was written.
///
/// `attempt` names the temporary file, so that two attempts of one task, should they
/// overlap, do not write into each other's file. Running it again gives the same file.
/// `report` is told what is being done.
pub fn make(
    volume: &Path,
    request: &Request,
    attempt: &str,
    report: impl Fn(Step),
) -> Result<Thumbnail, ThumbnailError> {
    if !(1..=MAX_WIDTH).contains(&request.width) {
        return Err(ThumbnailError::Width(request.width));
    }
    report(Step::Reading);
    let input = inside(volume, &request.path)?;
    let photo = decode(&input, &request.path)?;
    report(Step::Shrinking);
    let small = shrink(photo, request.width);
    report(Step::Writing);
    let bytes = encode(&small, &request.path)?;
    let path = format!("{OUTPUT}/{}/{}.jpg", request.width, request.path);
    write_atomically(&volume.join(&path), &bytes, attempt)?;
    Ok(Thumbnail {
        path,
        width: small.width(),
        height: small.height(),
        bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(&bytes)),
    })
}

/// The file a relative path names, after following links, if it lies in the volume.
fn inside(volume: &Path, path: &str) -> Result<PathBuf, ThumbnailError> {
    let outside = || ThumbnailError::Outside(path.to_owned());
    let plain = !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if !plain {
        return Err(outside());
    }
    let io = |source| ThumbnailError::Io { doing: "open", path: path.to_owned(), source };
    let root = volume.canonicalize().map_err(io)?;
    let file = root.join(path).canonicalize().map_err(io)?;
    if file.starts_with(&root) { Ok(file) } else { Err(outside()) }
}

fn decode(file: &Path, path: &str) -> Result<DynamicImage, ThumbnailError> {
    let io = |source| ThumbnailError::Io { doing: "read", path: path.to_owned(), source };
    let broken = |source| match source {
        ImageError::IoError(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => io(source),
        source => ThumbnailError::Decode { path: path.to_owned(), source },
    };
    let data = std::fs::read(file).map_err(io)?;
    if is_cut_off(&data) {
        return Err(ThumbnailError::Truncated(path.to_owned()));
    }
    let reader = ImageReader::new(BufReader::new(Cursor::new(data))).with_guessed_format().map_err(io)?;
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let orientation = decoder.orientation().map_err(broken)?;
    let mut photo = DynamicImage::from_decoder(decoder).map_err(broken)?;
    photo.apply_orientation(orientation);
    Ok(photo)
}

/// Whether a JPEG has lost its end: no end marker follows the last start of a scan (an
/// earlier one may belong to a preview in the header). Decoders fill up what is missing
/// with grey and call it a picture; a person would not.
fn is_cut_off(data: &[u8]) -> bool {
    const JPEG: [u8; 2] = [0xff, 0xd8];
    const SCAN: [u8; 2] = [0xff, 0xda];
    const END: [u8; 2] = [0xff, 0xd9];
    let last = |marker: [u8; 2]| data.windows(2).rposition(|pair| pair == marker);
    data.starts_with(&JPEG) && last(END).is_none_or(|end| last(SCAN).is_some_and(|scan| end < scan))
}

fn shrink(photo: DynamicImage, width: u32) -> DynamicImage {
    if photo.width() <= width {
        return photo;
    }
    photo.resize(width, u32::MAX, FilterType::Lanczos3)
}

fn encode(image: &DynamicImage, path: &str) -> Result<Vec<u8>, ThumbnailError> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    let opaque = image.to_rgb8(); // JPEG has no transparency
    opaque
        .write_with_encoder(encoder)
        .map_err(|source| ThumbnailError::Decode { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// Writes beside the target and renames, so that a reader sees a whole thumbnail or
/// none, whenever the worker dies.
fn write_atomically(target: &Path, bytes: &[u8], attempt: &str) -> Result<(), ThumbnailError> {
    let io = |source| ThumbnailError::Io { doing: "write", path: target.display().to_string(), source };
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(ThumbnailError::Outside(target.display().to_string()));
    };
    std::fs::create_dir_all(folder).map_err(io)?;
    let temporary = folder.join(format!(".{}.{attempt}.tmp", name.to_string_lossy()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, target)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(io)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
