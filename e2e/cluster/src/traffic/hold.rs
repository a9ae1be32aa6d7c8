//! One TCP connection that lives as long as the program, with a request at every beat. Counting begins when it is established:
//! a pod may start before its first connection can come through.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use super::{Flow, board::Board, serve};

/// TCP sends again and again; what is not through by then is broken.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn run(flow: &Flow, board: &Board) {
    board.count(&flow.name, |_| ());
    loop {
        let Ok(stream) = TcpStream::connect_timeout(&flow.to, PATIENCE) else {
            thread::sleep(Duration::from_millis(flow.beat));
            continue;
        };
        let Err(error) = speak(flow, board, stream);
        board.trouble(&flow.name, &error.to_string(), |counts| &mut counts.broken);
    }
}

fn speak(
    flow: &Flow,
    board: &Board,
    mut stream: TcpStream,
) -> io::Result<std::convert::Infallible> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&serve::greeting(&flow.name))?;
    let mut number = 0_u64;
    loop {
        let begin = Instant::now();
        board.count(&flow.name, |counts| counts.sent += 1);
        stream.write_all(&number.to_be_bytes())?;
        let mut answer = [0; serve::REQUEST];
        stream.read_exact(&mut answer)?;
        if answer != number.to_be_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "another's answer came",
            ));
        }
        board.answered(&flow.name, begin.elapsed());
        number += 1;
        thread::sleep(Duration::from_millis(flow.beat).saturating_sub(begin.elapsed()));
    }
}
