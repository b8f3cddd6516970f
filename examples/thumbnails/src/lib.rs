//! bellows-example-thumbnails
