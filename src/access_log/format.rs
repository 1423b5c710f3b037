//! A format, compiled once: text between atoms, or JSON with the atoms as keys.
//!
//! The text is Python's %-format with names, which Granian has: `%(atom)s`, `%(dt_ms).3f`, `%%`.
//! The names `default`, `common` and `combined` stand for formats.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::Record;
use super::atoms::{ATOMS, Atom, Value};
use super::clock::{Clock, Style};
use super::escape;

const DEFAULT: &str =
    r#"[%(time)s] %(addr)s "%(method)s %(path)s %(protocol)s" %(status)d %(dt_ms).3f"#;
/// The journal has a time of its own.
const JOURNAL: &str = r#"%(addr)s "%(method)s %(path)s %(protocol)s" %(status)d %(dt_ms).3f"#;
const COMMON: &str = r#"%(addr)s - - [%(time_clf)s] "%(request_line)s" %(status)d %(body_bytes)d"#;
const COMBINED: &str = r#"%(addr)s - - [%(time_clf)s] "%(request_line)s" %(status)d %(body_bytes)d "%(referer)s" "%(user_agent)s""#;
const JSON: &str = "%(time_utc)s %(addr)s %(method)s %(target)s %(protocol)s %(status)s %(dt_ms)s \
                    %(body_bytes)s %(referer)s %(user_agent)s %(request_id)s";

/// Why a format cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum FormatError {
    /// An atom that there is not.
    UnknownAtom {
        /// The format.
        format: String,
        /// The name.
        atom: String,
    },
    /// A conversion that does not fit its atom, or a `%` that begins none.
    Unusable {
        /// The format.
        format: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAtom { format, atom } => {
                let atoms: Vec<_> = ATOMS.iter().map(|(name, _)| *name).collect();
                write!(
                    f,
                    "--access-log-fmt {format:?} has the unknown atom %({atom})s\n\nhint: the \
                     atoms are {}; the names default, common and combined stand for formats",
                    atoms.join(", ")
                )
            }
            Self::Unusable { format, reason } => write!(
                f,
                "--access-log-fmt {format:?} cannot be used: {reason}\n\nhint: %(status)d and \
                 %(dt_ms).3f are numbers, every other atom is %(...)s; a percent sign is %%"
            ),
        }
    }
}

impl std::error::Error for FormatError {}

/// What a record has to have for a format; the rest is not collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// When the answer's first byte was given to the kernel.
    pub(crate) first_byte: bool,
    /// The head of the response.
    pub(crate) response: bool,
    /// The headers of the request.
    pub(crate) headers: bool,
}

/// `%-10.3f`, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Conversion {
    left: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
    kind: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Atom { name: String, atom: Atom, conversion: Conversion },
}

#[derive(Clone, Debug)]
enum Shape {
    Text(Vec<Piece>),
    /// Atoms, each with its key and what stands before its value.
    Json(Vec<(Vec<u8>, Atom)>),
}

/// A compiled format.
#[derive(Clone, Debug)]
pub struct Format {
    shape: Shape,
    /// What each line begins with.
    prefix: &'static str,
    /// The header that the id of a request is in.
    id_header: Option<Atom>,
    /// The first half of the ids that are made: of this process alone.
    id_seed: u64,
}

/// Widths and precisions are in bytes of a line; more is a mistake.
const WIDTH_MAX: usize = 999;

impl Format {
    /// Compile a %-format, the name of one, or the default. With `json` a line is an object with
    /// the atoms that the format names as its keys. With `journal` lines are for systemd's journal:
    /// they begin with its priority (sd-daemon(3)), and the default has no time.
    ///
    /// # Errors
    ///
    /// An atom that there is not, or a conversion that does not fit it.
    pub fn compile(format: Option<&str>, json: bool, journal: bool) -> Result<Self, FormatError> {
        let format = match format {
            None if json => JSON,
            None if journal => JOURNAL,
            None | Some("default") => DEFAULT,
            Some("common") => COMMON,
            Some("combined") => COMBINED,
            Some(format) => format,
        };
        let pieces = parse(format)?;
        Ok(Self {
            shape: if json { Shape::Json(keys(pieces)) } else { Shape::Text(pieces) },
            prefix: if journal { "<6>" } else { "" },
            id_header: None,
            id_seed: RandomState::new().hash_one(std::process::id()),
        })
    }

