//! Verbs of pod sandboxes, one story a file: each asks the model what to do, records it in the store and
//! lets the hands do it. Nothing is decided here.

pub mod at_end;
pub mod inspect;
pub mod remove;
pub mod run;
pub mod stop;
pub mod update;
