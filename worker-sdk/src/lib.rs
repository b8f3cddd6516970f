//! bellows-sdk
