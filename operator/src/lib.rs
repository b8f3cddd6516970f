//! bellows-operator
