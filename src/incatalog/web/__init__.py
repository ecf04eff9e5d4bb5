"""What both services share: bodies, connections, the listener, counters and states."""
