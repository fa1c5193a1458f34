"""Where the scheduler puts processes, how fairly it treats them, and what small things cost."""
