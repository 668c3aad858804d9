//! Containers of a RuntimeClass handler: another OCI runtime (crun, runc) makes the process, this monitor does
//! the rest as for every container: streams, terminal, log, exit code, out-of-memory kills, attach. The
//! program is run as a child, once for each command of the OCI runtime's command line, and never waited for;
//! what it makes comes to the monitor, which is a subreaper, when it ends.

pub(crate) mod console;
pub(crate) mod dress;
pub(crate) mod exec;
pub(crate) mod program;
pub(crate) mod signal;
pub(crate) mod start;
