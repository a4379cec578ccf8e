"""The fast transport: asyncio connections, httptools for HTTP/1.1, and reading that can wait.

`transport` sends and keeps connections; `connection` is one socket and the exchange on it; `tls` is what the
socket's bytes go through under https; `reply` turns bytes into a head and a body; `shared` is what connections
have in common, of which `deadlines` is the one timer for all time-outs and `pacing` decides when bytes may gather,
whose `arrivals` are noted meanwhile; `adapter` puts all of it behind httpx's interface.
"""
