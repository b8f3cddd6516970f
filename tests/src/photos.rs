//! The photographs of the demo: fetched once from Debian's archive, cut into crops here.
//!
//! Debian's package `lomiri-wallpapers-16.04` holds 14 photographs (and one computed
//! picture) by people who gave them away under CC-BY, CC-BY-SA and CC0 (its `copyright`
//! file names each); nothing of it is installed, and nothing of it is part of this repository. The result is a
//! cache folder `photos-<version>`, complete or absent.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::deb;

/// The package, and the version that was looked at.
pub const PACKAGE: deb::Package = deb::Package { name: "lomiri-wallpapers-16.04", version: "20.04.0-2" };

/// Names the cache entry: the package's version, and how the crops are cut.
const VERSION: &str = "20.04.0-2.2";

/// The input that is broken on purpose.
pub const BROKEN: &str = "broken.jpg";

/// A picture of the package that is no photograph.
const COMPUTED: &str = "umang_by_Abhishek_Mudgal.jpg";

/// The least number of different photographs that makes a story.
const LEAST: usize = 10;

/// Written last into the cache folder: names and sizes of what belongs there.
const INVENTORY: &str = "inventory.txt";

/// The cache outside the checkout: `BELLOWS_CACHE`, else `~/.cache/bellows`.
pub fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = set("BELLOWS_CACHE").or_else(|| Some(set("HOME")?.join(".cache/bellows")));
    let cache = cache.context("neither BELLOWS_CACHE nor HOME is set")?;
    std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    Ok(cache)
}

/// The folder with all inputs, made if it is not there yet.
pub fn gather(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join(format!("photos-{VERSION}"));
    if is_complete(&folder) {
        return Ok(folder);
    }
    let lock = cache.join("photos.lock");
    let lock = File::create(&lock).with_context(|| format!("making {}", lock.display()))?;
    lock.lock().context("waiting for whoever fetches the photographs")?;
    if is_complete(&folder) {
        return Ok(folder);
    }
    println!("  fetching photographs (Debian package {}, 16 MB) and cutting crops: 15 s, once", PACKAGE.name);
    let building = cache.join(format!("photos-{VERSION}.new"));
    let _ = std::fs::remove_dir_all(&building); // of one that was killed
    let built = build(&building).and_then(|()| {
        let _ = std::fs::remove_dir_all(&folder); // a broken entry, if any
        std::fs::rename(&building, &folder).context("moving the photographs into the cache")
    });
    let _ = std::fs::remove_dir_all(&building);
    built.map(|()| folder)
}

/// The inputs in a folder, by name, sorted.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "jpg") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn build(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let package = folder.join("package");
    deb::fetch(&PACKAGE, &package)?;
    let mut originals = list(&package.join("usr/share/backgrounds"))?;
    originals.retain(|file| !file.ends_with(COMPUTED));
    ensure!(
        originals.len() >= LEAST,
        "{} has {} photographs; at least {LEAST} are needed",
        PACKAGE.name,
        originals.len()
    );
    let half = originals.len().div_ceil(2);
    std::thread::scope(|scope| -> Result<()> {
        let cutters: Vec<_> =
            originals.chunks(half).map(|part| scope.spawn(move || cut_all(part, folder))).collect();
        cutters.into_iter().try_for_each(|cutter| cutter.join().expect("cutting does not panic"))
    })?;
    let whole = std::fs::read(&originals[0])?;
    std::fs::write(folder.join(BROKEN), &whole[..whole.len() / 3])?;
    let notice = package.join("usr/share/doc").join(PACKAGE.name).join("copyright");
    std::fs::copy(notice, folder.join("copyright.txt")).context("keeping the authors' names")?;
    std::fs::remove_dir_all(&package)?;
    std::fs::write(folder.join(INVENTORY), inventory(folder)?)?;
    Ok(())
}

fn cut_all(originals: &[PathBuf], folder: &Path) -> Result<()> {
    originals.iter().try_for_each(|file| {
        cut(file, folder).with_context(|| format!("cutting crops from {}", file.display()))
    })
}

/// The photograph itself and eight overlapping crops of two thirds its width and height.
fn cut(original: &Path, folder: &Path) -> Result<()> {
    let stem = original.file_stem().context("a name")?.to_string_lossy().to_lowercase();
    std::fs::copy(original, folder.join(format!("{stem}.jpg")))?;
    let photo = image::open(original)?;
    let (width, height) = (photo.width() * 2 / 3, photo.height() * 2 / 3);
    for n in 0..8u32 {
        let (x, y) = ((photo.width() - width) * (n % 4) / 3, (photo.height() - height) * (n / 4));
        photo.crop_imm(x, y, width, height).save(folder.join(format!("{stem}-{}.jpg", n + 1)))?;
    }
    Ok(())
}

fn inventory(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for file in list(folder)? {
        let name = file.file_name().context("a name")?.to_string_lossy().into_owned();
        text.push_str(&format!("{} {name}\n", std::fs::metadata(&file)?.len()));
    }
    Ok(text)
}

/// Whether a cache entry holds exactly what was put there: a half-written or damaged
/// one is built again.
fn is_complete(folder: &Path) -> bool {
    match (std::fs::read_to_string(folder.join(INVENTORY)), inventory(folder)) {
        (Ok(noted), Ok(found)) => noted == found && noted.lines().count() > 100,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_cache_entry_is_not_taken_for_whole() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_complete(folder.path()));
        for n in 0..101 {
            std::fs::write(folder.path().join(format!("{n}.jpg")), "x").unwrap();
        }
        assert!(!is_complete(folder.path()), "no inventory yet");
        std::fs::write(folder.path().join(INVENTORY), inventory(folder.path()).unwrap()).unwrap();
        assert!(is_complete(folder.path()));
        std::fs::write(folder.path().join("7.jpg"), "").unwrap();
        assert!(!is_complete(folder.path()), "one file lost its content");
    }

    #[test]
    fn a_photograph_gives_itself_and_eight_different_crops() {
        let folder = tempfile::tempdir().unwrap();
        let original = folder.path().join("Sea_by_Someone.jpg");
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        image::RgbImage::from_fn(80, 40, |x, y| image::Rgb([(x * 3) as u8, (y * 6) as u8, 0]))
            .save(&original)
            .unwrap();
        cut(&original, &out).unwrap();
        let files = list(&out).unwrap();
        assert_eq!(files.len(), 9);
        let contents: std::collections::BTreeSet<_> =
            files.iter().map(|f| std::fs::read(f).unwrap()).collect();
        assert_eq!(contents.len(), 9, "no two are alike");
        let crop = image::open(out.join("sea_by_someone-8.jpg")).unwrap();
        assert_eq!((crop.width(), crop.height()), (53, 26));
    }
}
