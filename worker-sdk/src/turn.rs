//! What a publisher chooses about a task's turn.

use bellows_registry::record::{ChoiceError, FairnessKey, Priority, TaskOptions, Weight};

/// As it was typed: checked when the task is made ready, before anything is sent.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) priority: Option<u8>,
    pub(crate) key: Option<String>,
    pub(crate) weight: Option<u32>,
}

impl Turn {
    /// Checks the choices, and notes them down.
    pub(crate) fn choose(self, options: &mut TaskOptions) -> Result<(), ChoiceError> {
        options.priority = self.priority.map(Priority::new).transpose()?.unwrap_or_default();
        options.key = self.key.as_deref().map(FairnessKey::new).transpose()?;
        options.weight = self.weight.map(Weight::new).transpose()?.unwrap_or_default();
        Ok(())
    }
}
