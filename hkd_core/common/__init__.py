"""What everything uses and nothing here owns: errors, files, progress, processes."""
