"""The language model: loading, vocabulary, adapters, saved folders."""
