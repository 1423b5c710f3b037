"""The server under clients that mean no good, while others go on being served.

`attacks` is what such clients do, `control` the client that must not notice, each a program of its
own, so that neither the tests' interpreter nor the other one's work shows in the figures;
`application` is what the server serves meanwhile. `test_attacks.py` puts them together: it starts
them, and looks at what the server holds before, meanwhile and after.
"""
