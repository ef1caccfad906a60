"""Pages to listen to: pieces with their sources, and runs; gathered, put into pictures, and set."""
