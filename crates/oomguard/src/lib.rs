//! The guard: drives the engine.
