"""Any transformers model, fed ragged rows; knows no item."""
