"""Lists for everybody: shards of a table of users, made by any number of processes."""
