//! How long a body is. Requests: RFC 9112 §6.3, in its order. Responses: what we write ourselves.

use super::error::ProtocolError;
use super::request::{BodyLength, Version};
use super::syntax::{decimal, list};

/// The header fields that decide where a request ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FramingFields<'a> {
    pub(super) content_length: Option<&'a [u8]>,
    pub(super) content_length_count: usize,
    pub(super) transfer_encoding_count: usize,
}

/// How long a request's body is. `transfer_encodings`: the values of these lines, in order.
///
/// §6.3 has eight paragraphs; 1, 2 and 8 are about responses only.
pub(super) fn request_length<'a>(
    version: Version,
    fields: FramingFields<'_>,
    transfer_encodings: impl Iterator<Item = &'a [u8]>,
) -> Result<BodyLength, ProtocolError> {
    if fields.transfer_encoding_count > 0 {
        // §6.1: in HTTP/1.0 the framing is faulty, even with a Content-Length.
        if version == Version::Http10 {
            return Err(ProtocolError::TransferEncodingInHttp10);
        }
        // §6.3 paragraph 3: we may refuse both, and an honest client never sends both.
        if fields.content_length_count > 0 {
            return Err(ProtocolError::TransferEncodingAndLength);
        }
        // §6.3 paragraph 4.
        return chunked_only(transfer_encodings).map(|()| BodyLength::Chunked);
    }
    match (fields.content_length_count, fields.content_length) {
        // §6.3 paragraph 7.
        (0, _) | (_, None) => Ok(BodyLength::None),
        // §6.3 paragraphs 5 and 6. The number of one line has no comma: a list of equal numbers is
        // refused, which paragraph 5 allows.
        (1, Some(digits)) => {
            decimal(digits).map(BodyLength::Length).ok_or(ProtocolError::InvalidContentLength)
        }
        // §6.3 paragraph 5.
        (_, Some(_)) => Err(ProtocolError::DuplicateContentLength),
    }
}

/// The one coding that we decode is `chunked`: last and once. What is applied before it would
/// have to be understood (§6.1: 501); without it at the end nobody knows where the body ends (400).
fn chunked_only<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<(), ProtocolError> {
    let mut codings = 0;
    let mut chunked = 0;
    let mut last_is_chunked = false;
    for coding in values.flat_map(list) {
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        codings += 1;
        chunked += usize::from(last_is_chunked);
        if coding.is_empty() {
            return Err(ProtocolError::ChunkedNotFinal);
        }
    }
    match (last_is_chunked, chunked, codings) {
        (true, 1, 1) => Ok(()),
        (true, 1, _) => Err(ProtocolError::UnknownTransferCoding),
        _ => Err(ProtocolError::ChunkedNotFinal),
    }
}

/// What the next bytes of a request's body are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyPart<'a> {
    Data(&'a [u8]),
    End,
    NeedMore,
}

/// The next part of a body that has `remaining` bytes and no transfer coding.
pub(super) fn next_of_length<'a>(remaining: &mut u64, input: &mut &'a [u8]) -> BodyPart<'a> {
    match (*remaining, input.is_empty()) {
        (0, _) => BodyPart::End,
        (_, true) => BodyPart::NeedMore,
        (_, false) => BodyPart::Data(take(remaining, input)),
    }
}

/// Consumes at most `remaining` bytes from the front of `input`, and counts them.
pub(super) fn take<'a>(remaining: &mut u64, input: &mut &'a [u8]) -> &'a [u8] {
    // More than fits in memory is more than there is of input.
    let wanted = usize::try_from(*remaining).unwrap_or(usize::MAX);
    let (data, rest) = input.split_at(wanted.min(input.len()));
    *input = rest;
    *remaining -= data.len() as u64;
    data
}

/// How a response's body is put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFraming {
    /// No body, whatever the application sends: the answer to HEAD, 204, 205, 304 (RFC 9112 §6.3
    /// paragraph 1, RFC 9110 §15.3.6). The number is for the Content-Length field.
    Bodiless(Option<u64>),
    /// That many bytes.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Everything until the connection closes (RFC 9112 §6.3 paragraph 8).
    UntilClose,
}

/// What a response's framing depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseShape {
    pub(super) status: u16,
    pub(super) to_head: bool,
    pub(super) version: Version,
    /// The application's Content-Length.
    pub(super) declared: Option<u64>,
    /// The length of the first body message, and whether it is the only one.
    pub(super) first: u64,
    pub(super) is_whole: bool,
}

/// How a response with `shape` is framed.
pub(super) fn response_framing(shape: ResponseShape) -> ResponseFraming {
    // RFC 9110 §8.6: no Content-Length in 204, and in 304 only that of the representation, which
    // only the application can know.
    if shape.status == 204 {
        return ResponseFraming::Bodiless(None);
    }
    // RFC 9110 §15.3.6: no content, and framed like any other response, so that it must say so.
    if shape.status == 205 {
        return ResponseFraming::Bodiless(Some(0));
    }
    if shape.status == 304 {
        return ResponseFraming::Bodiless(shape.declared);
    }
    if shape.to_head {
        // An application that sends no body for HEAD says nothing about the length for GET.
        let sent = (shape.is_whole && shape.first > 0).then_some(shape.first);
        return ResponseFraming::Bodiless(shape.declared.or(sent));
    }
    match (shape.declared, shape.version) {
        (Some(declared), _) => ResponseFraming::Length(declared),
        (None, _) if shape.is_whole => ResponseFraming::Length(shape.first),
        (None, Version::Http11) => ResponseFraming::Chunked,
        (None, Version::Http10) => ResponseFraming::UntilClose,
    }
}
