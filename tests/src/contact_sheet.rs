//! Many thumbnails on one page.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{Rgb, RgbImage, imageops};

/// A cell's width and height in pixels, and the gap between two.
const CELL: (u32, u32) = (128, 96);
const GAP: u32 = 4;
const PAPER: Rgb<u8> = Rgb([24, 24, 27]);

/// Draws the thumbnails in order, row by row, into a PNG nearly as wide as a 16:9 page.
///
/// Every thumbnail is opened as an image: one that does not open is an error.
pub fn draw(thumbnails: &[PathBuf], page: &Path) -> Result<()> {
    let columns = columns(thumbnails.len());
    let rows = u32::try_from(thumbnails.len())?.div_ceil(columns).max(1);
    let size = |n: u32, cell: u32| n * (cell + GAP) + GAP;
    let mut sheet = RgbImage::from_pixel(size(columns, CELL.0), size(rows, CELL.1), PAPER);
    for (n, file) in (0u32..).zip(thumbnails) {
        let opened =
            image::open(file).with_context(|| format!("{} does not open as an image", file.display()))?;
        let fitted = opened.thumbnail(CELL.0, CELL.1).to_rgb8();
        let (left, top) = (size(n % columns, CELL.0), size(n / columns, CELL.1));
        let (x, y) = (left + (CELL.0 - fitted.width()) / 2, top + (CELL.1 - fitted.height()) / 2);
        imageops::replace(&mut sheet, &fitted, x.into(), y.into());
    }
    sheet.save(page).with_context(|| format!("writing {}", page.display()))
}

fn columns(count: usize) -> u32 {
    let (wide, high) = (f64::from(CELL.0), f64::from(CELL.1));
    let columns = (count as f64 * (16.0 / 9.0) * high / wide).sqrt().ceil();
    (columns as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_thumbnails_are_on_the_page_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for n in 0..5u8 {
            let file = folder.path().join(format!("{n}.png"));
            RgbImage::from_pixel(320, 240, Rgb([200, n, 0])).save(&file).unwrap();
            files.push(file);
        }
        let page = folder.path().join("page.png");
        draw(&files, &page).unwrap();
        let sheet = image::open(&page).unwrap().to_rgb8();
        for n in 0..5u8 {
            assert!(sheet.pixels().any(|p| p.0 == [200, n, 0]), "thumbnail {n} is missing");
        }
        std::fs::write(&files[3], "no image").unwrap();
        let error = draw(&files, &page).unwrap_err();
        assert!(error.to_string().contains("3.png does not open"), "{error}");
    }
}
