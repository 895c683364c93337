//! Encryption at rest and keyed fingerprints.
