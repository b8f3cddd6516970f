//! What fits into which request, and what is told of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::backend::memory::MemoryBackend;
use crate::backend::{Backend, Op, PutLease, Txn};
use crate::clock::{self, WallMillis};
use crate::id::{ResultSlot, TaskId};
use crate::record::{ParkedRecord, PolicyRecord, PolicyState, Record, Tally, TaskOptions, TaskRecord};
use crate::spec::Policy;

struct Stage {
    store: MemoryBackend,
    space: Keyspace,
    def: DefinitionId,
    view: View,
    entropy: Entropy,
    term: Revision,
}

impl Stage {
    /// A definition, and parked tasks with so many bytes of payload each.
    async fn with_parked(sizes: &[usize]) -> Self {
        let (store, space) = (MemoryBackend::new(), Keyspace::default());
        let def = DefinitionId::new("media", "resize").unwrap();
        let policy = PolicyRecord {
            uid: "u".into(),
            generation: 1,
            state: PolicyState::Active,
            policy: Policy::default(),
        };
        put(&store, space.path(&Key::Policy(def.clone())), policy.encode()).await;
        for (n, size) in sizes.iter().enumerate() {
            put(&store, space.path(&Key::Parked(def.clone(), task(n))), parked(*size).encode()).await;
        }
        let record = LeaderRecord { identity: "test".to_owned() };
        let term = put(&store, space.path(&Key::Leader(0)), record.encode()).await;
        let mut view = View::new(space.clone());
        let all = store.range(RangeRequest::new(space.everything())).await.unwrap();
        view.begin_list();
        view.list_page(&all.entries, &clock::now());
        view.end_list(all.revision);
        Self { store, space, def, view, entropy: Entropy::seeded(1), term }
    }

    fn requests(&self, plan: &Plan, room: usize, may_fetch: bool) -> Vec<Request> {
        let fence = self.space.term_fence(0, self.term);
        let now = clock::now();
        let (space, view, entropy) = (&self.space, &self.view, &self.entropy);
        Maker { space, view, entropy, fence, now: &now }.requests(plan, room, may_fetch)
    }

    /// So many moves, and then so many replays.
    fn plan(&self, moves: usize, replays: usize) -> Plan {
        let moves = (0..moves).map(|n| Step::DropRequest { task: task(1000 + n), seen: 1 });
        let replays = (0..replays).map(|n| Step::Replay { task: task(n) });
        let steps = moves.chain(replays).map(|step| (self.def.clone(), step)).collect();
        Plan { steps, ..Plan::default() }
    }
}

fn task(n: usize) -> TaskId {
    TaskId::from_bits(n as u128)
}

fn parked(payload: usize) -> ParkedRecord {
    let task = TaskRecord {
        slot: ResultSlot::from_bits(1),
        published: WallMillis(0),
        delay: None,
        headers: BTreeMap::new(),
        options: TaskOptions::default(),
        payload: Bytes::from(vec![b'x'; payload]),
    };
    ParkedRecord { parked: WallMillis(0), expires: None, tally: Tally::default(), task }
}

async fn put(store: &MemoryBackend, key: Bytes, value: Bytes) -> Revision {
    let then = vec![Op::Put { key, value, lease: PutLease::None }];
    store.txn(Txn { then, ..Txn::default() }).await.unwrap().revision
}

/// Otherwise a replay would wait for as long as there is enough else to do.
#[tokio::test]
async fn what_needs_a_record_goes_though_the_moves_fill_every_batch() {
    let stage = Stage::with_parked(&[]).await;
    let plan = stage.plan(300, 20);
    let sizes = |room, may_fetch| -> Vec<(bool, usize)> {
        let requests = stage.requests(&plan, room, may_fetch);
        requests.iter().map(|request| (request.fetches(), request.steps().len())).collect()
    };
    assert_eq!(sizes(2, true), [(true, FETCHES), (false, 127)]);
    assert_eq!(sizes(2, false), [(false, 127), (false, 127)], "one such request at a time");
    assert_eq!(sizes(1, true), [(true, FETCHES)]);
    assert_eq!(sizes(0, true), []);
    let few = stage.requests(&stage.plan(3, 0), 2, true);
    assert_eq!(few.iter().map(|request| request.steps().len()).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn what_is_too_large_beside_the_others_is_not_taken_for_refused() {
    let stage = Stage::with_parked(&[700_000, 700_000, 10]).await;
    let backend: DynBackend = Arc::new(stage.store.clone());
    let mut requests = stage.requests(&stage.plan(0, 4), 2, true);
    assert_eq!(requests.len(), 1);
    let answered = requests.remove(0).send(Arc::clone(&backend)).await;
    assert!(answered.fetched && answered.steps.len() == 4);
    let Fate::Answered { steps, .. } = answered.fate else { panic!("it is answered") };
    let (applied, not_sent) = (Became::Applied, Became::NotSent);
    assert_eq!(steps, [applied, not_sent, applied, not_sent], "the last one does not exist");

    let left = stage.requests(&stage.plan(0, 4), 2, true).remove(0).send(backend).await;
    let Fate::Answered { steps, .. } = left.fate else { panic!("it is answered") };
    assert_eq!(steps, [not_sent, applied, not_sent, not_sent]);
}

#[tokio::test]
async fn a_move_whose_fences_do_not_hold_is_refused_and_the_old_term_is_fenced() {
    let mut stage = Stage::with_parked(&[]).await;
    let backend: DynBackend = Arc::new(stage.store.clone());
    let one = |stage: &Stage| stage.requests(&stage.plan(1, 0), 1, true).remove(0);
    let refused = one(&stage).send(Arc::clone(&backend)).await;
    assert!(!refused.fetched);
    assert!(matches!(refused.fate, Fate::Answered { steps, .. } if steps == [Became::Refused]));
    stage.term -= 1;
    assert!(matches!(one(&stage).send(backend).await.fate, Fate::Fenced));
}
