//! Writes the CRD to `crds/` and to the chart `bellows-crds`. Run from the workspace's
//! root; a test fails when what is committed differs from what this writes.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    for (path, text) in bellows_operator::generate::files()? {
        let path = Path::new(&path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}
