"""The compilers that are part of the guest's own world: what they make is what the cross compiler made of it."""
