"""The steps of `register`: its services, its instances and their quota, in one transaction."""
