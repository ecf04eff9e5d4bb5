"""The assistant: what a turn of a conversation is about, and how it is answered."""
