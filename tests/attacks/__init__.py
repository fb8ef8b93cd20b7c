"""What an attacker, a slow client, a flipped bit and a dead process achieve."""
