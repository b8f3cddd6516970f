//! bellows-registry
