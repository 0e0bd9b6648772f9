"""The database backend: Django's own for PostgreSQL, on connections on which no wait is endless.

`connection` has the deadlines, `base` is what Django loads, `outages` tells what is the database's trouble, and
`retrying` does again what may be done again.
"""
