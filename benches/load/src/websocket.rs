//! Messages over WebSocket (RFC 6455): each client has its own echoed, or one client's are sent to
//! all.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::client::Client;
use crate::options::Options;
use crate::report::Report;
use crate::{Failure, wait_for_go};

/// Without a message for so long the server is taken for hung.
const HUNG: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 64 * 1024;
/// The mask of every frame: a server cannot tell it from a random one.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const BINARY: u8 = 0x2;
const PING: u8 = 0x9;
/// Length fields that say: the length is in the next two, or eight, bytes.
const LONG: u8 = 0x7e;
const LONGEST: u8 = 0x7f;

/// A client, and the begin of a frame that has not come as a whole.
struct Peer {
    client: Client,
    pending: Vec<u8>,
    /// Whether a message to it is under way.
    waits: bool,
    since: Instant,
}

struct Load<'a> {
    options: &'a Options,
    message: Vec<u8>,
    frame: Vec<u8>,
    poll: Poll,
    peers: Vec<Peer>,
    buffer: Vec<u8>,
    report: Report,
    last_answer: Instant,
    end: Instant,
}

/// Messages as the options say: a warm-up, and what is measured.
pub(crate) fn run(options: &Options) -> Result<Report, Failure> {
    let mut load = Load::new(options)?;
    load.run(options.warm_up)?;
    wait_for_go()?;
    load.report.start()?;
    let begin = Instant::now();
    load.run(options.measured)?;
    load.report.finish(load.last_answer - begin, 0)?;
    Ok(load.report)
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let message = vec![b'm'; options.message];
        let now = Instant::now();
        let mut peers = Vec::with_capacity(options.connections);
        for index in 0..options.connections {
            let stream = open(options)?;
            stream.set_nonblocking(true)?;
            let stream = mio::net::TcpStream::from_std(stream);
            let client = Client::adopt(stream, poll.registry(), Token(index))?;
            peers.push(Peer { client, pending: Vec::new(), waits: false, since: now });
        }
        Ok(Self {
            options,
            frame: client_frame(&message),
            message,
            poll,
            peers,
            buffer: vec![0; BUFFER_BYTES],
            report: Report::new()?,
            last_answer: now,
            end: now,
        })
    }

    /// Sends until the time is over, and ends when everything has come back.
    fn run(&mut self, length: Duration) -> Result<(), Failure> {
        let mut events = Events::with_capacity(1024);
        let now = Instant::now();
        self.last_answer = now;
        self.end = now + length;
        if self.options.broadcast {
            self.speak_to_all(now)?;
        } else {
            for index in 0..self.peers.len() {
                self.speak(index, now)?;
            }
        }
        while self.peers.iter().any(|peer| peer.waits) {
            match self.poll.poll(&mut events, Some(HUNG)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(error.into());
                }
                _ if self.last_answer.elapsed() > HUNG => {
                    return Err(format!("no message came in {HUNG:?}").into());
                }
                _ => {}
            }
            for event in &events {
                if event.is_readable() {
                    self.serve(event.token().0)?;
                }
            }
        }
        Ok(())
    }

    /// Sends one message, which comes back.
    fn speak(&mut self, index: usize, now: Instant) -> Result<(), Failure> {
        let peer = &mut self.peers[index];
        peer.waits = true;
        peer.since = now;
        peer.client.ask(&self.frame)?;
        if peer.client.is_sending() {
            return Err("a socket with nothing in it did not take a message".into());
        }
        Ok(())
    }

    /// Has the first client send one message, which comes to all.
    fn speak_to_all(&mut self, now: Instant) -> Result<(), Failure> {
        for peer in &mut self.peers {
            peer.waits = true;
            peer.since = now;
        }
        self.speak(0, now)
    }

    fn serve(&mut self, index: usize) -> Result<(), Failure> {
        loop {
            let Some(length) = self.peers[index].client.receive(&mut self.buffer)? else {
                return Ok(());
            };
            if length == 0 {
                return Err("a WebSocket was closed".into());
            }
            let peer = &mut self.peers[index];
            peer.pending.extend_from_slice(&self.buffer[..length]);
            while let Some((opcode, frame)) = server_frame(&peer.pending)? {
                // Pings come after 20 s at the earliest, which no run lasts; were one to come, it
                // would cost the server a pong that is not counted.
                if opcode != PING {
                    let payload = &peer.pending[frame.clone()];
                    if opcode != BINARY || payload != self.message || !peer.waits {
                        return Err(format!("expected a message, found {payload:?}").into());
                    }
                    peer.waits = false;
                    self.last_answer = Instant::now();
                    self.report.count(1, peer.since, self.last_answer);
                }
                peer.pending.drain(..frame.end);
            }
            self.go_on(index)?;
            if length < self.buffer.len() {
                return Ok(());
            }
        }
    }

    /// Sends the next message, if all of the last one has come.
    fn go_on(&mut self, index: usize) -> Result<(), Failure> {
        if self.last_answer >= self.end || self.peers[index].waits {
            return Ok(());
        }
        if !self.options.broadcast {
            return self.speak(index, self.last_answer);
        }
        if self.peers.iter().any(|peer| peer.waits) {
            return Ok(());
        }
        self.speak_to_all(self.last_answer)
    }
}

