"""The program end to end: logs, files, variables, errors, sockets of its own."""

import json
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from asgi.client import Client, get
from asgi.process import RUNTIME, Server, StartServer, run

# Answers with the names of the modules that are there by then.
PROBE = """
import sys

async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": " ".join(sys.modules).encode()})

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(sys.modules).encode()]
"""
# Needed by --version, --log-config and errors alone, and dear: they would be a quarter of a start.
RARELY_NEEDED = {"difflib", "email", "importlib.metadata", "json", "logging.config"}


def test_the_log_of_a_short_life(start_server: StartServer) -> None:
    server = start_server()
    server.ask("/hello")
    server.stop()
    lines = server.log.text.splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}"
    expected = [
        rf"{time} INFO the application: ASGI, function app",
        rf"{time} INFO the runtime: {RUNTIME}",
        rf"{time} INFO listening on http://127\.0\.0\.1:\d+",
        rf"{time} INFO SIGTERM: stopping",
        rf"{time} INFO draining: 0 requests under way, at most 30 s",
        rf"{time} INFO stopped",
    ]
    assert len(lines) == len(expected), lines
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert server.out.text == ""


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_a_start_does_not_import_what_is_rarely_needed(
    start_server: StartServer, tmp_path: Path, interface: str
) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    server = start_server("--working-dir", str(tmp_path), app=f"probe:{interface}")
    imported = set(server.ask().split())
    assert "granian_uring.worker" in imported
    assert not RARELY_NEEDED & imported


def test_no_log(start_server: StartServer) -> None:
    # Without a log there is no address to read: a Unix socket has one that is known.
    path = f"@granian-uring-{id(object())}"
    server = start_server("--no-log", "--uds", path, "--pid-file", "/dev/null", ready=False)
    for _ in range(200):
        try:
            client = Client("\0" + path[1:])
            break
        except ConnectionRefusedError:
            assert server.process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(0.05)
    with client:
        assert client.ask("/hello").body == b"hello"
        assert client.ask("/fault/before").status == 500
    server.stop()
    assert server.log.text == ""


def test_the_access_log(start_server: StartServer) -> None:
    server = start_server("--access-log")
    with server.connect() as client:
        assert client.ask("/hello?q=1").status == 200
        line = server.out.wait_for("GET /hello.*")
        assert re.fullmatch(
            r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] 127\.0\.0\.1 "
            r'"GET /hello HTTP/1\.1" 200 \d+\.\d{3}',
            line.string,
        )
        assert client.ask("/fault/before").status == 500
        server.out.wait_for('"GET /fault/before HTTP/1.1" 500 ')
    with server.connect() as client:
        client.send(get("/incomplete/length", version="1.0"))
        with pytest.raises(ConnectionResetError):
            client.read()
        server.out.wait_for('"GET /incomplete/length HTTP/1.0" 200 ')
    client = server.connect()
    client.send(get("/disconnect"))
    server.out.wait_for("disconnect: waiting")
    client.reset()
    server.out.wait_for('"GET /disconnect HTTP/1.1" 499 ')
    server.stop()
    assert len(re.findall("^\\[", server.out.text, re.MULTILINE)) == 4, server.out.text


def test_every_atom_of_the_access_log(start_server: StartServer) -> None:
    format = (
        "%(addr)s|%(time)s|%(dt_ms).1f|%(status)d|%(path)s|%(query_string)s|%(method)s|"
        "%(scheme)s|%(protocol)s|%(header{X-Header})s|%(header{absent})s|100%%"
    )
    server = start_server("--access-log", "--access-log-fmt", format)
    with server.connect() as client:
        client.ask("/slow%0A%22?seconds=0.05&x=%0A", 'X-Header: "a"', "x-header: b", method="PUT")
        client.ask("/slow?seconds=0.05", method="PUT")
    found = server.out.wait_for(r"^127\.0\.0\.1\|.*").string.split("|")
    assert found[3:] == [
        "200",
        r"/slow\x0a\"",
        "seconds=0.05&x=%0A",
        "PUT",
        "http",
        "HTTP/1.1",
        r"\"a\", b",
        "-",
        "100%",
    ]
    second = server.out.wait_for(r"\|/slow\|").string.split("|")
    assert 45 < float(second[2]) < 500


def test_the_access_log_as_json_with_ids(start_server: StartServer) -> None:
    server = start_server("--access-log", "--access-log-json", "--request-id-header", "X-Id")
    with server.connect() as client:
        client.ask("/hello", "X-Id: abc")
    line = json.loads(server.out.wait_for(r'^\{.*"/hello"').string)
    assert line["status"] == 200 and line["body_bytes"] == 5 and line["referer"] is None
    assert line["request_id"] == "abc" and line["addr"] == "127.0.0.1"
    with server.connect() as client:
        client.send(b"GET / HTTP/3\r\n\r\n")
        client.read()
    line = json.loads(server.out.wait_for(r'"target":null').string)
    assert line["status"] in (400, 505) and line["request_id"] is None


