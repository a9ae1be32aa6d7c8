//! The answering side, and what a request looks like. Over TCP: the flow's name, a line break, then numbers of eight bytes, each of
//! which is sent back. Over UDP: the number, then the name; the whole is sent back.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

use super::board::Board;
use crate::error::{Doing as _, Result};

/// The length of a number.
pub(super) const REQUEST: usize = 8;
/// Bytes of datagrams that may wait.
const ROOM: usize = 16 << 20;
/// How long a refused `accept` rests before the next.
const REST: Duration = Duration::from_millis(20);
/// A connection's thread needs hardly any stack.
const STACK: usize = 64 * 1024;

/// Answers on a port over TCP and UDP and both families.
pub(super) fn serve(port: u16, board: &Board) -> Result<()> {
    // Takes IPv4 too, as mapped addresses.
    let any = (Ipv6Addr::UNSPECIFIED, port);
    let listener = TcpListener::bind(any).doing(|| format!("listening on TCP port {port}"))?;
    let socket = UdpSocket::bind(any).doing(|| format!("listening on UDP port {port}"))?;
    // A program that a busy machine lets wait shall find what came meanwhile: a datagram that its socket has no room for would count as
    // lost on the way. Takes CAP_NET_ADMIN; a quiet machine does without.
    setsockopt(&socket, sockopt::RcvBufForce, &ROOM).unwrap_or_default();
    let (streams, datagrams) = (board.clone(), board.clone());
    thread::spawn(move || accept(&listener, &streams));
    thread::spawn(move || answer(&socket, &datagrams));
    Ok(())
}

pub(super) fn greeting(name: &str) -> Vec<u8> {
    format!("{name}\n").into_bytes()
}

pub(super) fn datagram(number: u64, name: &str) -> Vec<u8> {
    [&number.to_be_bytes()[..], name.as_bytes()].concat()
}

pub(super) fn number_of(datagram: &[u8]) -> Option<u64> {
    datagram
        .first_chunk()
        .map(|number| u64::from_be_bytes(*number))
}

fn accept(listener: &TcpListener, board: &Board) {
    loop {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(REST);
            continue;
        };
        let board = board.clone();
        let started = thread::Builder::new().stack_size(STACK).spawn(move || {
            // The asker sees how it ended.
            converse(&stream, &board).unwrap_or_default();
        });
        if started.is_err() {
            thread::sleep(REST);
        }
    }
}

fn converse(stream: &TcpStream, board: &Board) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut name = String::new();
    reader.read_line(&mut name)?;
    board.arrived(name.trim_end());
    let mut number = [0; REQUEST];
    loop {
        reader.read_exact(&mut number)?;
        (&*stream).write_all(&number)?;
    }
}

fn answer(socket: &UdpSocket, board: &Board) {
    let mut buffer = [0; 512];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            thread::sleep(REST);
            continue;
        };
        let datagram = &buffer[..length];
        if let Some(name) = datagram.get(REQUEST..).map(String::from_utf8_lossy) {
            board.arrived(&name);
        }
        // The asker may be gone, or denied the answer: its own counts tell.
        socket.send_to(datagram, peer).unwrap_or_default();
    }
}
