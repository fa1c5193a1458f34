"""The virtual machine as the guest finds it: its maker, its clocks, its disk and its network card at work."""
