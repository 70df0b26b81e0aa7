"""The page at /ui for people: hand-written HTML, CSS and JavaScript, and nothing from elsewhere."""
