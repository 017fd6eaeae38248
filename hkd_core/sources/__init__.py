"""Published data sets on disk, in their official layouts, as examples of the one schema."""
