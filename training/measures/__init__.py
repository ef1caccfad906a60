"""How music, masks and components are measured: pure functions, without gradient, of what a model made of a pair."""
