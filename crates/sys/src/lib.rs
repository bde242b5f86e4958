//! Observes and acts.
