//! What the suites share: a daemon under a scratch root, images made on the fly, a registry, generated
//! clients, counts of what is left behind. Knows nothing of the runtime but its socket and its binary.
