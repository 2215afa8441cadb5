//! loom models of the ring, of sleeping and waking, and of the epochs.
