//! Every legal transition of a connection, in one table. No other file decides about a [`State`]:
//! what is not in [`State::after`] cannot happen, so that writers may assume that what they write
//! is legal where it is written.

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The request was read, and not answered.
    Connecting,
    /// Messages go both ways.
    Open,
    /// We have sent a close frame, and the peer has not: its messages are dropped.
    Closing,
    /// Nothing more is sent, and what comes is ignored.
    Closed,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The application takes the connection.
    Accept,
    /// The application answers the request by plain HTTP.
    Reject,
    /// We send a message or a ping.
    Send,
    /// We send a close frame first.
    SendClose,
    /// The peer sends its close frame: we answer it at once, or it is the answer to ours.
    ReceiveClose,
    /// The peer broke the protocol: we say so, and expect no answer (RFC 6455 §7.1.7).
    Fail,
}

impl State {
    /// The state after `step`, or `None` where that step is illegal.
    pub(super) fn after(self, step: Step) -> Option<Self> {
        match (step, self) {
            (Step::Accept, Self::Connecting) | (Step::Send, Self::Open) => Some(Self::Open),
            (Step::SendClose, Self::Open) => Some(Self::Closing),
            (Step::Reject, Self::Connecting)
            | (Step::ReceiveClose | Step::Fail, Self::Open | Self::Closing) => Some(Self::Closed),
            _ => None,
        }
    }
}
