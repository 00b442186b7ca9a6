"""The user's file: its keys, how it is read, and its schema for editors."""
