-- Until our own limits are set, those of the role or the database count: they may be milliseconds.
set local statement_timeout = '5s'
