//! The work without Bellows: real encodings, broken ones, and paths that try to leave.

use std::cell::RefCell;
use std::path::Path;

use bellows_example_thumbnails::task::{Request, Step};
use bellows_example_thumbnails::thumbnail::{ThumbnailError, make};
use image::{DynamicImage, ImageFormat, RgbImage};

fn volume() -> tempfile::TempDir {
    let volume = tempfile::tempdir().unwrap();
    std::fs::create_dir(volume.path().join("photos")).unwrap();
    volume
}

fn picture() -> DynamicImage {
    RgbImage::from_fn(640, 480, |x, y| image::Rgb([(x % 256) as u8, (y % 256) as u8, 90])).into()
}

fn request(path: &str, width: u32) -> Request {
    Request { path: path.to_owned(), width }
}

fn refused(volume: &Path, path: &str, width: u32) -> ThumbnailError {
    make(volume, &request(path, width), "1", |_| ()).expect_err(path)
}

#[test]
fn a_thumbnail_keeps_the_proportions_and_opens_as_an_image() {
    let volume = volume();
    for (name, format) in [("photos/a.jpg", ImageFormat::Jpeg), ("photos/b.png", ImageFormat::Png)] {
        picture().save_with_format(volume.path().join(name), format).unwrap();
        let made = make(volume.path(), &request(name, 160), "1", |_| ()).unwrap();
        assert_eq!((made.width, made.height), (160, 120));
        assert_eq!(made.path, format!("thumbnails/160/{name}.jpg"));
        let written = volume.path().join(&made.path);
        assert_eq!(std::fs::metadata(&written).unwrap().len(), made.bytes);
        let opened = image::open(&written).unwrap();
        assert_eq!((opened.width(), opened.height()), (160, 120));
    }
}

#[test]
fn running_it_again_gives_the_same_file_and_leaves_nothing_beside_it() {
    let volume = volume();
    picture().save(volume.path().join("photos/a.jpg")).unwrap();
    let first = make(volume.path(), &request("photos/a.jpg", 100), "1", |_| ()).unwrap();
    let second = make(volume.path(), &request("photos/a.jpg", 100), "2", |_| ()).unwrap();
    assert_eq!(first, second);
    let files = std::fs::read_dir(volume.path().join("thumbnails/100/photos")).unwrap().count();
    assert_eq!(files, 1);
}

#[test]
fn it_says_what_it_is_busy_with() {
    let volume = volume();
    picture().save(volume.path().join("photos/a.jpg")).unwrap();
    let told = RefCell::new(Vec::new());
    make(volume.path(), &request("photos/a.jpg", 100), "1", |step| told.borrow_mut().push(step)).unwrap();
    assert_eq!(told.into_inner(), [Step::Reading, Step::Shrinking, Step::Writing]);
}

#[test]
fn a_small_photograph_is_not_blown_up() {
    let volume = volume();
    picture().save(volume.path().join("photos/a.png")).unwrap();
    let made = make(volume.path(), &request("photos/a.png", 2000), "1", |_| ()).unwrap();
    assert_eq!((made.width, made.height), (640, 480));
}

#[test]
fn a_path_that_leads_out_of_the_volume_is_refused() {
    let volume = volume();
    let elsewhere = tempfile::tempdir().unwrap();
    picture().save(elsewhere.path().join("a.png")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), volume.path().join("photos/link")).unwrap();
    for path in ["../a.png", "photos/../../a.png", "/etc/passwd", "", "./photos/a.png", "photos/link/a.png"] {
        let error = refused(volume.path(), path, 100);
        assert!(matches!(error, ThumbnailError::Outside(_)), "{path:?}: {error}");
        assert!(!error.is_temporary());
    }
    assert!(!volume.path().join("thumbnails").exists(), "nothing was written");
}

#[test]
fn a_truncated_jpeg_is_a_failure_that_no_retry_mends() {
    let volume = volume();
    let file = volume.path().join("photos/a.jpg");
    picture().save(&file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for part in [whole.len() / 2, whole.len() - 2, 30, 2] {
        std::fs::write(&file, &whole[..part]).unwrap();
        let error = refused(volume.path(), "photos/a.jpg", 100);
        assert_eq!(error.to_string(), "photos/a.jpg is cut off: the picture's end is missing");
        assert!(!error.is_temporary());
    }
}

#[test]
fn what_is_no_photograph_is_said_so() {
    let volume = volume();
    std::fs::write(volume.path().join("photos/notes.txt"), "no picture").unwrap();
    std::fs::write(volume.path().join("photos/empty.jpg"), "").unwrap();
    for path in ["photos/notes.txt", "photos/empty.jpg"] {
        let error = refused(volume.path(), path, 100);
        assert!(matches!(error, ThumbnailError::Decode { .. }), "{path}: {error}");
        assert!(!error.is_temporary());
    }
    assert!(matches!(refused(volume.path(), "photos/none.jpg", 100), ThumbnailError::Io { .. }));
    assert!(matches!(refused(volume.path(), "photos/notes.txt", 0), ThumbnailError::Width(0)));
}
