"""What is said steers: a conversation becomes weights and filters of items."""
