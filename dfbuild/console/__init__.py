"""The console: one thread reads every byte into the transcript and past the crash monitor.

In: a byte stream. Out: a transcript, crash reports, boot stages, and a dialogue for those who must type.
"""
