//! How a message travels: a length and JSON over a unix socket, with at most one descriptor beside its first byte. What messages mean may
//! not enter.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

/// Room for every attachment of a large node in one GC.
const LIMIT: u32 = 4 << 20;

/// Sends a message, with a descriptor if there is one.
///
/// # Errors
/// The other side is gone, or the message is larger than 4 MiB.
pub fn send<T: Serialize>(
    stream: &mut UnixStream,
    message: &T,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= LIMIT)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too large"))?;
    let header = length.to_le_bytes();
    let sent = send_header(stream, &header, descriptor)?;
    stream.write_all(&header[sent..])?;
    stream.write_all(&body)
}

/// Receives a message and the descriptor that came with it.
///
/// # Errors
/// The other side is gone or too slow, or what it sent is no such message.
pub fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let mut header = [0; size_of::<u32>()];
    let (received, descriptor) = receive_header(stream, &mut header)?;
    if received == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut header[received..])?;
    let length = u32::from_le_bytes(header);
    if length > LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes is too large"),
        ));
    }
    let mut body = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut body)?;
    Ok((serde_json::from_slice(&body)?, descriptor))
}

fn send_header(
    stream: &UnixStream,
    header: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    // A writer whose reader is gone should see an error, not a signal.
    Ok(sendmsg(
        stream,
        &[IoSlice::new(header)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

fn receive_header(stream: &UnixStream, header: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(header)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut first| first.next());
    Ok((received.bytes, descriptor))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{fd::AsFd as _, unix::fs::MetadataExt as _},
        thread,
    };

    use super::*;
    use crate::protocol::{AttachmentId, Envelope, Request, VERSION};

    fn envelope(count: usize) -> Envelope {
        let id = AttachmentId {
            container: "c".repeat(64),
            interface: "eth0".to_owned(),
        };
        Envelope {
            version: VERSION,
            request: Request::Gc(vec![id; count]),
        }
    }

    #[test]
    fn a_message_and_its_descriptor_arrive() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let file = File::open("/proc/self/ns/net").unwrap();
        send(&mut near, &envelope(1), Some(file.as_fd())).unwrap();
        let (message, descriptor) = receive::<Envelope>(&mut far).unwrap();
        assert_eq!(message, envelope(1));
        let inode = |file: &File| file.metadata().unwrap().ino();
        assert_eq!(inode(&File::from(descriptor.unwrap())), inode(&file));
    }

    #[test]
    fn a_message_larger_than_the_socket_s_buffer_arrives() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let sender = thread::spawn(move || send(&mut near, &envelope(20_000), None));
        let (message, descriptor) = receive::<Envelope>(&mut far).unwrap();
        assert!(message == envelope(20_000) && descriptor.is_none());
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(receive::<Envelope>(&mut far).is_err());
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.write_all(&[3, 0, 0, 0, b'{']).unwrap();
        drop(near);
        assert!(receive::<Envelope>(&mut far).is_err());
        let (near, mut far) = UnixStream::pair().unwrap();
        drop(near);
        assert_eq!(
            receive::<Envelope>(&mut far).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
