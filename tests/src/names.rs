//! What things are called in the story, once.

/// Helm's release, and the namespace it goes to.
pub const RELEASE: &str = "bellows";
/// The namespace of the operator and its etcd.
pub const SYSTEM: &str = "bellows";
/// The namespace of the work.
pub const WORK: &str = "photos";
/// The task definition, and so its Deployment.
pub const DEFINITION: &str = "thumbnails";
/// The chart, from the repository's root.
pub const CHART: &str = "charts/bellows";
/// The task definition's manifest, from the repository's root.
pub const MANIFEST: &str = "examples/thumbnails/taskdefinition.yaml";
/// The image with the worker and the publisher.
pub const IMAGE: &str = concat!("ghcr.io/bellows-dev/example-thumbnails:", env!("CARGO_PKG_VERSION"));
/// Where the volume of photographs is mounted in pods.
pub const MOUNT: &str = "/volume";
/// The volume's claim.
pub const CLAIM: &str = "photos";
/// What the story writes, from the repository's root.
pub const TARGET: &str = "target/bellows";
/// The most worker pods, as the manifest says.
pub const MOST_PODS: i32 = 4;
/// The slots of each, as the manifest says.
pub const SLOTS: usize = 2;
/// How long terminated work keeps its pods, as the manifest says, in seconds.
pub const SCALE_TO_ZERO_S: u64 = 5;
/// The container of a worker pod.
pub const WORKER: &str = "worker";
