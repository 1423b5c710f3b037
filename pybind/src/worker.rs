//! The worker: one ring, one event loop, one application.
//!
//! Rust holds the server; Python (`granian_uring/worker.py`) makes the loop and decides when to
//! start and to stop. [`Worker::dispatch`] is the one permanent callback through which the
//! application is reached.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use granian_uring::proactor::runtime::Runtime;
use granian_uring::server::{Event, Left, Request, RequestId, Server};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use pyo3::{PyTraverseError, PyVisit};

use crate::access_log::{AccessLines, AccessLog};
use crate::asgi::AsgiExchange;
use crate::awaitable::{News, Pending, Wanted};
use crate::config::WorkerOptions;
use crate::errors::{asgi_refusal, is_wish, operator_error, rsgi_refusal};
use crate::exchange::{Exchange, Stage};
use crate::guest::{self, Guest};
use crate::rsgi;
use crate::runtime::RuntimeChoice;
use crate::scope::{ScopeBuilder, Template};
use crate::selector::{self, Selector};
use crate::sockets::{Listeners, Notifier};
use crate::thread_bound::ThreadBound;
use crate::websocket::{AsgiWebSocket, Inbox};
use crate::wsgi;

/// Events handled by one `dispatch`: asyncio's other callbacks get their turn in between.
const EVENTS_PER_DISPATCH: usize = 256;

/// Scope templates that are kept, some 700 bytes each. With more connections than these, streams share
/// places: idle ones cost nothing, and of those that share one the last to ask has it.
const TEMPLATES: usize = 1024;

/// What the ring's thread owns.
pub struct State {
    pub server: Server<Runtime>,
    pub selector: Selector,
    /// Futures of requests that wait for something. Mostly empty.
    waiters: HashMap<RequestId, Vec<(Wanted, Py<PyAny>)>>,
    /// The tasks of requests that did not end at once: asyncio itself keeps weak references.
    tasks: HashMap<RequestId, Py<PyAny>>,
    /// What has come on each WebSocket and was not taken yet.
    pub inboxes: HashMap<RequestId, Inbox>,
    /// Scope templates, by stream: see [`TEMPLATES`].
    templates: Vec<Option<Template>>,
    /// Events that came while an application on this thread waited within its call.
    pub held: VecDeque<Event>,
    /// The ring's side of the WSGI threads.
    pub wsgi: Option<wsgi::Ring>,
    /// With WSGI on this thread: what `dispatch` has to close.
    pub closings: Option<Arc<wsgi::Closings>>,
    /// What was agreed with a loop that does not run on this ring.
    pub guest: Guest,
}

impl State {
    /// Whether `dispatch` has something to do.
    pub fn has_events(&self) -> bool {
        let closings = self.closings.as_ref().is_some_and(|closings| !closings.is_empty());
        match &self.wsgi {
            Some(ring) => ring.has_notices(),
            None => self.server.has_events() || !self.held.is_empty() || closings,
        }
    }
}

/// How the loop is reached that runs on the worker's ring, from `Worker.attach`.
pub struct RingLoop {
    /// What `EpollSelector.select(0)` does (`ReadyFiles`), for Python's own fds.
    pub foreign_select: Py<PyAny>,
    /// What `select` returns for the permanent reader.
    pub dispatch_event: Py<PyAny>,
}

/// What the worker calls for requests, from `Worker.host`.
pub struct Hosting {
    interface: Interface,
    /// `serve(scope, exchange, pause)`: the coroutine that runs the application, after one pause if
    /// it is told to.
    serve: Py<PyAny>,
    /// `asyncio.Task`, and how to call it.
    task: Py<PyAny>,
    task_options: Py<PyDict>,
    /// These tasks take their first step at once.
    eager: bool,
    /// `report(level, text)` for the log.
    report: Py<PyAny>,
    /// `drained()`, when draining is over.
    drained: Py<PyAny>,
    /// `send_file(response)`, for an answer whose body is a file.
    pub send_file: Py<PyAny>,
    scopes: ScopeBuilder,
}

/// What the application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    Asgi,
    Rsgi,
}

