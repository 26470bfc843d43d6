//! Encryption at rest: which records are encrypted, with what, and by whose keys.
//!
//! The file is upstream's `EncryptionConfiguration`, and what is stored has its form: a prefix that names provider and
//! key (`k8s:enc:aesgcm:v1:key1:`), then the ciphertext, bound to the object's place by its etcd key.

mod ciphers;
mod config;
mod kms;
mod sealer;

pub use config::ConfigError;
pub use sealer::{Audit, Sealer};
