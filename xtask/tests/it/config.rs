//! Finding and setting values.