/// See the stub file.
#[pyclass(frozen, weakref, module = "granian_uring._native")]
pub struct Worker {
    state: ThreadBound<Option<State>>,
    event_loop: PyOnceLock<Py<PyAny>>,
    ring_loop: PyOnceLock<RingLoop>,
    hosting: PyOnceLock<Hosting>,
    wsgi: PyOnceLock<wsgi::Hosting>,
    done: Py<Pending>,
    listeners: Py<Listeners>,
    /// The name of the runtime.
    #[pyo3(get)]
    runtime: &'static str,
    /// `(level, text)` of what there is to log about it.
    #[pyo3(get)]
    notices: Vec<(&'static str, String)>,
}

impl Worker {
    /// Use the state. `act` must not call into Python.
    pub fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> PyResult<R> {
        let (result, asks) = self.with_state(|state| (act(state), state.guest.asks()))?;
        if asks {
            guest::ask(self);
        }
        Ok(result)
    }

    /// As [`Worker::with`], for who sees to it that a turn follows.
    pub fn with_state<R>(&self, act: impl FnOnce(&mut State) -> R) -> PyResult<R> {
        self.state
            .with(|state| state.as_mut().map(act))?
            .ok_or_else(|| PyRuntimeError::new_err("the worker is closed"))
    }

    pub fn hosting(&self, py: Python<'_>) -> PyResult<&Hosting> {
        self.hosting
            .get(py)
            .ok_or_else(|| PyRuntimeError::new_err("the worker hosts no application yet"))
    }

    fn event_loop(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.event_loop
            .get(py)
            .ok_or_else(|| PyRuntimeError::new_err("no event loop is attached to the worker yet"))
    }

    pub fn ring_loop(&self, py: Python<'_>) -> PyResult<&RingLoop> {
        self.ring_loop
            .get(py)
            .ok_or_else(|| PyRuntimeError::new_err("the loop does not run on this ring"))
    }

    fn set_event_loop(&self, py: Python<'_>, event_loop: Py<PyAny>) -> PyResult<()> {
        self.event_loop
            .set(py, event_loop)
            .map_err(|_| PyRuntimeError::new_err("an event loop is attached to the worker already"))
    }

    /// The awaitable that is done.
    pub fn done(&self, py: Python<'_>) -> Py<Pending> {
        self.done.clone_ref(py)
    }

    /// A future that is done when there is news of what is wanted.
    pub fn wait_for(&self, py: Python<'_>, id: RequestId, wanted: Wanted) -> PyResult<Py<PyAny>> {
        let event_loop = self.event_loop(py)?;
        let future = event_loop.call_method0(py, intern!(py, "create_future"))?;
        let waiter = future.clone_ref(py);
        self.with(|state| state.waiters.entry(id).or_default().push((wanted, waiter)))?;
        Ok(future)
    }

    /// Nobody waits for `future` any more.
    pub fn forget(&self, id: RequestId, wanted: Wanted, future: &Py<PyAny>) {
        drop(self.take_waiters(id, |one, other| one == wanted && other.is(future)));
    }

    /// The application is done with this request: nobody waits for it any more.
    pub fn finish(&self, id: RequestId) -> PyResult<Left> {
        let (left, waiters, task) = self.with(|state| {
            let left = state.server.finish(id);
            forget(&mut state.inboxes, id);
            (left, forget(&mut state.waiters, id), forget(&mut state.tasks, id))
        })?;
        // Here, where their end may run Python.
        drop((waiters, task));
        Ok(left)
    }

    /// No one began with this request, and no one will.
    pub fn finish_unstarted(&self, id: RequestId) {
        // The worker may be closed, or this may be another thread: then nothing is left to do.
        let Ok(Left::Refused | Left::Aborted) = self.finish(id) else { return };
        Python::attach(|py| {
            let reported = self.hosting(py).and_then(|hosting| {
                let text = "a request's task ended before the application was called; the client \
                            got a 500";
                hosting.report(py, "error", text)
            });
            if let Err(error) = reported {
                error.write_unraisable(py, None);
            }
        });
    }