    /// Take the id of a request from this header.
    #[must_use]
    pub fn with_request_id_header(mut self, name: Option<&str>) -> Self {
        self.id_header = name.map(|name| Atom::Header(name.to_ascii_lowercase().as_bytes().into()));
        self
    }

    /// Begin lines without the journal's priority.
    #[must_use]
    pub fn without_priority(mut self) -> Self {
        self.prefix = "";
        self
    }

    pub(crate) fn wants(&self) -> Wants {
        let atoms: Vec<&Atom> = match &self.shape {
            Shape::Json(keys) => keys.iter().map(|(_, atom)| atom).collect(),
            Shape::Text(pieces) => pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Atom { atom, .. } => Some(atom),
                    Piece::Text(_) => None,
                })
                .collect(),
        };
        Wants {
            first_byte: atoms.contains(&&Atom::FirstByte),
            response: atoms.iter().any(|atom| matches!(atom, Atom::ResponseHeader(_))),
            headers: atoms.iter().any(|atom| matches!(atom, Atom::Header(_) | Atom::RequestId)),
        }
    }

    /// Append the line of `record`, with its line feed.
    pub(super) fn write(&self, record: &Record, clock: &mut Clock, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        match &self.shape {
            Shape::Text(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Piece::Atom { atom, conversion, .. } => {
                            conversion.write(self.value(atom, record), clock, out);
                        }
                    }
                }
            }
            Shape::Json(keys) => {
                out.push(b'{');
                for (key, atom) in keys {
                    out.extend_from_slice(key);
                    write_json(self.value(atom, record), clock, out);
                }
                out.push(b'}');
            }
        }
        out.push(b'\n');
    }

    fn value<'r>(&self, atom: &Atom, record: &'r Record) -> Value<'r> {
        if let (Atom::RequestId, Some(header)) = (atom, &self.id_header) {
            return header.value(record, |_| String::new());
        }
        atom.value(record, |record| format!("{:016x}{:016x}", self.id_seed, record.serial))
    }
}

/// Text and atoms of a %-format.
fn parse(format: &str) -> Result<Vec<Piece>, FormatError> {
    let unusable = |reason: String| FormatError::Unusable { format: format.to_owned(), reason };
    if format.contains(['\n', '\r']) {
        return Err(unusable("a line feed would make two lines of one".to_owned()));
    }
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let atom = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        let Some((name, after)) = atom else {
            return Err(unusable("a % without an atom".to_owned()));
        };
        let Some(atom) = Atom::named(name) else {
            let (format, atom) = (format.to_owned(), name.to_owned());
            return Err(FormatError::UnknownAtom { format, atom });
        };
        let (conversion, after) = Conversion::parse(after, &atom)
            .map_err(|reason| unusable(format!("%({name}) {reason}")))?;
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Atom { name: name.to_owned(), atom, conversion });
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// Each atom once, in order, as a member of an object.
fn keys(pieces: Vec<Piece>) -> Vec<(Vec<u8>, Atom)> {
    let mut named = HashSet::new();
    let mut members = Vec::new();
    for piece in pieces {
        if let Piece::Atom { name, atom, .. } = piece
            && named.insert(name.clone())
        {
            let mut key = if members.is_empty() { b"\"".to_vec() } else { b",\"".to_vec() };
            escape::json(name.as_bytes(), &mut key);
            key.extend_from_slice(b"\":");
            members.push((key, atom));
        }
    }
    members
}

