//! What travels: the payload of a task and its result, tied together by the definition.

use bellows_sdk::prelude::*;

/// The definition: its name is the `metadata.name` of the TaskDefinition on the cluster.
#[derive(Debug)]
pub struct Thumbnails;

impl TaskDefinition for Thumbnails {
    const NAME: &'static str = "thumbnails";
    type Callback = Thumbnail;
    type Trigger = PublishTrigger<Request>;
}

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
