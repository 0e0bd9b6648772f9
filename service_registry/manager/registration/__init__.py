"""The steps of `register`, in one transaction: services, instances and quota."""
