//! The four forms of a request target, RFC 9112 §3.2: where its path, query and authority are.
//!
//! Percent-encoding is left alone, and so are visible characters that a URI should not have
//! (browsers send `|` and `{`): they change nothing about where a message ends.

use super::error::ProtocolError;
use super::words::special_position;
use std::ops::Range;

/// Where the parts of a target are, as offsets into it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Empty where an absolute-form has none, which means `/`.
    pub(super) path: Range<usize>,
    /// Without the question mark.
    pub(super) query: Range<usize>,
    /// Host and port of an absolute-form.
    pub(super) authority: Option<Range<usize>>,
}

/// Finds the parts of `target`, which is not empty and contains no space (httparse).
pub(super) fn split(method: &str, target: &[u8]) -> Result<Target, ProtocolError> {
    if method == "CONNECT" {
        return Err(ProtocolError::ConnectMethod);
    }
    let question = question_position(target)?;
    let query = (question + 1).min(target.len())..target.len();
    match target[0] {
        b'/' => Ok(Target { path: 0..question, query, authority: None }),
        b'*' if target.len() == 1 && method == "OPTIONS" => {
            Ok(Target { path: 0..1, query, authority: None })
        }
        b'*' if target.len() == 1 => Err(ProtocolError::AsteriskWithoutOptions),
        _ => {
            let authority = authority(&target[..question])?;
            Ok(Target { path: authority.end..question, query, authority: Some(authority) })
        }
    }
}

/// Where the query's question mark is, or the end of `target`. A further one is a part of the query.
fn question_position(target: &[u8]) -> Result<usize, ProtocolError> {
    let mut question = target.len();
    let mut seen = 0;
    while let Some(position) = special_position(&target[seen..]) {
        let position = seen + position;
        match target[position] {
            b'?' => question = question.min(position),
            b'#' => return Err(ProtocolError::FragmentInTarget),
            _ => return Err(ProtocolError::InvalidTarget),
        }
        seen = position + 1;
    }
    Ok(question)
}

/// Where the authority of an absolute-form is; `target` ends before the query.
fn authority(target: &[u8]) -> Result<Range<usize>, ProtocolError> {
    let colon = target.iter().position(|&byte| byte == b':').ok_or(ProtocolError::InvalidTarget)?;
    let (scheme, rest) = target.split_at(colon);
    if !rest.starts_with(b"://") {
        return Err(ProtocolError::InvalidTarget);
    }
    let start = colon + 3;
    let length = target[start..].iter().position(|&byte| byte == b'/');
    let end = length.map_or(target.len(), |length| start + length);
    let known = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    // An http URI has a host that is not empty, RFC 9110 §4.2.1.
    let host = &target[start..end];
    if !known || host.is_empty() || !super::syntax::is_host(host) {
        return Err(ProtocolError::InvalidAbsoluteTarget);
    }
    Ok(start..end)
}
