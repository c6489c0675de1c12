//! The method room.
