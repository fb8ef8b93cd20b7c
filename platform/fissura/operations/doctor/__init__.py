"""`fissura doctor`: what each node says of itself, what is made of it, and the remedy in words."""
