"""The server process as an ASGI application and its clients see it.

`apps` holds the applications, `client` a client on raw sockets that believes nothing; the `server`
fixtures on `process` are in `tests/python/conftest.py`.
"""
