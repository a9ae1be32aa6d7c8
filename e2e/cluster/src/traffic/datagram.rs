//! A UDP datagram at every beat. Nothing sends it again: each one that is dropped is a loss.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::{Flow, PATIENCE, board::Board, serve};

/// Datagrams of one socket: after them comes a new one, a new flow to whoever tracks them.
const PER_SOCKET: u64 = 64;

struct Lane {
    socket: UdpSocket,
    sent: u64,
    waiting: BTreeMap<u64, Instant>,
}

pub(super) fn run(flow: &Flow, board: &Board) {
    let beat = Duration::from_millis(flow.beat);
    let mut lanes: Vec<Lane> = Vec::new();
    let mut number = 0;
    loop {
        let begin = Instant::now();
        board.count(&flow.name, |counts| counts.sent += 1);
        if let Err(error) = send(flow, board, &mut lanes, number) {
            board.trouble(&flow.name, &error.to_string(), |counts| &mut counts.failed);
        }
        number += 1;
        for lane in &mut lanes {
            lane.receive(flow, board);
            lane.expire(flow, board);
        }
        lanes.retain(|lane| lane.sent < PER_SOCKET || !lane.waiting.is_empty());
        thread::sleep(beat.saturating_sub(begin.elapsed()));
    }
}

fn send(flow: &Flow, board: &Board, lanes: &mut Vec<Lane>, number: u64) -> io::Result<()> {
    if lanes.last().is_none_or(|lane| lane.sent >= PER_SOCKET) {
        lanes.push(Lane::open(flow.to)?);
    }
    let Some(lane) = lanes.last_mut() else {
        return Ok(());
    };
    lane.sent += 1;
    lane.waiting.insert(number, Instant::now());
    let datagram = serve::datagram(number, &flow.name);
    let sent = match lane.socket.send(&datagram) {
        // What an earlier datagram met: this one is still to be sent.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            lane.refused(flow, board, &error);
            lane.waiting.insert(number, Instant::now());
            lane.socket.send(&datagram)
        }
        other => other,
    };
    sent.map(drop).inspect_err(|_| {
        lane.waiting.remove(&number);
    })
}

impl Lane {
    fn open(to: SocketAddr) -> io::Result<Self> {
        let own: SocketAddr = if to.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(own)?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            sent: 0,
            waiting: BTreeMap::new(),
        })
    }

    fn receive(&mut self, flow: &Flow, board: &Board) {
        let mut buffer = [0; 512];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let number = serve::number_of(&buffer[..length]);
                    if let Some(sent) = number.and_then(|number| self.waiting.remove(&number)) {
                        board.answered(&flow.name, sent.elapsed());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.refused(flow, board, &error);
                }
                Err(_) => return,
            }
        }
    }

    /// A host said that nobody listens. Which datagram it meant is not told: the oldest.
    fn refused(&mut self, flow: &Flow, board: &Board, error: &io::Error) {
        if self.waiting.pop_first().is_some() {
            board.trouble(&flow.name, &error.to_string(), |counts| &mut counts.refused);
        }
    }

    fn expire(&mut self, flow: &Flow, board: &Board) {
        self.waiting.retain(|_, sent| {
            let waits = sent.elapsed() <= PATIENCE;
            if !waits {
                board.trouble(&flow.name, "no answer", |counts| &mut counts.lost);
            }
            waits
        });
    }
}
