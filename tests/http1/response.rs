//! A client's view of a response, written without a look at `src/http1`: slow, simple and strict.
//! What it does not understand is a failure of whoever wrote the response.

/// A response as a client reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names as on the wire, values without the white space around them.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Fields behind a chunked body.
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether only the end of the connection tells where the body ends.
    pub until_close: bool,
}

/// Why there is no response.
#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// More bytes must come.
    Incomplete,
    /// No bytes can repair it.
    Broken(&'static str),
}

impl Response {
    /// The values of all lines with this name, which is given in lower case.
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = |(found, _): &&(Vec<u8>, Vec<u8>)| found.eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(named).map(|(_, value)| &value[..]).collect()
    }
}

/// Reads one response from the front of `wire`; returns what follows it, too.
pub fn read(wire: &[u8], to_head: bool) -> Result<(Response, &[u8]), Unreadable> {
    let (status_line, rest) = line(wire)?;
    let status = status(status_line).ok_or(Unreadable::Broken("the status line"))?;
    let (headers, mut rest) = fields(rest)?;
    let (body, trailers) = (Vec::new(), Vec::new());
    let mut response = Response { status, headers, body, trailers, until_close: false };
    let (lengths, codings) =
        (response.values("content-length"), response.values("transfer-encoding"));
    if !lengths.is_empty() && !codings.is_empty() || lengths.len() > 1 || codings.len() > 1 {
        return Err(Unreadable::Broken("more than one framing"));
    }
    if to_head || status / 100 == 1 || status == 204 || status == 304 {
        return Ok((response, rest));
    }
    if let [coding] = codings[..] {
        if coding != b"chunked" {
            return Err(Unreadable::Broken("a transfer coding"));
        }
        (response.body, rest) = chunks(rest)?;
        (response.trailers, rest) = fields(rest)?;
    } else if let [length] = lengths[..] {
        let length = number(length, 10).ok_or(Unreadable::Broken("the content-length"))?;
        let (body, after) = rest.split_at_checked(length).ok_or(Unreadable::Incomplete)?;
        (response.body, rest) = (body.to_vec(), after);
    } else {
        (response.body, response.until_close, rest) = (rest.to_vec(), true, b"");
    }
    Ok((response, rest))
}

/// The first line without its end, and what follows.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Unreadable> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n").ok_or(Unreadable::Incomplete)?;
    if bytes[..end].iter().any(|byte| b"\r\n\0".contains(byte)) {
        return Err(Unreadable::Broken("a bare line end or NUL"));
    }
    Ok((&bytes[..end], &bytes[end + 2..]))
}

/// Lines up to an empty one, and what follows that.
#[allow(clippy::type_complexity, reason = "names and values")]
fn fields(mut rest: &[u8]) -> Result<(Vec<(Vec<u8>, Vec<u8>)>, &[u8]), Unreadable> {
    let mut fields = Vec::new();
    loop {
        let (field, after) = line(rest)?;
        rest = after;
        if field.is_empty() {
            return Ok((fields, rest));
        }
        fields.push(header(field).ok_or(Unreadable::Broken("a header line"))?);
    }
}

/// `HTTP/1.1 SP 3DIGIT SP reason`
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ")?;
    let (digits, reason) = rest.split_at_checked(3)?;
    let status = number(digits, 10).filter(|status| *status >= 100)?;
    (reason.first() == Some(&b' ')).then_some(u16::try_from(status).ok()?)
}

fn header(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let token = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    (!name.is_empty() && name.iter().all(token)).then(|| (name.to_vec(), trim(value).to_vec()))
}

/// Without the spaces and tabs around it.
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The data of all chunks, and what follows the line of the last one.
fn chunks(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Unreadable> {
    let mut body = Vec::new();
    loop {
        let (size, after) = line(rest)?;
        let size = number(size, 16).ok_or(Unreadable::Broken("a chunk size"))?;
        if size == 0 {
            return Ok((body, after));
        }
        let (data, after) = after.split_at_checked(size).ok_or(Unreadable::Incomplete)?;
        let (end, after) = after.split_at_checked(2).ok_or(Unreadable::Incomplete)?;
        if end != b"\r\n" {
            return Err(Unreadable::Broken("the end of a chunk"));
        }
        body.extend_from_slice(data);
        rest = after;
    }
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    usize::from_str_radix(str::from_utf8(digits).ok().filter(|_| plain)?, radix).ok()
}
