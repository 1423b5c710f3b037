"""RSGI applications on a server process, seen from outside."""
