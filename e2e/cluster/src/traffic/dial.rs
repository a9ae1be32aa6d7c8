//! A new TCP connection with one request at every beat, however many before it still wait.

use std::{
    io::{self, Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Flow, PATIENCE, board::Board, serve};

/// A request on its way.
struct Request {
    socket: Socket,
    begun: Instant,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Connecting,
    Asked,
}

/// What became of a request.
enum End {
    Answered,
    /// This host can't send it.
    Failed(io::Error),
    Refused(io::Error),
    Broken(io::Error),
    Late,
}

pub(super) fn run(flow: &Flow, board: &Board) {
    let beat = Duration::from_millis(flow.beat);
    let mut open: Vec<Request> = Vec::new();
    loop {
        let begin = Instant::now();
        board.count(&flow.name, |counts| counts.sent += 1);
        match begin_one(flow) {
            Ok(request) => open.push(request),
            Err(error) => end(flow, board, Duration::ZERO, End::Failed(error)),
        }
        open.retain_mut(|request| match request.go_on(&flow.name) {
            None => true,
            Some(ended) => {
                end(flow, board, request.begun.elapsed(), ended);
                false
            }
        });
        thread::sleep(beat.saturating_sub(begin.elapsed()));
    }
}

fn end(flow: &Flow, board: &Board, after: Duration, end: End) {
    let name = &flow.name;
    match end {
        End::Answered => board.answered(name, after),
        End::Failed(error) => board.trouble(name, &error.to_string(), |counts| &mut counts.failed),
        End::Refused(error) => {
            board.trouble(name, &error.to_string(), |counts| &mut counts.refused);
        }
        End::Broken(error) => board.trouble(name, &error.to_string(), |counts| &mut counts.broken),
        End::Late => board.trouble(name, "no answer", |counts| &mut counts.lost),
    }
}

fn begin_one(flow: &Flow) -> io::Result<Request> {
    let socket = Socket::new(
        Domain::for_address(flow.to),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    match socket.connect(&flow.to.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    Ok(Request {
        socket,
        begun: Instant::now(),
        stage: Stage::Connecting,
    })
}

impl Request {
    /// Does what can be done now.
    fn go_on(&mut self, name: &str) -> Option<End> {
        match self.step(name) {
            Ok(Some(end)) => Some(end),
            Ok(None) => (self.begun.elapsed() > PATIENCE).then_some(End::Late),
            Err(error) => Some(match (self.stage, error.kind()) {
                (Stage::Connecting, io::ErrorKind::ConnectionRefused) => End::Refused(error),
                (Stage::Connecting, io::ErrorKind::TimedOut) => End::Late,
                (Stage::Connecting, _) => End::Failed(error),
                (Stage::Asked, _) => End::Broken(error),
            }),
        }
    }

    fn step(&mut self, name: &str) -> io::Result<Option<End>> {
        if let Stage::Connecting = self.stage {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            // Fails for as long as the connection is not there.
            if self.socket.peer_addr().is_err() {
                return Ok(None);
            }
            self.stage = Stage::Asked;
            let request = [&serve::greeting(name)[..], &[0; serve::REQUEST]].concat();
            (&self.socket).write_all(&request)?;
        }
        match (&self.socket).read(&mut [0; serve::REQUEST]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(Some(End::Answered)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}
