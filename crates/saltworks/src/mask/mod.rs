//! The mask room.
