"""The suites: pytest tests that run against a guest that is up, and the C programs they run in it.

In: a session. Out: a `CheckResult` for every check, measured against the release's expectations.
"""
