"""What may come next: the rules that hold answers to the items; knows no model."""
