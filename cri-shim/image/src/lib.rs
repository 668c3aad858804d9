//! See cri-shim/README.md; rooms are added below.
