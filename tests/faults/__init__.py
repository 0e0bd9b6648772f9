"""Faults of the machinery against leases that beat: real processes, a real server, hundreds of leases over HTTP.

`make faults PART=n` runs one part; each prints what it measured, with the number of trials beside every zero.
"""
