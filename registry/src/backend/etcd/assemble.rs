//! Whole revisions out of etcd's watch messages.
//!
//! Pure. What etcd 3.7.3 guarantees, and what the rule is built on:
//! * the changes of a watch come in the order of revisions, over all messages;
//! * a message in one piece, and the last fragment of one, ends at the end of a
//!   revision; any other fragment may end inside one;
//! * the header of a message **with changes** may be far ahead of them: while a watch
//!   catches up it names the store's revision, though 1000 revisions are sent at a time;
//! * the header of a message **without** changes (progress) is never ahead.
//!
//! So a revision is whole when a later one has begun, or when the message ends; and the
//! header counts only where there are no changes.

use crate::backend::{BackendError, Change, Changes, Revision};

/// One message of a watch.
#[derive(Debug)]
pub(super) struct Message {
    /// The store's revision, as the header says.
    pub(super) header: Revision,
    /// Whether more fragments of this message follow.
    pub(super) fragment: bool,
    pub(super) changes: Vec<Change>,
}

/// Holds back the revision that is not known to be whole.
#[derive(Debug)]
pub(super) struct Assembler {
    complete: Revision,
    tail: Vec<Change>,
}

impl Assembler {
    /// For a watch from `from`.
    pub(super) fn new(from: Revision) -> Self {
        Self { complete: from - 1, tail: Vec::new() }
    }

    /// Takes a message; gives what is whole, if anything is new.
    pub(super) fn push(&mut self, message: Message) -> Result<Option<Changes>, BackendError> {
        let Message { header, fragment, changes } = message;
        if changes.is_empty() {
            return self.progress(header, fragment);
        }
        let mut whole = std::mem::take(&mut self.tail);
        whole.extend(changes);
        let last = whole.last().map_or(self.complete, Change::revision);
        if whole.first().is_some_and(|change| change.revision() <= self.complete)
            || !whole.is_sorted_by_key(Change::revision)
        {
            // What was told as complete may not have been, so that going on from there would skip
            // it: only a list shows what holds.
            return Err(BackendError::OutOfOrder);
        }
        if !fragment {
            return Ok(self.tell(last, whole));
        }
        let begun = whole.partition_point(|change| change.revision() < last);
        self.tail = whole.split_off(begun);
        Ok(self.tell(last - 1, whole))
    }

    fn progress(&mut self, header: Revision, fragment: bool) -> Result<Option<Changes>, BackendError> {
        if !self.tail.is_empty() || fragment {
            return Err(BackendError::unknown("a watch broke off inside a revision"));
        }
        Ok(self.tell(header, Vec::new()))
    }

    fn tell(&mut self, complete: Revision, changes: Vec<Change>) -> Option<Changes> {
        if complete < self.complete || (complete == self.complete && changes.is_empty()) {
            return None;
        }
        self.complete = complete;
        Some(Changes { complete, changes })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::backend::Class;

    fn message(header: Revision, fragment: bool, revisions: &[Revision]) -> Message {
        let change = |revision: &Revision| Change::Delete { key: Bytes::from("k"), revision: *revision };
        Message { header, fragment, changes: revisions.iter().map(change).collect() }
    }

    /// Pushes messages; gives (complete, revisions told) of each that told something.
    fn told(from: Revision, messages: Vec<Message>) -> Vec<(Revision, Vec<Revision>)> {
        let mut assembler = Assembler::new(from);
        let told = messages.into_iter().filter_map(|message| assembler.push(message).unwrap());
        told.map(|told| (told.complete, told.changes.iter().map(Change::revision).collect())).collect()
    }

    #[test]
    fn the_header_of_a_catch_up_message_is_not_believed() {
        assert_eq!(told(2, vec![message(9000, false, &[2, 3, 3])]), [(3, vec![2, 3, 3])]);
    }

    #[test]
    fn a_revision_split_in_fragments_is_told_whole() {
        let split = vec![message(7, true, &[7, 7]), message(7, true, &[7, 7, 7]), message(7, false, &[7])];
        assert_eq!(told(7, split), [(7, vec![7; 6])]);
    }

    #[test]
    fn a_fragment_gives_up_to_the_revision_that_has_only_begun() {
        let split = vec![message(90, true, &[5, 6, 8]), message(90, false, &[8, 9])];
        assert_eq!(told(5, split), [(7, vec![5, 6]), (9, vec![8, 8, 9])]);
    }

    #[test]
    fn only_a_message_without_changes_moves_on_by_its_header() {
        let quiet = vec![message(5, false, &[]), message(20, false, &[]), message(20, false, &[])];
        assert_eq!(told(6, quiet), [(20, vec![])]);
    }

    #[test]
    fn what_contradicts_the_order_ends_the_watch() {
        for order in [&[4][..], &[6, 5]] {
            let error = Assembler::new(5).push(message(9, false, order)).unwrap_err();
            assert_eq!(error.class(), Class::Relist, "what is complete is not known any more");
        }
        let mut assembler = Assembler::new(5);
        assert!(assembler.push(message(9, true, &[6])).unwrap().is_some_and(|told| told.complete == 5));
        assert!(assembler.push(message(9, false, &[])).is_err());
    }
}
