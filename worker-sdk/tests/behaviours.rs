//! What a user may rely on: one suite, run over memory and over a file (under paused
//! time), and over a real etcd.
//!
//! Each file of `behaviours/` lists its own with `behaviours!`; a behaviour's name is the
//! sentence that it shows.

/// Each behaviour as a test of its own on each backend. `paused_only` is for what takes
/// minutes by the clock on the wall.
macro_rules! behaviours {
    (paused_only: $($name:ident),+ $(,)?) => {
        mod paused {$(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(crate::behaviours::world::World::memory()).await;
            }
        )+}
    };
    ($($name:ident),+ $(,)?) => {
        mod memory {$(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                let _record = crate::behaviours::record::Record::of("memory", stringify!($name));
                super::$name(crate::behaviours::world::World::memory()).await;
            }
        )+}
        mod embedded {$(
            // Paused too: the clock stands still while the file is written.
            #[tokio::test(start_paused = true)]
            async fn $name() {
                let _record = crate::behaviours::record::Record::of("embedded", stringify!($name));
                super::$name(crate::behaviours::world::World::embedded().await).await;
            }
        )+}
        mod etcd {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let _record = crate::behaviours::record::Record::of("etcd", stringify!($name));
                super::$name(crate::behaviours::world::World::etcd(stringify!($name))).await;
            }
        )+}
    };
}

mod behaviours {
    mod attribute;
    pub(crate) mod blocking;
    mod cancelling;
    mod checkpoints;
    #[cfg(all(feature = "zstd", feature = "encryption", feature = "object-store"))]
    mod codecs;
    mod envelope;
    mod expiring;
    mod failing;
    mod fleet;
    mod follow_ups;
    pub(crate) mod gate;
    mod limits;
    mod many;
    mod middleware;
    #[cfg(all(feature = "zstd", feature = "encryption", feature = "object-store"))]
    mod objects;
    mod parking;
    mod progress;
    mod publishing;
    pub(crate) mod record;
    mod results;
    mod retrying;
    mod running;
    mod scheduling;
    mod snoozing;
    mod stuck;
    mod unique;
    mod versions;
    pub(crate) mod world;
}
