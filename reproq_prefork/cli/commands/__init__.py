"""The commands: one module each, imported when it is called. May import all that `cli` may."""
