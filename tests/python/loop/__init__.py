"""Ordinary asyncio code on the ring's loop: in this process, and inside a server's requests."""
