//! A connection to the server: bytes out as the socket takes them, bytes in as they come.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::Failure;

/// A connection that asks the same again and again.
pub(crate) struct Client {
    stream: TcpStream,
    /// How much of the bytes to be sent is sent; none if nothing is.
    sent: Option<usize>,
}

impl Client {
    /// Begins to connect; events will have this token.
    pub(crate) fn connect(
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, Failure> {
        Self::adopt(TcpStream::connect(address)?, registry, token)
    }

    /// Takes over a connected stream.
    pub(crate) fn adopt(
        mut stream: TcpStream,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, Failure> {
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, sent: None })
    }

    /// Begins to send `bytes`, which must be the same until all is sent.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.sent = Some(0);
        self.go_on(bytes)
    }

    /// Sends what the socket takes.
    pub(crate) fn go_on(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        while let Some(sent) = self.sent {
            match self.stream.write(&bytes[sent..]) {
                Ok(written) if sent + written == bytes.len() => self.sent = None,
                Ok(written) => self.sent = Some(sent + written),
                Err(error) if is_early(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the last request is not sent as a whole.
    pub(crate) fn is_sending(&self) -> bool {
        self.sent.is_some()
    }

    /// What has come: some bytes, none at the end of the stream, or nothing yet.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Failure> {
        loop {
            match self.stream.read(buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether the socket takes nothing now, or is not connected yet.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}
