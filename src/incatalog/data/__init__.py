"""Raw data to catalog and histories."""
