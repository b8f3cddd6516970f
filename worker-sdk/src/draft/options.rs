//! The options of a task as a user writes them: once, for [`Publish`](crate::Publish) and
//! [`NewTask`](crate::NewTask).

/// The options of a task, for a type with a `draft`.
macro_rules! task_options {
    () => {
        /// The task becomes due only after this time, at most a year.
        pub fn delay(mut self, delay: std::time::Duration) -> Self {
            self.draft.chosen.delay = delay;
            self
        }

        /// The task becomes due at this time by this machine's clock, at most a year from
        /// now; at once if it has passed. In place of a `delay`.
        pub fn at(self, time: std::time::SystemTime) -> Self {
            self.delay(crate::outcome::until(time))
        }

        /// How long the task may wait for an attempt to begin, counted from now: longer
        /// than the delay, and at most a year. After that it ends as
        /// [`Ended::Expired`](crate::Ended::Expired), without a result. A running attempt
        /// does not expire; a task that waits for its next attempt does.
        ///
        /// The assigner counts from when it saw the task appear; only what it finds when
        /// it begins to lead goes by the publisher's clock.
        pub fn ttl(mut self, ttl: std::time::Duration) -> Self {
            self.draft.chosen.ttl = Some(ttl);
            self
        }

        /// Attaches a header that the handler sees. At most 32, and 4 KiB together; names as
        /// in HTTP, values without control characters.
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.draft.chosen.headers.insert(name.into(), value.into());
            self
        }

        /// The place in a trace that the attempts belong to: W3C's `traceparent`, as text or
        /// as a [`TraceParent`](crate::TraceParent). The same as the header of that name.
        ///
        /// By default a task published by a handler belongs to that handler's trace, and any
        /// other begins a trace of its own, whose id is the task's.
        pub fn traceparent(self, parent: impl Into<String>) -> Self {
            self.header(crate::envelope::trace::TRACEPARENT, parent)
        }

        /// The media type of the payload. Payloads are JSON: `application/json`, the
        /// default, or one that ends in `+json`.
        pub fn content_type(mut self, media_type: impl Into<String>) -> Self {
            self.draft.chosen.content_type = Some(media_type.into());
            self
        }

        /// How urgent the task is among those with the same fairness key: 1 (least) to 9
        /// (most), 5 by default. A level is worth ten minutes of waiting, so that none starves.
        pub fn priority(mut self, level: u8) -> Self {
            self.draft.chosen.turn.priority = Some(level);
            self
        }

        /// The fairness key: keys take turns, and limits per key count by it. A tenant, an
        /// account, a host; 1 to 128 bytes. Tasks without one are one key together.
        pub fn key(mut self, key: impl Into<String>) -> Self {
            self.draft.chosen.turn.key = Some(key.into());
            self
        }

        /// How many slots of one worker the task takes, 1 to 1000; 1 by default. It waits
        /// for ever while no worker has so many.
        pub fn weight(mut self, slots: u32) -> Self {
            self.draft.chosen.turn.weight = Some(slots);
            self
        }

        /// Publishes under this id, chosen by you. Publishing again with the same id on the
        /// same client is the same task; elsewhere, use `again`.
        pub fn as_task(mut self, id: bellows_registry::id::TaskId) -> Self {
            self.draft.chosen.id = Some(id);
            self
        }

        /// Publishes a task once more whose publish ended in
        /// [`PublishError::Unknown`](crate::PublishError::Unknown), here or in another
        /// process, now or after a restart. It is the same task: nothing happens if it is
        /// published already or has ended, as long as its record is kept.
        pub fn again(mut self, task: &crate::RawTaskRef) -> Self {
            self.draft.chosen.again = Some(task.clone());
            self
        }

        /// The key chooses the task: whoever publishes under it, from wherever, means the
        /// same task, for as long as that waits, runs, is parked or its terminal record is
        /// kept. The first one counts: a later payload under the same key is not looked at,
        /// and [`TaskHandle::publication`](crate::TaskHandle::publication) says `Already`.
        ///
        /// The key is anything that serializes, at most 1 KiB as JSON, and counts within
        /// the definition. Excludes `unique` and `replace_pending`.
        pub fn idempotency_key(mut self, key: impl serde::Serialize) -> Self {
            self.draft.chosen.claim(crate::draft::Claim::Idempotent(crate::draft::key(&key)));
            self
        }

        /// At most one task of this key is active in the definition: it holds the key from
        /// its publish until it has ended, and while it is parked. What a publish does that
        /// finds it held is said by `on_conflict`. Once the key is free, a new task may
        /// take it: the record of the one before it does not matter.
        ///
        /// The key is anything that serializes, at most 1 KiB as JSON. Let it not contain a
        /// `HashMap`: that has no order. Excludes `idempotency_key` and `replace_pending`.
        pub fn unique(mut self, key: impl serde::Serialize) -> Self {
            self.draft.chosen.claim(crate::draft::Claim::Unique(crate::draft::key(&key)));
            self
        }

        /// As `unique`, with a key of chosen fields of the payload.
        ///
        /// ```
        /// # use bellows_sdk::prelude::*;
        /// # use bellows_sdk::NewTask;
        /// # #[derive(Serialize, Deserialize)]
        /// # struct Sync { user: u64, why: String }
        /// # struct SyncUser;
        /// # impl TaskDefinition for SyncUser {
        /// #     const NAME: &'static str = "sync-user";
        /// #     type Callback = ();
        /// #     type Trigger = PublishTrigger<Sync>;
        /// # }
        /// let task = NewTask::<SyncUser>::new(Sync { user: 7, why: "login".into() });
        /// let task = task.unique_by(|sync| sync.user); // one for each user, whatever the reason
        /// ```
        pub fn unique_by<K: serde::Serialize>(
            mut self,
            key: impl FnOnce(&crate::definition::PayloadOf<T>) -> K,
        ) -> Self {
            let key = crate::draft::key(&key(&self.draft.payload));
            self.draft.chosen.claim(crate::draft::Claim::Unique(key));
            self
        }

        /// What happens if another task holds the key of `unique`. Default: its handle is
        /// returned.
        pub fn on_conflict(mut self, what: crate::OnConflict) -> Self {
            self.draft.chosen.on_conflict = what;
            self
        }

        /// At most one task of this key is pending in the definition: as long as it has not
        /// been given to a worker, a later publish under the key takes its place, with its
        /// own payload, headers and delay, and the id stays. Once it has begun, a later
        /// publish is a task of its own, so that the last payload is always run.
        ///
        /// The key is as that of `unique`, but in a room of its own: the two never meet.
        /// Excludes `unique` and `idempotency_key`. A replacement whose answer is lost and
        /// whose task begins meanwhile may be published once more.
        pub fn replace_pending(mut self, key: impl serde::Serialize) -> Self {
            self.draft.chosen.claim(crate::draft::Claim::Pending(crate::draft::key(&key)));
            self
        }

        /// Runs when no other publish under this key has come for so long: as
        /// `replace_pending` with a `delay`. Publishes that never pause put it off for ever.
        pub fn debounce(self, key: impl serde::Serialize, wait: std::time::Duration) -> Self {
            self.replace_pending(key).delay(wait)
        }
    };
}
pub(crate) use task_options;