/// Makes a WebSocket. In a broadcast the server's greeting says that the client is counted in.
fn open(options: &Options) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(options.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HUNG))?;
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        options.path, options.address
    );
    stream.write_all(head.as_bytes())?;
    let mut received = Vec::new();
    let end = loop {
        receive_more(&mut stream, &mut received)?;
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    if !received.starts_with(b"HTTP/1.1 101 ") {
        return Err(format!("expected 101, found {:?}", String::from_utf8_lossy(&received)).into());
    }
    received.drain(..end);
    if options.broadcast {
        while server_frame(&received)?.is_none() {
            receive_more(&mut stream, &mut received)?;
        }
    } else if !received.is_empty() {
        return Err(format!("expected nothing behind the handshake, found {received:?}").into());
    }
    Ok(stream)
}

fn receive_more(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<(), Failure> {
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer)?;
    if length == 0 {
        return Err("a WebSocket was closed in its handshake".into());
    }
    received.extend_from_slice(&buffer[..length]);
    Ok(())
}

/// A masked frame with a whole binary message.
fn client_frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | BINARY];
    match (u8::try_from(message.len()), u16::try_from(message.len())) {
        (Ok(length), _) if length < LONG => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | LONG);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | LONGEST);
            frame.extend_from_slice(&(message.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(message.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The opcode of the first frame and where its payload is; none if it has not come as a whole.
fn server_frame(bytes: &[u8]) -> Result<Option<(u8, std::ops::Range<usize>)>, Failure> {
    let [first, second, ..] = *bytes else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 || second > 0x7f {
        return Err(
            format!("expected whole unmasked messages, found {first:#x} {second:#x}").into()
        );
    }
    let (begin, length) = match second {
        LONG | LONGEST => {
            let begin = if second == LONG { 4 } else { 10 };
            let Some(digits) = bytes.get(2..begin) else {
                return Ok(None);
            };
            let length = digits.iter().fold(0, |sum, &digit| (sum << 8) | u64::from(digit));
            (begin, usize::try_from(length)?)
        }
        short => (2, usize::from(short)),
    };
    let end = begin + length;
    Ok((bytes.len() >= end).then_some((first & 0x0f, begin..end)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_when_it_is_whole() {
        for length in [0_usize, 125, 126, 70_000] {
            let mut frame = client_frame(&vec![b'm'; length]);
            // What a server sends has no mask.
            frame[1] &= 0x7f;
            let head = frame.len() - length - MASK.len();
            frame.drain(head..head + MASK.len());
            assert!(server_frame(&frame[..frame.len() - 1]).unwrap().is_none());
            let (opcode, payload) = server_frame(&frame).unwrap().unwrap();
            assert_eq!((opcode, payload), (BINARY, head..head + length));
        }
    }

    #[test]
    fn a_masked_or_cut_message_of_a_server_is_an_error() {
        assert!(server_frame(&client_frame(b"hello")).is_err());
        assert!(server_frame(&[0x02, 0x00]).is_err());
    }
}
