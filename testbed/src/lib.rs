//! bellows-testbed
