//! Holds no code: the tests are in `e2e/`.
