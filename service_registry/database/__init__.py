"""The database backend: Django's for PostgreSQL, with a deadline for every wait.

Django loads `base`. `connection` has the deadlines and a circuit breaker, `transactions` the timeouts of writes,
`outages` classifies errors, and `retries` repeats what can be repeated.
"""