    /// A request took too long; its client was told. Whoever works on it is told too.
    fn time_out(&self, py: Python<'_>, id: RequestId, left: Left) -> PyResult<()> {
        let task = self.with(|state| state.tasks.get(&id).map(|task| task.clone_ref(py)))?;
        let client = match left {
            Left::Aborted => "its answer had begun, so the connection was reset",
            Left::Refused | Left::Answered => "the client got a 503",
        };
        let text = format!("a request took longer than --request-timeout; {client}");
        self.hosting(py)?.report(py, "warning", &text)?;
        // One that still waits for its turn has no task, and will have none.
        let Some(task) = task else { return Ok(()) };
        task.call_method0(py, intern!(py, "cancel")).map(drop)
    }

    /// Take waiters out, so that they are dropped where Python may run.
    fn take_waiters(
        &self,
        id: RequestId,
        which: impl Fn(Wanted, &Py<PyAny>) -> bool,
    ) -> Vec<Py<PyAny>> {
        let taken = self.with(|state| {
            if state.waiters.is_empty() {
                return Vec::new();
            }
            let Some(waiters) = state.waiters.get_mut(&id) else { return Vec::new() };
            let taken: Vec<_> = waiters
                .extract_if(.., |(wanted, future)| which(*wanted, future))
                .map(|(_, future)| future)
                .collect();
            if waiters.is_empty() {
                state.waiters.remove(&id);
            }
            taken
        });
        taken.unwrap_or_default()
    }

    pub fn wake(&self, py: Python<'_>, id: RequestId, news: News) -> PyResult<()> {
        for future in self.take_waiters(id, |wanted, _| wanted.news() == news) {
            if !future.call_method0(py, intern!(py, "done"))?.is_truthy(py)? {
                future.call_method1(py, intern!(py, "set_result"), (py.None(),))?;
            }
        }
        Ok(())
    }

    /// The next event; a request comes with its head and, from the second on a connection, with
    /// the template of its scope. One visit to the state for all of it.
    fn next(&self, py: Python<'_>) -> PyResult<Option<(Event, Option<Arrival>)>> {
        self.with(|state| {
            let event = state.server.next_event()?;
            let Event::Request(id) = event else { return Some((event, None)) };
            let request = state.server.take_request(id);
            let template = request.as_ref().and_then(|request| {
                let template = state.templates.get(template_place(id))?.as_ref()?;
                template.fits(request).then(|| template.clone_ref(py))
            });
            Some((event, request.map(|request| Arrival { request, template })))
        })
    }

    /// Give a request to the application, as a task of its own.
    fn begin(slf: &Bound<'_, Self>, id: RequestId, arrival: Arrival, tasks: Tasks) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let hosting = this.hosting(py)?;
        let offered = match hosting.interface {
            Interface::Asgi => Self::offer_asgi(slf, id, arrival),
            Interface::Rsgi => Self::offer_rsgi(slf, id, arrival),
        };
        let (scope, exchange) = match offered {
            Ok(offered) => offered,
            Err(error) => {
                this.finish(id)?;
                return Err(error);
            }
        };
        let pauses = tasks == Tasks::Plain;
        let coroutine = hosting.serve.bind(py).call1((scope, &exchange, pauses))?;
        if pauses {
            // To its pause: a coroutine that has begun cannot be thrown away unnoticed, as one
            // is whose task is cancelled before its first step.
            coroutine.call_method1(intern!(py, "send"), (py.None(),))?;
        }
        let task = this.start_task(py, coroutine, tasks)?;
        if exchange.get().stage() != Stage::Finished {
            if tasks == Tasks::Factory {
                // What the factory wrapped around our coroutine may end without having run it.
                let ended = exchange.getattr(intern!(py, "task_ended"))?;
                task.call_method1(intern!(py, "add_done_callback"), (ended,))?;
            }
            this.with(|state| state.tasks.insert(id, task.unbind()))?;
        }
        Ok(())
    }

