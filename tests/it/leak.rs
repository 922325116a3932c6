//! Leak test.
