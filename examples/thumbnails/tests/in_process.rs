//! The worker's own code in one process, over memory: what runs on a cluster needs none to
//! be tried.

use std::time::Duration;

use bellows_example_thumbnails::task::Request;
use bellows_example_thumbnails::worker::{Volume, thumbnails};
use bellows_sdk::prelude::*;
use bellows_sdk::{Ended, WaitError};

#[tokio::test]
async fn the_worker_of_the_cluster_runs_in_one_process() {
    let volume = tempfile::tempdir().unwrap();
    let photos = volume.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    let picture =
        image::RgbImage::from_fn(640, 480, |x, y| image::Rgb([(x % 256) as u8, (y % 256) as u8, 90]));
    picture.save(photos.join("whole.jpg")).unwrap();
    let whole = std::fs::read(photos.join("whole.jpg")).unwrap();
    std::fs::write(photos.join("broken.jpg"), &whole[..whole.len() / 3]).unwrap();

    let bellows = Bellows::in_memory();
    let tasks = tasks![thumbnails].with_state(Volume(volume.path().to_owned()));
    let worker = WorkerDispatcher::of(&bellows, tasks).launch().await.unwrap();
    let request = |path: &str| Request { path: path.to_owned(), width: 160 };
    let broken = bellows.publish::<thumbnails>(request("photos/broken.jpg")).await.unwrap();
    let good = bellows.publish::<thumbnails>(request("photos/whole.jpg")).await.unwrap();

    let made = good.await.unwrap();
    assert_eq!((made.width, made.height), (160, 120));
    let opened = image::open(volume.path().join(&made.path)).unwrap();
    assert_eq!((opened.width(), opened.height()), (160, 120));
    let Err(WaitError::Failed(failed)) = broken.await else { panic!("half a photograph is a failure") };
    assert_eq!((failed.ended, failed.attempts), (Ended::Parked, 1));
    assert!(failed.to_string().contains("photos/broken.jpg is cut off"), "{failed}");
    worker.drain(Duration::from_secs(5)).await.unwrap();
}