    /// What an ASGI application is given. With the exchange its end is the request's, however that
    /// comes; nothing may fail behind that.
    fn offer_asgi<'py>(
        slf: &Bound<'py, Self>,
        id: RequestId,
        arrival: Arrival,
    ) -> PyResult<Offered<'py>> {
        let py = slf.py();
        let is_websocket = arrival.request.subprotocols.is_some();
        let scope = slf.get().scope(py, id, arrival)?.into_any();
        let exchange = Exchange::new(slf.clone().unbind(), id, asgi_refusal);
        let exchange = PyClassInitializer::from(exchange);
        if is_websocket {
            slf.get().with(|state| state.inboxes.insert(id, Inbox::default()))?;
            let exchange = exchange.add_subclass(AsgiWebSocket::new());
            return Ok((scope, Bound::new(py, exchange)?.into_super()));
        }
        let exchange = exchange.add_subclass(AsgiExchange::new());
        Ok((scope, Bound::new(py, exchange)?.into_super()))
    }

    /// What an RSGI application is given.
    fn offer_rsgi<'py>(
        slf: &Bound<'py, Self>,
        id: RequestId,
        arrival: Arrival,
    ) -> PyResult<Offered<'py>> {
        let py = slf.py();
        let is_websocket = arrival.request.subprotocols.is_some();
        let scope = Bound::new(py, rsgi::Scope::new(arrival.request))?.into_any();
        let exchange = Exchange::new(slf.clone().unbind(), id, rsgi_refusal);
        let exchange = PyClassInitializer::from(exchange);
        if is_websocket {
            slf.get().with(|state| state.inboxes.insert(id, Inbox::default()))?;
            let exchange = exchange.add_subclass(rsgi::WebsocketProtocol);
            return Ok((scope, Bound::new(py, exchange)?.into_super()));
        }
        let exchange = exchange.add_subclass(rsgi::HttpProtocol::new());
        Ok((scope, Bound::new(py, exchange)?.into_super()))
    }

    fn scope<'py>(
        &self,
        py: Python<'py>,
        id: RequestId,
        arrival: Arrival,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scopes = &self.hosting(py)?.scopes;
        let Arrival { request, template } = arrival;
        let template = if let Some(template) = template {
            template
        } else {
            let template = scopes.template(py, &request)?;
            self.keep_template(py, template_place(id), template)?
        };
        let scope = scopes.scope(py, &template, &request)?;
        self.with(|state| state.server.give_back(request))?;
        Ok(scope)
    }

    fn way_to_tasks(&self, py: Python<'_>) -> PyResult<Tasks> {
        let event_loop = self.event_loop(py)?;
        let factory = event_loop.call_method0(py, intern!(py, "get_task_factory"))?;
        Ok(match (factory.is_none(py), self.hosting(py)?.eager) {
            (false, _) => Tasks::Factory,
            (true, true) => Tasks::Eager,
            (true, false) => Tasks::Plain,
        })
    }

    fn start_task<'py>(
        &self,
        py: Python<'py>,
        coroutine: Bound<'py, PyAny>,
        tasks: Tasks,
    ) -> PyResult<Bound<'py, PyAny>> {
        if tasks == Tasks::Factory {
            let event_loop = self.event_loop(py)?.bind(py);
            return event_loop.call_method1(intern!(py, "create_task"), (coroutine,));
        }
        let hosting = self.hosting(py)?;
        hosting.task.bind(py).call((coroutine,), Some(hosting.task_options.bind(py)))
    }

    fn keep_template(
        &self,
        py: Python<'_>,
        place: usize,
        template: Template,
    ) -> PyResult<Template> {
        let kept = template.clone_ref(py);
        let before = self.with(|state| {
            if state.templates.len() <= place {
                state.templates.resize_with(place + 1, || None);
            }
            state.templates[place].replace(kept)
        })?;
        drop(before);
        Ok(template)
    }
}

fn template_place(request: RequestId) -> usize {
    request.stream().index() % TEMPLATES
}

/// A request on its way to the application.
struct Arrival {
    request: Request,
    template: Option<Template>,
}

/// The scope, and the exchange that an interface makes of it.
type Offered<'py> = (Bound<'py, PyAny>, Bound<'py, Exchange>);

/// How tasks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tasks {
    /// By `asyncio.Task` itself, which takes the first step at once (Python 3.12 and later).
    Eager,
    /// By `asyncio.Task` itself.
    Plain,
    /// By the factory that the application gave to the loop.
    Factory,
}

impl Hosting {
    fn report(&self, py: Python<'_>, level: &str, text: &str) -> PyResult<()> {
        self.report.call1(py, (level, text)).map(drop)
    }
}

