//! What became of each behaviour on each backend, for the report of `make test`: one
//! small file each, since tests run side by side.

use std::path::{Path, PathBuf};

/// Begun as failed; passed once it is dropped without a panic.
pub(crate) struct Record(PathBuf);

impl Record {
    pub(crate) fn of(backend: &str, behaviour: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bellows/behaviours");
        let folder = root.join(backend);
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(behaviour);
        std::fs::write(&file, "failed\n").unwrap();
        Self(file)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::write(&self.0, "passed\n").unwrap();
        }
    }
}
