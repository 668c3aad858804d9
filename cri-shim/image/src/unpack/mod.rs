//! Unpacking: entries of one layer to one fresh folder, beneath its handle. Layers are unpacked alone
//! and in any order, so whiteouts become overlayfs whiteouts at once and nothing is looked up in a
//! parent layer; what needs one is remembered (`borrow`) until the layer is published.

pub mod apply;
pub mod borrow;
pub mod name;
pub mod split;
pub mod whiteout;
pub mod writer;
