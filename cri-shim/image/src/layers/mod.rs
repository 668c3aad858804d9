//! Layers on disk by chain id: how they are kept (`dir`), seen as one tree (`merged`), completed and
//! published. Today a folder each; an EROFS file each is to come behind the same functions.

pub mod complete;
pub mod dir;
pub mod merged;
pub mod publish;
