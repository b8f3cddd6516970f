//! The file of saved refs: one JSON object a line, on disk before the next is published.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use bellows_sdk::prelude::*;

use crate::worker::thumbnails;

/// A published photograph: enough to await it in another process.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedRef {
    /// The photograph, relative to the volume's root.
    pub path: String,
    /// Its task.
    pub task: TaskRef<thumbnails>,
}

/// Appends refs to a file.
#[derive(Debug)]
pub struct RefFile(File);

impl RefFile {
    /// Opens or makes the file.
    pub fn append_to(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map(Self).with_context(|| format!("opening {}", path.display()))
    }

    /// Saves refs; after this they survive this process.
    pub fn save(&mut self, refs: &[SavedRef]) -> Result<()> {
        let mut lines = Vec::new();
        for saved in refs {
            serde_json::to_writer(&mut lines, saved)?;
            lines.push(b'\n');
        }
        self.0.write_all(&lines).context("saving refs")?;
        self.0.sync_data().context("saving refs")
    }
}

/// Reads saved refs. A last line without its end was being written when its process
/// died; it is left out.
pub fn read(path: &Path) -> Result<Vec<SavedRef>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut refs = Vec::new();
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
        refs.push(serde_json::from_str(&line).with_context(|| format!("line {}", refs.len() + 1))?);
        line.clear();
    }
    Ok(refs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_survive_a_publisher_that_died_while_it_wrote() {
        let line = r#"{"path":"photos/a.jpg","task":{"namespace":"photos","name":"thumbnails","task":"0123456789abcdef0123456789abcdef","slot":"beef"}}"#;
        let saved: SavedRef = serde_json::from_str(line).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refs.jsonl");
        RefFile::append_to(&path).unwrap().save(std::slice::from_ref(&saved)).unwrap();
        RefFile::append_to(&path).unwrap().save(&[saved]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..20]].concat()).unwrap();
        let refs = read(&path).unwrap();
        assert_eq!(refs.len(), 2, "both whole lines, not the begun one");
        assert_eq!(refs[1].path, "photos/a.jpg");
        assert_eq!(refs[1].task.id().to_string(), "0123456789abcdef0123456789abcdef");
    }
}