def test_the_access_log_goes_to_a_handler(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    config = tmp_path / "log.json"
    handler = {"class": "logging.FileHandler", "filename": str(path)}
    console = {"class": "logging.StreamHandler"}
    loggers = {
        "granian": {"handlers": ["console"], "level": "INFO"},
        "granian.access": {"handlers": ["file"], "level": "INFO", "propagate": False},
    }
    handlers = {"file": handler, "console": console}
    config.write_text(json.dumps({"handlers": handlers, "loggers": loggers}))
    words = ("--access-log", "--access-log-fmt", "%(path)s %(status)d")
    server = start_server(*words, "--log-config", str(config), ready=False)
    address = server.log.wait_for(r"listening on http://(.*):(\d+)$")
    with socket.create_connection((address[1], int(address[2]))) as client:
        for _ in range(3):
            client.sendall(get("/hello"))
            client.recv(4096)
    server.stop()
    assert path.read_text() == "/hello 200\n" * 3
    assert "/hello" not in server.out.text


def test_the_access_log_of_a_unix_socket(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--access-log", "--uds", str(tmp_path / "web.sock"))
    with server.connect() as client:
        client.ask("/hello")
    server.out.wait_for(r'\] - "GET /hello HTTP/1.1" 200')


def test_the_pid_file(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "web.pid"
    path.write_text("999999999\n")
    server = start_server("--pid-file", str(path))
    assert path.read_text() == f"{server.pid}\n"
    other = run("asgi.apps:app", "--port", "0", "--pid-file", str(path))
    assert other.returncode == 1
    assert f"--pid-file {path} names process {server.pid}, which is alive" in other.stderr
    assert "\n\nhint: " in other.stderr
    server.stop()
    assert not path.exists()


def test_a_process_name_without_its_package_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "setproctitle.py").write_text("raise ImportError")
    words = ("asgi.apps:app", "--port", "0", "--process-name", "web")
    done = run(*words, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        "error: --process-name needs the package setproctitle, which is not installed\n\n"
        "hint: pip install 'granian-uring[pname]', or leave --process-name out\n"
    )


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help(word: str) -> None:
    done = run(word)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--fd-from-systemd" in done.stdout and "GRANIAN_PORT" in done.stdout


def test_version_and_module() -> None:
    done = run("--version")
    assert re.fullmatch(r"granian-uring \d+\.\d+\.\d+\n", done.stdout)
    module = subprocess.run(
        [sys.executable, "-m", "granian_uring", "--version"], capture_output=True, text=True
    )
    assert module.stdout == done.stdout


def test_a_wrong_option() -> None:
    done = run("asgi.apps:app", "--prot", "1")
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: No such option '?--prot'?.*\n\nhint: .*--help.*\n", done.stderr, re.DOTALL
    )


def test_an_application_that_cannot_be_imported_shows_its_own_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def app():\n    pass\n\nimport no_such_module\n")
    done = run("broken:app", "--port", "0", "--working-dir", str(tmp_path))
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    files = [line.split('"')[1] for line in lines if line.startswith("  File ")]
    assert files == [str(tmp_path / "broken.py")], done.stderr
    assert "ModuleNotFoundError: No module named 'no_such_module'" in lines
    assert "listening" not in done.stderr


def test_a_module_alone_means_app(start_server: StartServer) -> None:
    server = start_server(app="asgi.apps")
    assert server.ask("/hello") == "hello"


def test_variables(start_server: StartServer) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    environment = {"GRANIAN_PORT": str(port), "GRANIAN_LOG_ACCESS_ENABLED": "1"}
    # The fixture's own --port would win.
    server = start_server("--host", "127.0.0.1", environment=environment, port=False)
    assert server.address == ("127.0.0.1", port)
    assert server.ask("/hello") == "hello"
    server.out.wait_for('"GET /hello HTTP/1.1" 200')


def test_a_port_in_use(start_server: StartServer) -> None:
    server = start_server()
    port = str(server.address[1])
    done = run("asgi.apps:app", "--port", port)
    assert done.returncode == 1
    assert re.match(rf"error: .*127\.0\.0\.1:{port}.*in use", done.stderr), done.stderr
    assert "\n\nhint: " in done.stderr and "Traceback" not in done.stderr


def test_a_unix_socket_with_permissions(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    server = start_server("--uds", str(path), "--uds-permissions", "660")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert server.ask("/hello") == "hello"
    other = run("asgi.apps:app", "--uds", str(path))
    assert other.returncode == 1
    assert str(path) in other.stderr and "\n\nhint: " in other.stderr
    assert server.ask("/hello") == "hello"
    server.stop()
    assert not path.exists()


def test_a_stale_socket_file_is_replaced(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = start_server("--uds", str(path))
    assert server.ask("/hello") == "hello"


def test_several_sockets(start_server: StartServer, tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    server = start_server("--host", "127.0.0.1", "--uds", path, port=True)
    server.log.wait_for(r"listening on unix:")
    assert server.ask("/hello") == "hello"
    with Client(path) as client:
        assert client.ask("/hello").body == b"hello"


def test_no_descriptor_leaks_into_children(server: Server) -> None:
    """Connections and the ring itself are closed on exec."""
    with server.connect() as client:
        assert client.ask("/children").body == b"0 1 2"