#[pymethods]
impl Worker {
    #[new]
    fn new(
        py: Python<'_>,
        listeners: Py<Listeners>,
        runtime: &RuntimeChoice,
        options: WorkerOptions,
    ) -> PyResult<Self> {
        let (runtime, notices) = runtime.open(py)?;
        let name = runtime.kind().name();
        let mut server = Server::new(runtime, options.into_config());
        for listener in listeners.get().take() {
            let address = listener.address.to_string();
            let added = if listener.proxy_protocol {
                server.add_proxy_listener(listener.fd)
            } else {
                server.add_listener(listener.fd)
            };
            added.map_err(|error| {
                operator_error(
                    py,
                    &format!("the listener {address} cannot be registered with the ring: {error}"),
                )
            })?;
        }
        let state = State {
            server,
            selector: Selector::new(),
            waiters: HashMap::new(),
            tasks: HashMap::new(),
            inboxes: HashMap::new(),
            templates: Vec::new(),
            held: VecDeque::new(),
            wsgi: None,
            closings: None,
            guest: Guest::default(),
        };
        Ok(Self {
            state: ThreadBound::new(Some(state)),
            event_loop: PyOnceLock::new(),
            ring_loop: PyOnceLock::new(),
            hosting: PyOnceLock::new(),
            wsgi: PyOnceLock::new(),
            done: Py::new(py, Pending::done())?,
            listeners,
            runtime: name,
            notices,
        })
    }

    /// Say which loop runs on this ring, and how its selector is reached. Once, before it runs.
    fn attach(
        &self,
        py: Python<'_>,
        event_loop: Py<PyAny>,
        epoll_fd: i32,
        foreign_select: Py<PyAny>,
        dispatch_event: Py<PyAny>,
    ) -> PyResult<()> {
        self.set_event_loop(py, event_loop)?;
        self.with(|state| state.selector.epoll = Some(epoll_fd))?;
        // The first one, as the loop.
        let _ = self.ring_loop.set(py, RingLoop { foreign_select, dispatch_event });
        Ok(())
    }

    /// Be a guest of a loop that does not run on this ring. Once.
    fn attach_to(slf: &Bound<'_, Self>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().set_event_loop(slf.py(), event_loop.clone().unbind())?;
        guest::arrive(slf, event_loop)
    }

    /// What such a loop calls.
    #[pyo3(signature = (timer=false))]
    fn turn(slf: &Bound<'_, Self>, timer: bool) -> PyResult<()> {
        guest::run(slf, timer)
    }

