"""Models on the Hugging Face hub: `incatalog publish`."""
