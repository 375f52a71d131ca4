"""Pictures become records: sources, a plan, conversion on all cores, a directory that appears whole."""
