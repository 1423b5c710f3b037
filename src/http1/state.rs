//! Every legal transition of a connection, in one table. No other file changes a [`State`]: what
//! is not in [`State::after`] cannot happen, so that writers may assume that what they write is
//! legal where it is written.
//!
//! The request goes Idle -> Body -> Ended, the response Idle -> Pending -> Body -> Ended; a
//! request that has no body has an empty one. Both end before the next cycle begins.

/// Where the request of this cycle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing of it was seen as an event.
    Idle,
    /// The head was returned, the end was not.
    Body,
    /// All of it was returned.
    Ended,
    /// The client broke the protocol: nothing more can be read on this connection.
    Failed,
}

/// Where the response of this cycle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// The application has not started it.
    Idle,
    /// Started; no byte of it was given out.
    Pending,
    /// The head was given out, the end was not.
    Body,
    /// All of it was given out.
    Ended,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    RequestHead,
    RequestEnd,
    /// The client broke the protocol.
    RequestFail,
    ResponseStart,
    ResponseDiscard,
    ResponseHead,
    ResponseEnd,
    /// A whole response of ours, in place of the application's.
    ResponseError,
    /// `101 Switching Protocols`: the last response of HTTP on this connection.
    ResponseSwitch,
    NextCycle,
}

/// Both directions of one cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) request: Request,
    pub(super) response: Response,
}

impl State {
    pub(super) const START: Self = Self { request: Request::Idle, response: Response::Idle };

    /// The state after `step`, or `None` where that step is illegal.
    #[allow(clippy::match_same_arms, reason = "a table has a row for each step")]
    pub(super) fn after(self, step: Step) -> Option<Self> {
        use Request as Q;
        use Response as R;
        use Step as S;
        let Self { request, response } = self;
        let (request, response) = match (step, request, response) {
            (S::RequestHead, Q::Idle, R::Idle) => (Q::Body, R::Idle),
            (S::RequestEnd, Q::Body, _) => (Q::Ended, response),
            (S::RequestFail, Q::Idle | Q::Body, _) => (Q::Failed, response),

            (S::ResponseStart, Q::Body | Q::Ended, R::Idle) => (request, R::Pending),
            (S::ResponseDiscard, _, R::Pending) => (request, R::Idle),
            (S::ResponseHead, _, R::Pending) => (request, R::Body),
            (S::ResponseEnd, _, R::Body) => (request, R::Ended),
            // Before any request too: a head that cannot be understood, a client that is too slow.
            (S::ResponseError, _, R::Idle | R::Pending) => (request, R::Ended),
            // Only behind a whole request: what follows it in the input is the other protocol's.
            (S::ResponseSwitch, Q::Ended, R::Idle) => (Q::Ended, R::Ended),

            (S::NextCycle, Q::Ended, R::Ended) => (Q::Idle, R::Idle),
            _ => return None,
        };
        Some(Self { request, response })
    }
}
