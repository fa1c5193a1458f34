"""dfbuild builds DragonFly BSD, boots it on chosen virtual hardware, tests it, and says what changed."""

__version__ = "0.1.0"
