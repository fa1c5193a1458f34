"""What an attacker meets: memory that does not execute, guarded stacks, addresses and numbers he can't foresee."""
