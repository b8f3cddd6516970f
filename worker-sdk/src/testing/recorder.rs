//! What was published: followed from the first revision on, since a task that has ended
//! leaves no payload behind.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bellows_registry::backend::memory::MemoryBackend;
use bellows_registry::backend::{Backend, Change, WatchRequest, WatchStream};
use bellows_registry::id::{DefinitionId, TaskId};
use bellows_registry::key::{Key, Keyspace};
use bellows_registry::record::{Record, TaskRecord};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::task::unconstrained;

pub(super) struct Recorder {
    state: Mutex<State>,
    space: Keyspace,
}

struct State {
    watch: Option<WatchStream>,
    published: Vec<(DefinitionId, Bytes)>,
    /// A task that is replayed is put again.
    seen: HashSet<TaskId>,
    endless: HashSet<String>,
}

impl Recorder {
    pub(super) fn start(store: &MemoryBackend, space: &Keyspace) -> Self {
        let watch = WatchRequest { range: space.everything(), from: 1 };
        // Memory opens a watch at once.
        let watch = store.watch(watch).now_or_never().and_then(Result::ok);
        let state = State { watch, published: Vec::new(), seen: HashSet::new(), endless: HashSet::new() };
        Self { state: Mutex::new(state), space: space.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tasks of this kind are always due.
    pub(super) fn never_ends(&self, name: &str) {
        self.state().endless.insert(name.to_owned());
    }

    pub(super) fn is_endless(&self, id: &DefinitionId) -> bool {
        self.state().endless.contains(id.name.as_str())
    }

    /// The payloads of a kind, as they were encoded.
    pub(super) fn published(&self, namespace: &str, name: &str) -> Vec<Bytes> {
        let mut state = self.state();
        self.catch_up(&mut state);
        let ours = |id: &DefinitionId| id.namespace.as_str() == namespace && id.name.as_str() == name;
        state.published.iter().filter(|(id, _)| ours(id)).map(|(_, payload)| payload.clone()).collect()
    }

    /// Everything until now: a watch of memory has it ready.
    fn catch_up(&self, state: &mut State) {
        let Some(watch) = &mut state.watch else { return };
        // Not to be told "later" by the runtime, which counts what a task does in a row.
        while let Some(Some(told)) = unconstrained(watch.next()).now_or_never() {
            let told = told.unwrap_or_else(|error| panic!("the cluster does not remember: {error}"));
            for change in told.changes {
                let Change::Put(entry) = change else { continue };
                let Ok(Key::Task(id, task_id)) = self.space.parse(&entry.key) else { continue };
                let Ok(task) = TaskRecord::decode(&entry.value) else { continue };
                if state.seen.insert(task_id) {
                    state.published.push((id, task.payload));
                }
            }
        }
    }
}
