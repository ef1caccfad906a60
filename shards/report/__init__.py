"""A dataset as one page for people: `collect` reads it, `charts` and `images` draw, `render` sets the page."""
