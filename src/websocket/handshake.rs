//! The opening handshake (RFC 6455 §4.2): what a request asks for, and the headers of the answer.

use super::Deflate;
use super::error::{AcceptError, HandshakeError};
use super::extensions::{Agreed, choose};
use crate::http1::{BodyLength, RequestHead, is_token, list};
use base64::alphabet::STANDARD;
use base64::engine::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, PAD};

/// What the accept key is made with, RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// 16 bytes leave four bits of the last digit without meaning; not every client clears them.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// Headers of the answer that are not the application's: those of the handshake, and those of a
/// body, which a 101 never has (RFC 9110 §8.6).
const RESERVED: [&str; 4] = ["upgrade", "connection", "content-length", "transfer-encoding"];
const RESERVED_PREFIX: &str = "sec-websocket-";

/// Whether a request asks for the WebSocket protocol: `GET`, HTTP/1.1, and an upgrade to it
/// (RFC 6455 §4.2.1, items 1 to 4). Any other is plain HTTP, whatever it upgrades to
/// (RFC 9110 §7.8).
#[must_use]
pub fn is_handshake(head: &RequestHead) -> bool {
    head.is_upgrade()
        && head.method() == "GET"
        && values(head, b"upgrade")
            .flat_map(list)
            .any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// What a valid handshake offers, and half of the answer to it.
#[derive(Debug)]
pub(super) struct Offer {
    /// The value of Sec-WebSocket-Accept.
    accept: String,
    pub(super) subprotocols: Vec<String>,
    /// The compression that both sides can do.
    pub(super) deflate: Option<Agreed>,
}

impl Offer {
    /// Judges a request, which [`is_handshake`].
    pub(super) fn new(head: &RequestHead, deflate: Deflate) -> Result<Self, HandshakeError> {
        if only_value(head, b"sec-websocket-version") != Some(b"13") {
            return Err(HandshakeError::UnsupportedVersion);
        }
        if !matches!(head.body_length(), BodyLength::None | BodyLength::Length(0)) {
            return Err(HandshakeError::HasBody);
        }
        let key = only_value(head, b"sec-websocket-key").ok_or(HandshakeError::InvalidKey)?;
        if BASE64.decode(key).map(|nonce| nonce.len()) != Ok(16) {
            return Err(HandshakeError::InvalidKey);
        }
        Ok(Self {
            accept: accept_key(key),
            subprotocols: subprotocols(head)?,
            deflate: choose(values(head, b"sec-websocket-extensions"), deflate)?,
        })
    }

    /// Calls `write` with the headers of the answer, the application's `headers` after ours.
    pub(super) fn answer<'h, R>(
        &self,
        subprotocol: Option<&str>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        write: impl FnOnce(&[(&[u8], &[u8])]) -> R,
    ) -> Result<R, AcceptError> {
        let extension = self.deflate.map(Agreed::header);
        let mut all: Vec<(&[u8], &[u8])> =
            vec![(b"upgrade", b"websocket"), (b"sec-websocket-accept", self.accept.as_bytes())];
        if let Some(chosen) = subprotocol {
            if !self.subprotocols.iter().any(|offered| offered == chosen) {
                return Err(AcceptError::NotOffered(chosen.to_owned()));
            }
            all.push((b"sec-websocket-protocol", chosen.as_bytes()));
        }
        if let Some(extension) = &extension {
            all.push((b"sec-websocket-extensions", extension.as_bytes()));
        }
        for (name, value) in headers {
            if is_reserved(name) {
                return Err(AcceptError::ReservedHeader(name.escape_ascii().to_string()));
            }
            all.push((name, value));
        }
        Ok(write(&all))
    }
}

/// The answer to a key, RFC 6455 §4.2.2.
fn accept_key(key: &[u8]) -> String {
    let mut hash = sha1_smol::Sha1::from(key);
    hash.update(GUID);
    BASE64.encode(hash.digest().bytes())
}

fn subprotocols(head: &RequestHead) -> Result<Vec<String>, HandshakeError> {
    values(head, b"sec-websocket-protocol")
        .flat_map(list)
        .filter(|name| !name.is_empty())
        .map(|name| match str::from_utf8(name) {
            Ok(text) if is_token(name) => Ok(text.to_owned()),
            _ => Err(HandshakeError::InvalidSubprotocols),
        })
        .collect()
}

fn is_reserved(name: &[u8]) -> bool {
    let is = |reserved: &str| name.eq_ignore_ascii_case(reserved.as_bytes());
    let prefix = name.get(..RESERVED_PREFIX.len());
    RESERVED.into_iter().any(is)
        || prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(RESERVED_PREFIX.as_bytes()))
}

/// The values of all lines with this name, which is given in lower case.
fn values<'h>(head: &'h RequestHead, name: &'h [u8]) -> impl Iterator<Item = &'h [u8]> {
    head.headers().filter(move |(found, _)| *found == name).map(|(_, value)| value)
}

/// The value of the line with this name, if there is exactly one.
fn only_value<'h>(head: &'h RequestHead, name: &'h [u8]) -> Option<&'h [u8]> {
    let mut values = values(head, name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}
