"""The commands, a module each, imported when they are called. May import all that `cli` may."""
