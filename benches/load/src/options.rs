//! The command line.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::Failure;

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Http,
    Idle,
    WebSocket,
}

/// How it is asked for.
pub(crate) struct Options {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) connections: usize,
    pub(crate) measured: Duration,
    pub(crate) warm_up: Duration,
    /// The length of a request's body; none is a GET.
    pub(crate) post: Option<usize>,
    /// The length that an answer's body must have.
    pub(crate) expect: usize,
    /// Requests sent at once on a connection.
    pub(crate) pipeline: usize,
    /// Requests per second of the open loop; none is a closed loop.
    pub(crate) rate: Option<f64>,
    /// A connection for each request.
    pub(crate) churn: bool,
    /// The length of a WebSocket message.
    pub(crate) message: usize,
    /// One client speaks, and all are sent what it says.
    pub(crate) broadcast: bool,
}

impl Options {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let kind = match arguments.next().as_deref() {
            Some("http") => Kind::Http,
            Some("idle") => Kind::Idle,
            Some("websocket") => Kind::WebSocket,
            other => {
                return Err(format!("expected http, idle or websocket, found {other:?}").into());
            }
        };
        let address = arguments.next().ok_or("expected an address")?.parse()?;
        let mut options = Self::new(kind, address);
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--path" => options.path = value(&mut arguments, &name)?,
                "--connections" => options.connections = value(&mut arguments, &name)?,
                "--seconds" => options.measured = seconds(&mut arguments, &name)?,
                "--warm-up" => options.warm_up = seconds(&mut arguments, &name)?,
                "--post" => options.post = Some(value(&mut arguments, &name)?),
                "--expect" => options.expect = value(&mut arguments, &name)?,
                "--pipeline" => options.pipeline = value(&mut arguments, &name)?,
                "--rate" => options.rate = Some(value(&mut arguments, &name)?),
                "--churn" => options.churn = true,
                "--message" => options.message = value(&mut arguments, &name)?,
                "--broadcast" => options.broadcast = true,
                _ => return Err(format!("{name} is not understood").into()),
            }
        }
        if options.connections == 0 || options.pipeline == 0 || options.message == 0 {
            return Err("expected at least one connection, request and byte".into());
        }
        Ok(options)
    }

    fn new(kind: Kind, address: SocketAddr) -> Self {
        Self {
            kind,
            address,
            path: "/".to_owned(),
            connections: 64,
            measured: Duration::from_secs(2),
            warm_up: Duration::from_millis(500),
            post: None,
            expect: 13,
            pipeline: 1,
            rate: None,
            churn: false,
            message: 128,
            broadcast: false,
        }
    }
}

fn value<T>(arguments: &mut impl Iterator<Item = String>, name: &str) -> Result<T, Failure>
where
    T: FromStr,
    Failure: From<T::Err>,
{
    Ok(arguments.next().ok_or_else(|| format!("{name} needs a value"))?.parse()?)
}

fn seconds(arguments: &mut impl Iterator<Item = String>, name: &str) -> Result<Duration, Failure> {
    Ok(Duration::try_from_secs_f64(value(arguments, name)?)?)
}