    /// Say whom to call for requests. Once, before the first is accepted.
    #[pyo3(signature = (*, interface, serve, task, task_options, report, drained, send_file,
                         root_path, state))]
    #[allow(clippy::too_many_arguments, reason = "Python passes them by name, once")]
    fn host(
        &self,
        py: Python<'_>,
        interface: &str,
        serve: Py<PyAny>,
        task: Py<PyAny>,
        task_options: Py<PyDict>,
        report: Py<PyAny>,
        drained: Py<PyAny>,
        send_file: Py<PyAny>,
        root_path: &str,
        state: Option<Py<PyDict>>,
    ) -> PyResult<()> {
        let scopes = ScopeBuilder::new(py, root_path, state)?;
        let eager = task_options.bind(py).contains(intern!(py, "eager_start"))?;
        let interface = if interface == "rsgi" { Interface::Rsgi } else { Interface::Asgi };
        let hosting = Hosting {
            interface,
            serve,
            task,
            task_options,
            eager,
            report,
            drained,
            send_file,
            scopes,
        };
        self.hosting
            .set(py, hosting)
            .map_err(|_| PyRuntimeError::new_err("the worker hosts an application already"))
    }

    /// Serve a WSGI application, after `host`. See the stub file.
    #[pyo3(signature = (application, *, environ, failed, leave, threads, idle_seconds))]
    #[allow(clippy::too_many_arguments, reason = "Python passes them by name, once")]
    fn host_wsgi(
        &self,
        py: Python<'_>,
        application: Py<PyAny>,
        environ: Py<PyDict>,
        failed: Py<PyAny>,
        leave: Py<PyAny>,
        threads: usize,
        idle_seconds: f64,
    ) -> PyResult<()> {
        let gateway = wsgi::Gateway::new(py, application, environ, failed, leave)?;
        let hosting = wsgi::Hosting::new(gateway, threads, idle_seconds)?;
        match &hosting {
            wsgi::Hosting::Threads(pool) => {
                let ring = wsgi::Ring::new(pool.clone());
                self.with(|state| state.wsgi = Some(ring))?;
                guest::watch_bell(py, self)?;
            }
            wsgi::Hosting::Inline(inline) => {
                self.with(|state| state.closings = Some(inline.closings()))?;
            }
        }
        self.wsgi
            .set(py, hosting)
            .map_err(|_| PyRuntimeError::new_err("the worker hosts an application already"))
    }

    /// Wait until no thread runs the WSGI application any more. After `close`.
    fn join_threads(&self, py: Python<'_>) {
        if let Some(wsgi::Hosting::Threads(pool)) = self.wsgi.get(py) {
            py.detach(|| pool.join());
        }
    }

    /// How many threads run the WSGI application.
    #[getter]
    fn threads(&self, py: Python<'_>) -> usize {
        match self.wsgi.get(py) {
            Some(wsgi::Hosting::Threads(pool)) => pool.threads(),
            _ => 0,
        }
    }

    /// Log each request of connections accepted from now on: to the log's stream, or, with
    /// `by_lines`, as lines that somebody asks for.
    fn log_access(&self, log: &AccessLog, by_lines: bool) -> PyResult<Option<AccessLines>> {
        let (log, lines) = log.open(by_lines)?;
        self.with(|state| state.server.log_access(log))?;
        Ok(lines)
    }

    /// `select(timeout)` for the loop's selector.
    #[pyo3(signature = (timeout=None))]
    fn select<'py>(slf: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
        selector::select(slf, timeout)
    }

    /// Hand the server's events to the application. The loop's permanent reader.
    pub fn dispatch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if let Some(hosting) = this.wsgi.get(py) {
            return Self::dispatch_wsgi(slf, hosting);
        }
        let tasks = this.way_to_tasks(py)?;
        for _ in 0..EVENTS_PER_DISPATCH {
            let Some((event, arrival)) = this.next(py)? else { break };
            match (event, arrival) {
                (Event::Request(id), Some(arrival)) => {
                    if let Err(error) = Self::begin(slf, id, arrival, tasks) {
                        could_not_begin(py, error)?;
                    }
                }
                // Its client left while it waited in the queue.
                (Event::Request(id), None) => this.finish(id).map(drop)?,
                (event, _) => this.tell(py, event)?,
            }
        }
        Ok(())
    }

    /// Arm an accept on every listener, now: clients are served from here on.
    fn start(&self) -> PyResult<()> {
        self.with(|state| {
            state.server.start_accepting();
            let now = std::time::Instant::now();
            state.server.turn(Some(now)).map_err(PyOSError::new_err)?;
            if state.server.is_accepting() {
                Ok(())
            } else {
                // A connection came at once: the accept is armed again by the next turn.
                state.server.turn(Some(now)).map_err(PyOSError::new_err)
            }
        })?
    }

    /// Ping the service manager from every turn that is due: at once, then each half of its period.
    fn start_watchdog(&self, notifier: Py<Notifier>) -> PyResult<()> {
        let Some(period) = notifier.get().watchdog() else { return Ok(()) };
        self.with(|state| state.selector.start_watchdog(notifier, period))
    }

    /// Begin to drain.
    fn drain(&self) -> PyResult<()> {
        self.with(|state| state.server.drain())
    }

    /// Cut every connection. Returns how many requests were under way.
    fn cut(&self) -> PyResult<usize> {
        self.with(|state| state.server.cut())
    }

    /// `(connections, queued requests, running requests)`.
    #[getter]
    fn census(&self) -> PyResult<(usize, usize, usize)> {
        let census = self.with(|state| state.server.census())?;
        Ok((census.connections, census.queued, census.running))
    }

    /// The tasks of requests that the application is working on.
    #[getter]
    fn tasks(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        self.with(|state| state.tasks.values().map(|task| task.clone_ref(py)).collect())
    }

    /// In a forked child: the ring is the parent's, and its memory is not there (`dontfork`).
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(wsgi::Hosting::Threads(pool)) = self.wsgi.get(py) {
            pool.abandon();
        }
        std::mem::forget(self.state.with(Option::take)?);
        Ok(())
    }

    /// Give the ring back, in order: nothing is accepted or answered after this. The access log is
    /// written to its end, as far as its stream takes it; returns how many lines were lost.
    fn close(&self, py: Python<'_>) -> PyResult<u64> {
        match self.wsgi.get(py) {
            Some(wsgi::Hosting::Threads(_)) => {
                self.with(|state| state.wsgi.as_mut().map(wsgi::Ring::close))?;
            }
            Some(wsgi::Hosting::Inline(inline)) => inline.close(py),
            None => {}
        }
        guest::leave(py, self)?;
        let state = self.state.with(Option::take)?;
        let lost = state.map_or(0, |mut state| state.server.close_access_log());
        match self.wsgi.get(py) {
            Some(wsgi::Hosting::Threads(pool)) => pool.close_rest(py),
            Some(wsgi::Hosting::Inline(inline)) => inline.close_sent(py),
            None => {}
        }
        // Not left to the end of this object: it is in a cycle with Python's part of the worker.
        self.listeners.get().remove_files();
        Ok(lost)
    }

    #[allow(clippy::needless_pass_by_value, reason = "the signature of the slot")]
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.listeners)
    }
}

