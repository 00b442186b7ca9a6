"""One stranger per outside system: they translate words and errors, and hold no rule."""