impl Conversion {
    /// Take the conversion of `atom` from the front of `format`; what is left comes back.
    fn parse<'f>(format: &'f str, atom: &Atom) -> Result<(Self, &'f str), String> {
        let digits = |text: &'f str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text.split_at(end)
        };
        let number = |digits: &str| match digits.parse().unwrap_or(usize::MAX) {
            _ if digits.is_empty() => Ok(0),
            number if number <= WIDTH_MAX => Ok(number),
            _ => Err(format!("has a width of more than {WIDTH_MAX}")),
        };
        let mut conversion = Self::default();
        let mut rest = format;
        while let Some(flag) = rest.chars().next().filter(|flag| matches!(flag, '-' | '0')) {
            conversion.left |= flag == '-';
            conversion.zeros |= flag == '0';
            rest = &rest[1..];
        }
        let (width, after) = digits(rest);
        conversion.width = number(width)?;
        rest = after;
        if let Some(after) = rest.strip_prefix('.') {
            let (precision, after) = digits(after);
            conversion.precision = Some(number(precision)?);
            rest = after;
        }
        let kind = rest.chars().next().ok_or("has no conversion")?;
        match kind {
            's' => {}
            'd' | 'f' if atom.is_number() => {}
            'd' | 'f' => return Err(format!("is no number, and %{kind} is for numbers")),
            _ => return Err(format!("has the conversion {kind:?}; there are s, d and f")),
        }
        conversion.kind = kind as u8;
        conversion.zeros &= kind != 's' && !conversion.left;
        Ok((conversion, &rest[1..]))
    }

    fn write(self, value: Value<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
        let start = out.len();
        match value {
            Value::Missing => out.push(b'-'),
            Value::Bytes(bytes) => escape::text(&bytes, out),
            Value::Ip(ip) => write_ip(ip, out),
            Value::Time(moment, style) => clock.write(moment, style, out),
            Value::Integer(number) if self.kind == b'f' => {
                let zeros = self.precision.unwrap_or(6);
                let point = if zeros > 0 { "." } else { "" };
                write!(out, "{number}{point}{:0>zeros$}", "").expect(GROWS);
            }
            Value::Integer(number) => write_decimal(number, out),
            Value::Milliseconds(time) => match self.kind {
                b'd' => write!(out, "{}", time.as_millis()).expect(GROWS),
                b'f' if self.precision == Some(3) => {
                    let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                    write_decimal(microseconds / 1000, out);
                    // With three digits, whatever they are.
                    let point = out.len();
                    write_decimal(1000 + microseconds % 1000, out);
                    out[point] = b'.';
                }
                b'f' => {
                    let precision = self.precision.unwrap_or(6);
                    write!(out, "{:.precision$}", milliseconds(time)).expect(GROWS);
                }
                _ => write!(out, "{:?}", milliseconds(time)).expect(GROWS),
            },
        }
        if self.width > 0 || (self.kind == b's' && self.precision.is_some()) {
            self.pad(start, out);
        }
    }

    /// Cut what was written since `start` to the precision, and fill it up to the width.
    fn pad(self, start: usize, out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(&out[start..]).into_owned();
        out.truncate(start);
        let length = match (self.kind, self.precision) {
            (b's', Some(precision)) => precision,
            _ => usize::MAX,
        };
        let kept: String = text.chars().take(length).collect();
        let missing = self.width.saturating_sub(kept.chars().count());
        let fill = if self.zeros { b'0' } else { b' ' };
        if !self.left {
            out.extend(std::iter::repeat_n(fill, missing));
        }
        out.extend_from_slice(kept.as_bytes());
        if self.left {
            out.extend(std::iter::repeat_n(fill, missing));
        }
    }
}

const GROWS: &str = "a vector takes everything";

/// With the microseconds as decimals: what is finer is noise. Rounded once, by the division, so that
/// no digits follow these.
#[allow(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(ip) = ip else { return write!(out, "{ip}").expect(GROWS) };
    for (index, octet) in ip.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        write_decimal(octet.into(), out);
    }
}

/// Without the standard library's formatting, which costs ten times as much.
fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[start..]);
        }
    }
}

fn write_json(value: Value<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
    match value {
        Value::Missing => out.extend_from_slice(b"null"),
        Value::Integer(number) => write_decimal(number, out),
        Value::Milliseconds(time) => write!(out, "{:?}", milliseconds(time)).expect(GROWS),
        Value::Time(moment, Style::Epoch) => clock.write(moment, Style::Epoch, out),
        Value::Time(moment, style) => {
            out.push(b'"');
            clock.write(moment, style, out);
            out.push(b'"');
        }
        Value::Ip(ip) => {
            out.push(b'"');
            write_ip(ip, out);
            out.push(b'"');
        }
        Value::Bytes(bytes) => {
            out.push(b'"');
            escape::json(&bytes, out);
            out.push(b'"');
        }
    }
}