impl Worker {
    /// What is left to do for WSGI on this thread, with the GIL: everything, or what is not about a
    /// request.
    fn dispatch_wsgi(slf: &Bound<'_, Self>, hosting: &wsgi::Hosting) -> PyResult<()> {
        let this = slf.get();
        for _ in 0..EVENTS_PER_DISPATCH {
            let event = this.with(|state| match &mut state.wsgi {
                Some(ring) => ring.next_notice(),
                None => state.held.pop_front().or_else(|| state.server.next_event()),
            })?;
            let Some(event) = event else { break };
            let handled = match hosting {
                wsgi::Hosting::Threads(_) => false,
                wsgi::Hosting::Inline(inline) => inline.handle(slf, &event)?,
            };
            if !handled {
                this.tell(slf.py(), event)?;
            }
        }
        if let wsgi::Hosting::Inline(inline) = hosting {
            inline.close_sent(slf.py());
        }
        Ok(())
    }

    /// Everything that is not a request.
    fn tell(&self, py: Python<'_>, event: Event) -> PyResult<()> {
        let hosting = self.hosting(py)?;
        match event {
            Event::Request(_) => Ok(()),
            Event::Readable(id) => self.wake(py, id, News::Readable),
            Event::Writable(id) => self.wake(py, id, News::Writable),
            Event::WebSocket(id, event) => {
                self.with(|state| {
                    if let Some(inbox) = state.inboxes.get_mut(&id) {
                        inbox.push(event);
                    }
                })?;
                self.wake(py, id, News::Readable)
            }
            Event::Drained => hosting.drained.call0(py).map(drop),
            Event::AcceptFailed(error) => hosting.report(
                py,
                "warning",
                &format!("cannot accept: {error}; the connection waits in the queue"),
            ),
            Event::Overloaded => hosting.report(
                py,
                "warning",
                "as many requests run as --backpressure allows; more are refused with a 503",
            ),
            Event::TimedOut(id, left) => self.time_out(py, id, left),
            Event::AccessLost(lines) => hosting.report(py, "warning", &lost_lines(lines)),
            Event::Refused(peer, error) => {
                hosting.report(py, "debug", &format!("refused {peer}: {error}"))
            }
            Event::Unproxied(peer, refusal) => {
                hosting.report(py, "debug", &format!("refused {peer}: {refusal}"))
            }
        }
    }
}

fn lost_lines(lines: u64) -> String {
    format!("{lines} lines of the access log are lost: its destination does not take them")
}

/// A request that did not get as far as a task. A wish to exit, from an eager task's first step, is
/// passed on.
fn could_not_begin(py: Python<'_>, error: PyErr) -> PyResult<()> {
    if is_wish(py, &error) {
        return Err(error);
    }
    error.write_unraisable(py, None);
    Ok(())
}

/// Take what is kept for a request. These maps are mostly empty, and a look at that is cheaper than
/// a look-up.
fn forget<T>(map: &mut HashMap<RequestId, T>, id: RequestId) -> Option<T> {
    if map.is_empty() { None } else { map.remove(&id) }
}
