"""WAVs to shards: pairing, audio in, planning, encoding, and the Ray job that runs it at any scale."""
