//! The extensions that a client offers (RFC 6455 §9.1), and the choice among them: the one that is
//! known here is permessage-deflate (RFC 7692 §7).

use super::Deflate;
use super::error::HandshakeError;
use crate::http1::{is_token, list};
use std::ops::RangeInclusive;

/// Windows that both sides can be asked for, RFC 7692 §7.1.2.
const WINDOW_BITS: RangeInclusive<u8> = 8..=15;
/// The smallest window that our compressor has: none of the zlib family has a raw stream of less.
const OWN_WINDOW_BITS_MIN: u8 = 9;

/// What both sides have agreed on about compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Each of our messages is compressed on its own.
    pub(super) server_alone: bool,
    /// Each of the client's messages is compressed on its own.
    pub(super) client_alone: bool,
    /// Our compressor's window, where the client limits it.
    pub(super) server_window_bits: Option<u8>,
}

impl Agreed {
    /// The value of the answer's Sec-WebSocket-Extensions. The client's own window is not
    /// limited: our decompressor has the largest one anyway.
    pub(super) fn header(self) -> String {
        let mut value = "permessage-deflate".to_owned();
        if self.server_alone {
            value += "; server_no_context_takeover";
        }
        if self.client_alone {
            value += "; client_no_context_takeover";
        }
        if let Some(bits) = self.server_window_bits {
            value += "; server_max_window_bits=";
            value += &bits.to_string();
        }
        value
    }
}

/// The first offer in these lines of Sec-WebSocket-Extensions that we can take, in the client's
/// order of preference.
pub(super) fn choose<'h>(
    lines: impl Iterator<Item = &'h [u8]>,
    deflate: Deflate,
) -> Result<Option<Agreed>, HandshakeError> {
    let mut chosen = None;
    for offer in lines.flat_map(list).filter(|offer| !offer.is_empty()) {
        let mut parts = offer.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let parameters: Vec<Parameter<'_>> =
            parts.map(Parameter::new).collect::<Option<_>>().ok_or(INVALID)?;
        if !is_token(name) {
            return Err(INVALID);
        }
        if chosen.is_none() && name == b"permessage-deflate" {
            chosen = agree(&parameters, deflate);
        }
    }
    Ok(chosen)
}

const INVALID: HandshakeError = HandshakeError::InvalidExtensions;

/// One `name` or `name=value` of an offer.
#[derive(Clone, Copy, Debug)]
struct Parameter<'h> {
    name: &'h [u8],
    value: Option<&'h [u8]>,
}

impl<'h> Parameter<'h> {
    /// RFC 6455 §9.1: a value is a token, maybe in quotes, so that a comma or semicolon in it is an
    /// error anyway.
    fn new(text: &'h [u8]) -> Option<Self> {
        let equals = text.iter().position(|&byte| byte == b'=');
        let (name, value) = match equals {
            None => (text, None),
            Some(equals) => (text[..equals].trim_ascii(), Some(text[equals + 1..].trim_ascii())),
        };
        let value = value.map(|value| match value {
            [b'"', inner @ .., b'"'] => inner,
            _ => value,
        });
        (is_token(name) && value.is_none_or(is_token)).then_some(Self { name, value })
    }
}

/// What comes of an offer of permessage-deflate. `None`: it is declined, as RFC 7692 §7.1 wants it
/// for parameters that are unknown, invalid or there twice.
fn agree(parameters: &[Parameter<'_>], deflate: Deflate) -> Option<Agreed> {
    let alone = match deflate {
        Deflate::Off => return None,
        Deflate::EachMessage => true,
        Deflate::Context => false,
    };
    let mut agreed = Agreed { server_alone: alone, client_alone: alone, server_window_bits: None };
    for (index, parameter) in parameters.iter().enumerate() {
        if parameters[..index].iter().any(|before| before.name == parameter.name) {
            return None;
        }
        match (parameter.name, parameter.value) {
            (b"server_no_context_takeover", None) => agreed.server_alone = true,
            (b"client_no_context_takeover", None) => agreed.client_alone = true,
            (b"server_max_window_bits", Some(value)) => {
                let bits = window_bits(value)?;
                if bits < OWN_WINDOW_BITS_MIN {
                    return None;
                }
                agreed.server_window_bits = Some(bits);
            }
            // A hint that the client can be limited, which we have no need of.
            (b"client_max_window_bits", None) => (),
            (b"client_max_window_bits", Some(value)) => {
                window_bits(value)?;
            }
            _ => return None,
        }
    }
    Some(agreed)
}

/// RFC 7692 §7.1.2: decimal, without leading zeros.
fn window_bits(digits: &[u8]) -> Option<u8> {
    let digits = str::from_utf8(digits).ok()?;
    if digits.starts_with(['0', '+']) {
        return None;
    }
    digits.parse().ok().filter(|bits| WINDOW_BITS.contains(bits))
}
