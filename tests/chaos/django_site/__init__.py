"""A Django site of the storm's own: its tasks write into the database that holds their runs."""
