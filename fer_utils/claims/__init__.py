"""The thesis's statements, each judged against a run by its own function; reads files only."""
