"""Results: what was seen, kept in sqlite as it comes, and what changed since another run."""
