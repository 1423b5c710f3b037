"""What an application that breaks the order or the types of messages is told, and its client sees.

https://asgi.readthedocs.io/en/latest/specs/www.html#http
"""

import pytest

from asgi.apps import REFUSED
from asgi.client import Cut, get
from asgi.process import Server

pytestmark = pytest.mark.any_loop

TOLD = {
    "start-twice": "RuntimeError: the response was started twice",
    "body-before-start": "RuntimeError: a response body was sent before the response was started",
    "status-99": "RuntimeError: expected a response status from 200 to 999, found 99",
    "status-101": "RuntimeError: expected a final response status, found the interim 101",
    "status-1000": "RuntimeError: expected a response status from 200 to 999, found 1000",
    "status-70000": "RuntimeError: expected a response status from 200 to 999, found 70000",
    "status-text": "TypeError: http.response.start: status must be an int, got str",
    "no-status": "ValueError: the message has no status",
    "str-name": "TypeError: names and values of headers must be bytes, got str",
    "str-value": "TypeError: names and values of headers must be bytes, got str",
    "header-triple": "TypeError: a header must be a pair of name and value, got tuple",
    "header-number": "TypeError: names and values of headers must be bytes, got int",
    "inject-value": "RuntimeError: expected no line end and no NUL in the value of response "
    'header "x-name"',
    "inject-name": "RuntimeError: expected a token as the name of a response header, found "
    '"x-name: a\\\\r\\\\nevil"',
    "nul-value": "RuntimeError: expected no line end and no NUL in the value of response "
    'header "x-name"',
    "two-lengths": "RuntimeError: expected one content-length in the response, found two",
    "bad-length": 'RuntimeError: expected a number as the response\'s content-length, found "+1"',
    "unknown-type": 'ValueError: unknown message type "websocket.accept": expected '
    "http.response.start, http.response.body, or that of an extension in the scope",
    "no-type": "ValueError: the message has no type",
    "type-number": "TypeError: a message's type is a str, got int",
    "not-a-dict": "TypeError: send takes a dict, got list",
    "str-body": "TypeError: http.response.body: body must be bytes, got str",
    "int-body": "TypeError: http.response.body: body must be bytes, got int",
    "longer-at-once": "RuntimeError: the response body is longer than its content-length: 2 "
    "declared, 3 sent",
    "shorter-at-once": "RuntimeError: the response body is shorter than its content-length: 4 "
    "declared, 3 sent",
}


def test_every_case_is_told() -> None:
    assert TOLD.keys() == REFUSED.keys()


@pytest.mark.parametrize("case", TOLD)
def test_refused_before_a_byte_was_given_out(server: Server, case: str) -> None:
    """The application may go on as if it had not sent it; one that does not leaves a 500."""
    mark = server.out.mark()
    with server.connect() as client:
        response = client.ask(f"/refused/{case}")
    assert server.out.wait_for(f"note: {case}: (.*)", since=mark)[1] == TOLD[case]
    if len(REFUSED[case]) == 1 or case == "start-twice":
        assert (response.status, response.body.decode()) == (200, TOLD[case])
    else:
        assert (response.status, response.body) == (500, b"Internal Server Error\n")
    assert response.header("set-cookie") is None and response.header("evil") is None


LATE = {
    "body-after-end": "RuntimeError: http.response.body was sent after the end of the response (a "
    "http.response.body without more_body)",
    "start-after-end": "RuntimeError: http.response.start was sent after the end of the response "
    "(a http.response.body without more_body)",
    "start-after-body": "RuntimeError: the response was started twice",
    "longer": "RuntimeError: the response body is longer than its content-length: 8 declared, "
    "10 sent",
    "shorter-then-whole": "RuntimeError: http.response.body was sent after the end of the "
    "response (a http.response.body without more_body)",
}


@pytest.mark.parametrize("case", LATE)
def test_refused_after_a_part_was_given_out(server: Server, case: str) -> None:
    mark = server.out.mark()
    with server.connect() as client:
        client.send(get(f"/late/{case}"))
        if case == "longer":
            with pytest.raises((ConnectionResetError, Cut)) as caught:
                client.read()
            assert caught.type is ConnectionResetError
        else:
            expected = {"start-after-body": b"first second", "shorter-then-whole": b"firstend"}
            assert client.read().body == expected.get(case, b"end")
            assert client.ask("/hello").body == b"hello"
    assert server.out.wait_for(f"note: {case}: (.*)", since=mark)[1] == LATE[case]


@pytest.mark.parametrize("case", ["nothing", "start"])
def test_returning_without_an_answer_is_500(server: Server, case: str) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        response = client.ask(f"/incomplete/{case}")
        assert (response.status, response.body) == (500, b"Internal Server Error\n")
        assert response.header("content-type") == "text/plain; charset=utf-8"
        assert response.closes
        client.expect_end()
    server.log.wait_for(
        f"ERROR GET /incomplete/{case}: the application returned without completing its "
        "response; the client got a 500$",
        since=mark,
    )


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("case", ["chunked", "length"])
def test_an_answer_that_is_left_in_the_middle_never_looks_whole(
    server: Server, case: str, version: str
) -> None:
    mark = server.log.mark()
    with server.connect() as client:
        client.send(get(f"/incomplete/{case}", version=version))
        with pytest.raises(ConnectionResetError):
            client.read()
    server.log.wait_for(
        f"ERROR GET /incomplete/{case}: the application returned without completing its "
        "response; its answer had begun, so the connection was reset$",
        since=mark,
    )
    assert server.ask("/hello") == "hello"
