"""The tree's own measurements (`test/sysperf`), compiled and run in the guest, for comparison with other runs."""
