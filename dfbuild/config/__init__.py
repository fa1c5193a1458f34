"""Matrix files: TOML comes in, a validated `Matrix` goes out; errors name file, line, key and cure."""
