"""The control API: nouns in the path, one router each; a handler calls one operation."""
