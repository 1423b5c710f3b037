"""The server process as a WSGI application and its clients see it.

`apps` holds the applications; process and client are those of `asgi`. Most tests run twice: with
threads beside the ring, and with the application on the ring's own thread.
"""
