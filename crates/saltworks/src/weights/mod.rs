//! The weights room.
