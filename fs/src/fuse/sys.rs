//! The one thing that the system gives only as a bare number: a descriptor that was sent over a socket.

#![allow(unsafe_code)]

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

/// Receives one descriptor; it will not be passed on to programs that this process starts.
pub fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut control = cmsg_space!(RawFd);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part
            && let [descriptor] = descriptors[..]
        {
            // SAFETY: the kernel has just put this descriptor into this process, and nobody else knows of it.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the helper sent no descriptor"))
}
