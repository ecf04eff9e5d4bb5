"""First runs: from two files to a conversation, the demo, and the study of three methods."""
