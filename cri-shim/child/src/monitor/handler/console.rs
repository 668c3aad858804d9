//! The socket that a handler's program sends the master of a terminal to (`--console-socket`): in the bundle,
//! where nobody but the program looks. It has been sent when the program's command ended, so nobody waits.

use shim_sys::error::{Errno, SysError};
use shim_sys::{path, socket, tty};
use std::os::fd::OwnedFd;

/// A socket that waits for one master.
#[derive(Debug)]
pub(crate) struct Console {
    listener: OwnedFd,
    name: String,
}

impl Console {
    /// Listens under a name in the bundle.
    pub(crate) fn listen(bundle: &OwnedFd, name: String) -> Result<Self, SysError> {
        // Left by a start that was cut off.
        drop(path::remove_file(bundle, name.as_bytes()));
        let listener = socket::listen_stream(bundle, &name, 1)?;
        Ok(Self { listener, name })
    }

    /// Its name in the bundle.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The master that was sent. The socket is gone afterwards.
    pub(crate) fn take(self, bundle: &OwnedFd) -> Result<OwnedFd, SysError> {
        let sent = socket::accept(&self.listener)
            .and_then(|client| socket::recv_one(&client, &mut [0; 4_096]));
        self.close(bundle);
        let none = || SysError::new("recvmsg", "no terminal came", Errno::ENOTTY);
        let (_name, master) = sent?;
        master.filter(|master| tty::is_terminal(master)).ok_or_else(none)
    }

    /// Nothing will come.
    pub(crate) fn close(self, bundle: &OwnedFd) {
        drop(path::remove_file(bundle, self.name.as_bytes()));
    }
}
