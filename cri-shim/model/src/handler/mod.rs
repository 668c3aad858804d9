//! RuntimeClass handlers: who runs the containers of a pod, Wherry itself or another OCI runtime. Which are
//! known and what each can do; what a monitor is told to run; what a program says of itself and of its
//! failures. The spec that such a program gets is `spec/foreign.rs`.

pub mod choice;
pub mod features;
pub mod order;
pub mod said;
