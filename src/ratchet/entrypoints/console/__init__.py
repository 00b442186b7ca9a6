"""The web console, server-rendered.  It shows the glossary's words and every verdict's `because`;
no rule lives here."""
