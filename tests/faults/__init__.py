"""Faults of processes, clocks and networks, with hundreds of leases that are renewed over HTTP.

`make faults PART=n` runs one part. Each prints its results, with the number of trials beside every zero.
"""
