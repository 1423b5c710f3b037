//! Close codes, and the payload of a close frame (RFC 6455 §5.5.1, §7.4).

use super::error::{ProtocolError, SendError};
use super::frame::CONTROL_BYTES_MAX;

/// The close codes that have a name here, RFC 6455 §7.4.1 and the IANA registry.
pub mod code {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The endpoint goes away: a page was left, a server goes down.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Never on the wire: the peer's close frame had no code.
    pub const NO_STATUS: u16 = 1005;
    /// Never on the wire: the connection ended without a close frame.
    pub const ABNORMAL: u16 = 1006;
    /// Data that is not what its type says.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// A message longer than the endpoint takes.
    pub const TOO_LONG: u16 = 1009;
    /// The server failed.
    pub const INTERNAL_ERROR: u16 = 1011;
    /// The server restarts; the client may come again.
    pub const SERVICE_RESTART: u16 = 1012;
}

/// Whether `code` may stand in a close frame: those that are defined for it (1004 to 1006 and 1015
/// are not), and the ranges for libraries and applications.
fn is_for_the_wire(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// What a peer says with its close frame. Without a code it is [`code::NO_STATUS`].
pub(super) fn read(payload: &[u8]) -> Result<(u16, String), ProtocolError> {
    let (code, reason) = match payload {
        [] => return Ok((code::NO_STATUS, String::new())),
        [_] => return Err(ProtocolError::InvalidClose),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !is_for_the_wire(code) {
        return Err(ProtocolError::InvalidClose);
    }
    let reason = str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
    Ok((code, reason.to_owned()))
}

/// Whether a close frame with `code` and `reason` can be sent.
pub(super) fn check(code: u16, reason: &str) -> Result<(), SendError> {
    if !is_for_the_wire(code) {
        return Err(SendError::InvalidCode(code));
    }
    if reason.len() > CONTROL_BYTES_MAX - 2 {
        return Err(SendError::TooLong(reason.len()));
    }
    Ok(())
}
