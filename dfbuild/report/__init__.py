"""Reports of a stored run: terminal, JUnit XML, JSON and one self-contained HTML page."""
