"""Output for people: `console` writes to the two streams, `views` shows each kind of value."""
