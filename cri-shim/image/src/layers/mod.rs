//! Layers on disk by chain id. Today a folder each (`dir`); an EROFS file each is to come behind the
//! same functions.

pub mod dir;
