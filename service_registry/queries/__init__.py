"""Read what readers get from the database: the catalogue, now and in the past."""
