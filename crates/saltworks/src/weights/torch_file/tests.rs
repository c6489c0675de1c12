//! Files made by torch, and hostile ones.
