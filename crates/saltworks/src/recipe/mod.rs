//! The recipe room.
