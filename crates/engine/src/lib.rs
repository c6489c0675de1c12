//! engine
pub mod init;
pub mod random;
