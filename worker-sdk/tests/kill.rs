//! A process with everything in it is killed at random moments, and each time the next
//! one opens the file that it left. The judge has what the processes acknowledged.

mod kill {
    pub(crate) mod child;
    pub(crate) mod judge;
}

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bellows_registry::clock;
use bellows_registry::entropy::Entropy;

/// How many processes are killed.
const KILLS: u32 = 210;

/// A life ends within this time, at a moment drawn from all of it: while the file is being
/// opened, or under load.
const LIFE: Duration = Duration::from_millis(700);

#[test]
fn nothing_acknowledged_is_lost_and_nothing_settles_twice_though_the_process_is_killed() {
    if let Some(file) = std::env::var_os(kill::child::FILE) {
        kill::child::main(Path::new(&file));
    }
    let began = clock::instant();
    // What is written stays when a process is killed, synced or not: on a file system in
    // memory more happens in a life.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
    let folder = tempfile::tempdir_in(place).unwrap();
    let (file, log) = (folder.path().join("tasks.redb"), folder.path().join("acknowledged"));
    let entropy = Entropy::system();
    for _ in 0..KILLS {
        let range = u64::try_from(LIFE.as_micros()).unwrap();
        live(&file, &log, Duration::from_micros(entropy.bits64() % range));
    }
    let acknowledged = std::fs::read_to_string(&log).unwrap();
    let verdict = kill::judge::judge(&file, &acknowledged);
    let report = serde_json::json!({
        "kills": KILLS,
        "published": verdict.published,
        "results_told": verdict.told,
        "lost": verdict.lost.len(),
        "settled_twice": verdict.settled_twice.len(),
        "seconds": began.elapsed().as_secs(),
    });
    println!("{report}");
    // A verdict about nothing would say nothing.
    assert!(verdict.published > KILLS as usize && verdict.told > KILLS as usize, "{report}");
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bellows");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join("embedded.json"), format!("{report}\n")).unwrap();
    assert!(verdict.lost.is_empty(), "lost: {:?}", verdict.lost);
    assert!(verdict.settled_twice.is_empty(), "settled twice: {:?}", verdict.settled_twice);
    assert_eq!(verdict.unlawful, []);
}

/// One life of the process: begun, listened to, and killed. What it acknowledged goes to
/// the log.
fn live(file: &Path, log: &Path, life: Duration) {
    let name = "nothing_acknowledged_is_lost_and_nothing_settles_twice_though_the_process_is_killed";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads", "1"])
        .env(kill::child::FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let listener = std::thread::spawn(move || {
        let mut line = String::new();
        // A line that was cut by the kill acknowledges nothing.
        while said.read_line(&mut line).unwrap_or(0) > 0 && line.ends_with('\n') {
            if line.starts_with(kill::child::ACK) {
                log.write_all(line.as_bytes()).unwrap();
            }
            line.clear();
        }
    });
    std::thread::sleep(life);
    let ended = child.try_wait().unwrap();
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    listener.join().unwrap();
    assert!(ended.is_none(), "the process ended by itself: {ended:?}");
}
