//! What travels: the payload of a task, its progress and its result. The definition that ties them
//! together is the function [`thumbnails`](crate::worker::thumbnails()).

use bellows_sdk::prelude::*;

/// The payload: which photograph, and how wide its thumbnail shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The photograph's path, relative to the volume's root.
    pub path: String,
    /// The thumbnail's width in pixels. A smaller photograph is not blown up.
    pub width: u32,
}

/// The result: what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thumbnail {
    /// The thumbnail's path, relative to the volume's root.
    pub path: String,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// The progress: what an attempt is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The photograph is read from the volume.
    Reading,
    /// It is made smaller.
    Shrinking,
    /// The thumbnail is written.
    Writing,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reading => "reading",
            Self::Shrinking => "shrinking",
            Self::Writing => "writing",
        })
    }
}
