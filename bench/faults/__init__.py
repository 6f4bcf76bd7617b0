"""The cases of the subject `faults`."""
